"""Rows of new tokens against peft's; replay; and what can't be learnt is refused."""
import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

from course_lib.adapters import add_lora
from course_lib.domain import (add_words, change_of_perplexity, continue_pretraining, in_blocks,
                               keep_new_rows, train_new_rows, with_replay, words_worth_a_token)
from course_lib.errors import InputError
from course_lib.generation import negative_log_likelihoods, text_generation, text_rows
from course_lib.loading import quiet
from course_lib.models import load
from course_lib.pretraining import draw_rows, token_stream
from course_lib.training import fit

TINY = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
NONE = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
         "intermediate_size": 64, "max_position_embeddings": 64}
CONFIGS = {"gpt2": GPT2Config(n_layer=2, n_embd=32, n_head=4, n_positions=64, **TINY, **NONE),
           "llama": LlamaConfig(tie_word_embeddings=True, **SHAPE, **TINY),
           "llama, not tied": LlamaConfig(tie_word_embeddings=False, **SHAPE, **TINY)}
WORDS = ["ceasefire", "parliament", "кино"]


def new(kind):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[kind])).eval()


def rows_of(n=24):
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, 99, 3 + i % 9).tolist() for i in range(n)]
    return [{"input_ids": ids, "labels": ids} for ids in rows]


def named(model, part): return [p for name, p in model.named_parameters() if part in name]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_new_rows_are_trained_as_by_peft(kind):
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear",
                          fan_in_fan_out=kind == "gpt2", trainable_token_indices=[96, 97, 98])
    with quiet(): theirs = get_peft_model(new(kind), settings)
    ours = train_new_rows(add_lora(new(kind), 4, 8), 96)
    for mine, their in zip(named(ours, ".A"), named(theirs, "lora_A")):
        mine.data.copy_(their.data)
    sizes = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (ours, theirs)]
    assert sizes[0] == sizes[1]
    begun = named(ours, "rows")[0].detach().clone()
    usual = {"task": text_generation, "device": "cpu", "bf16": False, "progress": False}
    losses = [fit(model, rows_of(), epochs=2, batch_size=8, learning_rate=1e-2, **usual)["loss"]
              for model in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    rows = named(ours, "rows") + named(theirs, "trainable_tokens_delta")
    pairs = [[row - begun for row in rows], *zip(named(ours, ".B"), named(theirs, "lora_B"))]
    for mine, their in pairs: assert (mine - their).norm() < 1e-2 * mine.norm()
    assert len(pairs) > 8


@pytest.mark.parametrize("kind", CONFIGS)
def test_only_the_new_rows_change_and_stay(kind):
    model = new(kind).requires_grad_(False)
    layers = model.get_input_embeddings(), model.get_output_embeddings()
    before = [layer.weight.clone() for layer in layers]
    fit(train_new_rows(model, 96), rows_of(), task=text_generation, epochs=1, batch_size=8,
        learning_rate=1e-2, bf16=False, device="cpu", progress=False)
    scores = negative_log_likelihoods(model, rows_of())
    keep_new_rows(model)
    np.testing.assert_allclose(negative_log_likelihoods(model, rows_of()), scores, rtol=1e-5)
    for layer, old in zip(layers, before):
        assert torch.equal(layer.weight[:96], old[:96]) and not torch.equal(layer.weight, old)
        assert not hasattr(layer, "parametrizations")
    assert (layers[0].weight is layers[1].weight) == ("not" not in kind)


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_row_is_the_mean_of_its_pieces(tied):
    model, tokenizer = load("tiny-gpt2", task="text-generation")
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight + 1)
    pieces = [tokenizer.encode(f" {w}", add_special_tokens=False) for w in WORDS]
    old = tokenizer.decode(tokenizer.encode("A ceasefire, кино.", add_special_tokens=False))
    first = add_words(model, tokenizer, WORDS)
    ids = tokenizer.encode("A ceasefire, кино.", add_special_tokens=False)
    assert {first, first + 2} < set(ids) and tokenizer.decode(ids) == old
    weight = model.get_input_embeddings().weight
    for i, own in enumerate(pieces):
        torch.testing.assert_close(weight[first + i], weight[own].mean(0))
    out = model.get_output_embeddings().weight
    assert len(out) == len(tokenizer) == first + 3
    if not tied: torch.testing.assert_close(out[first:], weight[first:] + 1)


