"""Tokens, batches, models: equal to the library, indifferent to padding, loud about mistakes."""
import json
import os
import subprocess
import sys
from unicodedata import normalize

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (BertConfig, BertForMaskedLM, BertForSequenceClassification, GPT2Config,
                          GPT2LMHeadModel, GPTNeoConfig, GPTNeoForCausalLM)

from conftest import is_here

from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.models import blocks, count_parameters, freeze, load, set_dropout
from course_lib.recipe import Recipe
from course_lib.runs import prepare
from course_lib.optim import make_optimizer, make_schedule
from course_lib.packed import packable
from course_lib.tokens import batches, epoch_order, pad_batch, tokenize
from course_lib.training import batch_logits, classification_loss, make_batch, training_step

LABELS = ["negative", "positive"]


@pytest.fixture(scope="module")
def tiny(): return load("tiny-gpt2", labels=LABELS)


ids = st.lists(st.lists(st.integers(2, 99), min_size=1, max_size=9), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(rows=ids, side=st.sampled_from(["left", "right"]))
def test_padding_equals_the_library(tiny, rows, side):
    features = [{"input_ids": r, "labels": 1} for r in rows]
    ours = pad_batch(features, tiny[1].pad_token_id, side)
    theirs = tiny[1].pad(features, padding_side=side, return_tensors="pt")
    assert all(torch.equal(ours[k], theirs[k]) for k in ("input_ids", "attention_mask", "labels"))


@settings(max_examples=30, deadline=None)
@given(rows=ids, side=st.sampled_from(["left", "right"]), extra=st.integers(0, 20))
def test_padding_never_changes_a_logit(tiny, rows, side, extra):
    model, tokenizer = tiny
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=torch.tensor([r])).logits for r in rows])
        features = [{"input_ids": r} for r in [*rows, [5] * (9 + extra)]]
        batch = pad_batch(features, tokenizer.pad_token_id, side)
        together = model(**batch).logits[:-1]
    assert torch.allclose(alone, together, atol=1e-5)


@given(n=st.integers(1, 50), size=st.integers(1, 20), seed=st.integers(0, 5),
       epoch=st.integers(0, 5))
def test_an_epoch_visits_each_row_once(n, size, seed, epoch):
    parts = batches(epoch_order(n, seed, epoch), size)
    assert sorted(sum(parts, [])) == list(range(n))
    assert all(len(b) == size for b in parts[:-1])


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60).filter(lambda t: "<|" not in t))
def test_the_tokenizer_loses_nothing_but_case(tiny, text):
    tokens = tiny[1](text)["input_ids"]
    decoded = tiny[1].decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    expected = normalize("NFC", text).lower()
    if decoded.removeprefix(" ") == expected.removeprefix(" "): return
    assert normalize("NFC", decoded.strip()) == normalize("NFC", expected.strip())


@pytest.mark.slow
def test_real_gpt2_shape_takes_a_step(tmp_path, tiny):
    "GPT-2 small's own configuration and vocabulary size, without a padding token, as on the hub."
    GPT2LMHeadModel(GPT2Config()).save_pretrained(tmp_path)
    tiny[1].save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings_ = json.loads(path.read_text())
    del settings_["pad_token"]
    path.write_text(json.dumps(settings_))
    model, tokenizer = load(str(tmp_path), labels=LABELS)
    assert 124e6 < model.num_parameters() < 125e6
    assert tokenizer.pad_token == tokenizer.eos_token
    assert model.config.pad_token_id == tokenizer.pad_token_id
    features = [{"input_ids": [10, 20, 30], "labels": 0}, {"input_ids": [40], "labels": 1}]
    batch = pad_batch(features, tokenizer.pad_token_id)
    ours = batch_logits(model, make_batch(model, features))
    assert packable(model) and torch.allclose(ours, model(**batch).logits, atol=1e-5)
    optimizer = make_optimizer(model.train(), 1e-4, 0.01)
    before = model.score.weight.detach().clone()
    for _ in range(2):
        loss, _ = classification_loss(model, make_batch(model, features))
        taken = training_step(model, [loss], optimizer, make_schedule(optimizer, 10))
        assert 0 < taken < 20
    assert not torch.equal(before, model.score.weight)


@pytest.mark.slow
def test_gpt2_without_a_network():
    program = "from course_lib.models import load; load('gpt2')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"})
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: gpt2 – no folder here, and the hub didn't give it" in last
    assert "run once with a network" in last and "tiny-gpt2" in last


