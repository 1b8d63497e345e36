"The states of each layer, read by the lens and by a probe."
import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM,
                          LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM)

from course_lib.download import cache_folder
from course_lib.files import is_folder
from course_lib.inside import (LAYERS, RECORDS, answer_tokens, ask, halves, layer_states, lens,
                               patched_logits, probe, read_layer)
from course_lib.models import load
from course_lib.records import recorded

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "max_position_embeddings": 32}
FAMILIES = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=60, n_embd=16, n_layer=3, n_head=2,
                                         n_positions=32)),
    "llama": (LlamaForCausalLM, LlamaConfig(**SMALL, intermediate_size=32)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SMALL, intermediate_size=32,
                                            num_key_value_heads=2)),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**SMALL, intermediate_size=32)),
    "opt": (OPTForCausalLM, OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16))}


@pytest.fixture(scope="module")
def texts():
    draw = torch.Generator().manual_seed(0)
    lengths = [5, 1, 9, 3, 12, 7, 2]
    return Dataset.from_dict({"input_ids": [
        torch.randint(3, 60, (n,), generator=draw).tolist() for n in lengths]})


@pytest.fixture(params=FAMILIES)
def writer(request):
    kind, config = FAMILIES[request.param]
    torch.manual_seed(0)
    return kind(config).eval()


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_states_are_those_of_each_text_alone(writer, texts, batch_size):
    found = layer_states(writer, texts, batch_size)
    assert found.shape == (4, len(texts), 16)
    for row, ids in enumerate(texts["input_ids"]):
        with torch.no_grad(): alone = writer(torch.tensor([ids]), output_hidden_states=True)
        wanted = torch.stack([states[0, -1] for states in alone.hidden_states])
        torch.testing.assert_close(found[:, row], wanted, atol=1e-5, rtol=0)


def logits_after(writer, ids) -> torch.Tensor: # (vocabulary,)
    with torch.no_grad(): return writer(torch.tensor([ids])).logits[0, -1]


def test_the_last_state_is_what_the_head_reads(writer, texts):
    last = layer_states(writer, texts)[-1]
    for row, ids in enumerate(texts["input_ids"]):
        wanted = logits_after(writer, ids)
        torch.testing.assert_close(writer.lm_head(last[row]), wanted, atol=1e-5, rtol=0)


@pytest.fixture(params=[name for name in FAMILIES if name != "opt"]) # its norm is further inside
def with_norm(request):
    kind, config = FAMILIES[request.param]
    torch.manual_seed(0)
    return kind(config).eval()


def test_the_lens_shows_the_logits_of_the_model_cut_off_there(with_norm, texts):
    states = layer_states(with_norm, texts)
    seen = lens(with_norm, states)
    torch.testing.assert_close(seen[..., [7, 3]], lens(with_norm, states, [7, 3]))
    body = with_norm.base_model
    stack = next(m for m in body.children() if isinstance(m, torch.nn.ModuleList))
    for layers in (3, 2, 1):                                 # the layers above are taken away
        del stack[layers:]
        for row, ids in enumerate(texts["input_ids"]):
            wanted = logits_after(with_norm, ids)
            torch.testing.assert_close(seen[layers, row], wanted, atol=1e-5, rtol=0)


def test_a_state_put_in_its_own_place_changes_nothing(with_norm, texts):
    states, words = layer_states(with_norm, texts), [4, 9]
    for row in (0, 2, 4):
        ids = texts["input_ids"][row]
        found = patched_logits(with_norm, ids, states[:, row], words)
        wanted = logits_after(with_norm, ids)[words].expand(3, 2)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_state_put_in_changes_the_layers_above_it_only(with_norm, texts):
    "Against a run of the whole text with a hook on one layer."
    states, words, ids = layer_states(with_norm, texts), [4, 9], texts["input_ids"][2]
    other = states[:, 4]
    found = patched_logits(with_norm, ids, other, words)
    stack = next(m for m in with_norm.base_model.children() if isinstance(m, torch.nn.ModuleList))
    for layer, block in enumerate(stack):
        def replace(module, args, layer=layer):
            changed = args[0].clone()
            changed[0, -1] = other[layer]
            return (changed, *args[1:])
        hook = block.register_forward_pre_hook(replace)
        wanted = logits_after(with_norm, ids)[words]
        hook.remove()
        torch.testing.assert_close(found[layer], wanted, atol=1e-5, rtol=0)
    own = logits_after(with_norm, ids)[words]
    assert (found[1] - own).abs().max() > 1e-4               # and it did change something


def test_dropout_is_off_and_the_mode_is_kept(texts):
    torch.manual_seed(0)
    writer = GPT2LMHeadModel(FAMILIES["gpt2"][1]).train()
    assert torch.equal(layer_states(writer, texts), layer_states(writer, texts))
    assert writer.training and writer.transformer.training


def test_a_probe_learns_what_is_there_and_by_heart_what_is_not():
    draw = np.random.default_rng(0)
    states, labels = draw.normal(size=(200, 300)), draw.integers(0, 2, 200)
    states[:, :20] += labels[:, None]
    assert probe(states[:100], labels[:100]).score(states[100:], labels[100:]) > 0.7
    shuffled = draw.permutation(labels[:100])
    control = probe(states[:100], shuffled)
    assert control.score(states[:100], shuffled) > 0.9
    assert 0.3 < control.score(states[100:], labels[100:]) < 0.7


def test_halves_call_half_positive_and_a_constant_answer_is_chance():
    labels = np.array([0, 0, 1, 1])
    always_positive = torch.tensor([[0.0, 5.0], [0.0, 6.0], [0.0, 7.0], [0.0, 8.0]])
    assert halves(always_positive, labels) == 4
    assert halves(torch.zeros(4, 2), labels) == 2
    assert halves(-always_positive, labels) == 0


def test_a_question_ends_where_the_answer_begins():
    _, tokenizer = load("tiny-gpt2", "text-generation")
    (ids,) = ask(["Fine."], tokenizer)["input_ids"]
    assert tokenizer.decode(ids).strip() == "review: fine.\nsentiment:"
    words = [tokenizer.decode([i]) for i in answer_tokens(tokenizer)]
    assert [w.strip() for w in words] == ["negative", "positive"]


def test_the_recorded_table_has_every_run_and_is_made_by_the_function():
    table = recorded("layers")
    columns = ["model", "reading", "layer", "draw"]
    assert table[columns].to_dict("records") == RECORDS["layers"][1]
    for settings in ({"reading": "lens", "layer": 3}, {"reading": "probe", "layer": 4},
                     {"reading": "patched", "layer": 2}, {"reading": "shuffled", "layer": 1}):
        run = {"model": "tiny-gpt2", "draw": 0, **settings}
        old = table[(table[columns] == [run[c] for c in columns]).all(axis=1)]
        assert abs(read_layer(**run)["right"] - old["right"].item()) <= 8


@pytest.mark.skipif(not is_folder(cache_folder() / "smollm2"),
                    reason="smollm2 isn't downloaded: course download smollm2")
def test_the_lens_on_smollm2_shows_its_logits_and_its_layers_are_counted():
    writer, tokenizer = load("smollm2", "text-generation")
    text = Dataset.from_dict({"input_ids": [tokenizer("The capital of France is")["input_ids"]]})
    states = layer_states(writer, text)
    assert len(states) == LAYERS["smollm2"] + 1
    logits = logits_after(writer, text["input_ids"][0])
    torch.testing.assert_close(lens(writer, states)[-1, 0], logits, atol=1e-4, rtol=0)
    assert tokenizer.decode([logits.argmax()]) == " Paris"