def test_words_that_cost_most_come_first():
    _, tokenizer = load("tiny-gpt2", task="text-generation")
    texts = ["the zyxwvut and the qqqqzzz", "a zyxwvut or a zyxwvut", "one qqqqzzz, again Zyxwvut"]
    assert words_worth_a_token(texts, tokenizer, 5) == ["zyxwvut", "qqqqzzz"]
    assert words_worth_a_token(texts, tokenizer, 1) == ["zyxwvut"]
    assert words_worth_a_token(["nothing new here"], tokenizer, 5) == []


@given(share=st.floats(0, 0.6), n=st.integers(1, 20), seed=st.integers(0, 9))
def test_replay_has_its_share(share, n, seed):
    texts, old = [f"new {i:04}" for i in range(n)], [f"old {i:04}" for i in range(60)]
    mixed = with_replay(texts, old, share, seed)
    drawn = sum(text in old for text in mixed)
    assert set(texts) <= set(mixed) and len(mixed) == len(set(mixed)) == n + drawn
    assert n * share / (1 - share) <= drawn + 1e-6 and drawn - 1 < n * share / (1 - share)
    assert mixed == with_replay(texts, old, share, seed)


def test_what_is_learnt_shows_and_blocks_hold_everything():
    model, tokenizer = load("tiny-gpt2", task="text-generation")
    texts = [f"Ceasefire number {i} holds in the valley town, monitors say." for i in range(60)]
    rows = text_rows(texts[:8], tokenizer)
    before = negative_log_likelihoods(model, rows)
    continue_pretraining(model, tokenizer, texts, passes=1, batch_size=1, device="cpu")
    change = change_of_perplexity(before, negative_log_likelihoods(model, rows))
    assert change["value"] <= change["high"] < -0.3
    text = "One.\n\nTwo, longer.\n\n\nThree."
    assert in_blocks(text, 9) == ["One.\n\nTwo, longer.", "Three."] and in_blocks("\n\n") == []


@pytest.mark.parametrize("symbols, bits", [(300, 16), (2**16 - 1, 16), (2**16, 32), (70_000, 32)])
def test_a_stream_holds_the_ids_of_large_vocabularies(symbols, bits):
    "Those of multilingual models don't fit into 16 bits; the ids come out as they went in."
    last = f"w{symbols - 1}"
    own = Tokenizer(WordLevel({f"w{i}": i for i in range(symbols)}, unk_token="w0"))
    own.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, eos_token="w1", unk_token="w0")
    stream = token_stream([f"w2 {last} w3 " * 200, last], tokenizer)
    assert stream.itemsize * 8 == bits and stream.max() == symbols - 1
    assert stream[:3].tolist() == [2, symbols - 1, 3] and stream[-2:].tolist() == [symbols - 1, 1]
    rows = draw_rows(stream, 1, 0)
    assert rows.dtype == torch.int64 and set(rows.unique().tolist()) <= {1, 2, 3, symbols - 1}


REFUSED = {
    "too little": (lambda m, t: continue_pretraining(m, t, ["Short."]), "a step takes 1,024"),
    "all of it old": (lambda m, t: with_replay(["a"], ["b"], 1.0), "share=1.0 – is not between"),
    "too few old ones": (lambda m, t: with_replay(["a" * 90], ["b"], 0.5), "are too few"),
    "an empty word": (lambda m, t: add_words(m, t, ["ceasefire", ""]), "word 1, '' – is empty"),
    "a space": (lambda m, t: add_words(m, t, [" ceasefire"]), "has spaces around it"),
    "a known word": (lambda m, t: add_words(m, t, ["the"]), "word 0, 'the' – is a token already"),
    "twice": (lambda m, t: add_words(m, t, ["ceasefire"] * 2), "word 1, 'ceasefire' – is there"),
    "twice to it": (lambda m, t: add_words(m, t, ["Ceasefire", "ceasefire"]), "word 1, 'cease"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    refused, message = REFUSED[name]
    model, tokenizer = load("tiny-gpt2", task="text-generation")
    with pytest.raises(InputError) as e: refused(model, tokenizer)
    assert message in str(e.value) and "\n" not in str(e.value)
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings == 8192