def bert(folder, tiny, **config):
    shape = BertConfig(vocab_size=8192, hidden_size=32, num_hidden_layers=2,
                       num_attention_heads=2, intermediate_size=64, **config)
    BertForMaskedLM(shape).save_pretrained(folder)
    tiny[1].save_pretrained(folder)
    return str(folder)


def test_other_families_by_the_same_call(tmp_path, tiny):
    model, _ = load(bert(tmp_path / "bert", tiny), labels=LABELS)
    assert isinstance(model, BertForSequenceClassification) and len(blocks(model)) == 2
    shape = GPTNeoConfig(vocab_size=8192, hidden_size=32, num_layers=2, num_heads=2,
                         attention_types=[[["global", "local"], 1]], intermediate_size=64)
    GPTNeoForCausalLM(shape).save_pretrained(tmp_path / "neo")
    tiny[1].save_pretrained(tmp_path / "neo")
    assert load(str(tmp_path / "neo"), labels=LABELS)[0].config.model_type == "gpt_neo"


def test_bad_models(tmp_path, tiny):
    def complaint(name, **kw):
        with pytest.raises(InputError) as e: load(str(name), **{"labels": LABELS, **kw})
        return str(e.value)
    folder = tmp_path / "bert"
    bert(folder, tiny)
    assert "not known here" in complaint(folder, task="mind-reading")
    assert "is a file" in complaint(folder / "config.json")
    assert "no config.json" in complaint(tmp_path)
    config = folder / "config.json"
    fewer, more = ('"num_hidden_layers": %d' % n for n in (2, 3))
    config.write_text(config.read_text().replace(fewer, more))
    assert "pre-trained weights are missing" in complaint(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "can't be read" in complaint(folder)
    weights.rename(folder / "pytorch_model.bin")
    assert "safetensors" in complaint(folder)


def test_a_head_trained_for_other_classes(tmp_path, tiny):
    for part in tiny: part.save_pretrained(tmp_path)
    said = "its head was trained for negative, positive, the data have a, b, c"
    with pytest.raises(InputError, match=said): load(str(tmp_path), labels=["a", "b", "c"])
    again, _ = load(str(tmp_path), labels=["positive", "negative"])    # the same in another order
    assert again.config.id2label == {0: "negative", 1: "positive"}
    assert torch.equal(again.score.weight, tiny[0].score.weight)


def test_loading_is_repeatable_and_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (load("tiny-gpt2", labels=LABELS, seed=s)[0].score.weight for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not is_here("minilm"), reason="minilm isn't downloaded: course download minilm")
def test_minilm_from_its_package():
    model, tokenizer = load("minilm", labels=LABELS)
    assert 22e6 < model.num_parameters() < 23e6 and model.config.model_type == "bert"
    texts = ["Not dull.", "Dull, and too long."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode(): assert model(**batch).logits.shape == (2, 2)


def test_freezing(tiny):
    model, _ = load("tiny-gpt2", labels=LABELS)
    everything = count_parameters(model).loc["all", "trained"]
    counts = [count_parameters(freeze(model, k)).loc["all", "trained"] for k in range(5)]
    assert counts[0] == everything == model.num_parameters()
    assert counts == sorted(counts, reverse=True) and counts[4] == model.score.weight.numel()
    with pytest.raises(ValueError, match="5 layers"): freeze(model, 5)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert", "tiny-t5"])
def test_dropout_is_set_everywhere(name):
    model, tokenizer = load(name, labels=["a", "b"])
    inputs = tokenizer(["A film to forget.", "A joy."], padding=True, return_tensors="pt")
    def differ(p):
        set_dropout(model, p).train()
        with torch.no_grad(): first, second = (model(**inputs).logits for _ in range(2))
        return not torch.equal(first, second)
    assert [differ(p) for p in (0.0, 0.5, 0.0)] == [False, True, False]
    drops = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    numbers = [m.dropout for m in model.modules()
               if isinstance(getattr(m, "dropout", None), float)]
    assert {m.p for m in drops} == {0.0} and set(numbers) <= {0.0}


def test_a_recipe_can_set_the_dropout():
    for dropout, wanted in ((None, 0.1), (0.0, 0.0), (0.3, 0.3)):
        model = prepare(Recipe(dropout=dropout, max_train_samples=10))[1]
        drops = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
        assert drops and set(drops) == {wanted}


def test_truncation_keeps_the_end(tiny):
    ids = tokenize(load_data("reviews"), tiny[1], 12)["train"]["input_ids"]
    assert max(len(i) for i in ids) == 12 and {i[-1] for i in ids} == {tiny[1].eos_token_id}
