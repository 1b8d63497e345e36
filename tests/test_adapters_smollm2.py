"""Adapters on SmolLM2: merged as apart, DoRA as peft's, four bits as bitsandbytes', padded as
packed."""
import copy

import pytest
import torch

from course_lib.adapters import (
    DoRA, LoRA, add_dora, add_lora, add_prompt, linear_layers, matrix, merge_lora, train_biases
)
from course_lib.data import load_data
from course_lib.download import cache_folder
from course_lib.errors import InputError
from course_lib.files import is_folder
from course_lib.models import load
from course_lib.packed import can_do_without_padding, unpadded
from course_lib.quantized import (
    QuantizedLinear, adapter_once, add_qlora, decode_layers, encode_nf4
)
from course_lib.records import recorded
from course_lib.tokens import pad_batch

pytestmark = pytest.mark.skipif(
    not is_folder(cache_folder() / "smollm2"),
    reason="smollm2 isn't downloaded: course download smollm2",
)


@pytest.fixture(scope="module")
def loaded(): return load("smollm2", labels=["negative", "positive"])


@pytest.fixture
def base(loaded): return copy.deepcopy(loaded[0])


@pytest.fixture(scope="module")
def batch(loaded):
    model, tokenizer = loaded
    texts = sorted(load_data("reviews")["validation"]["text"][:40], key=len)[::8]
    rows = [{"input_ids": tokenizer(text)["input_ids"], "labels": i % 2}
            for i, text in enumerate(texts)]
    return pad_batch(rows, model.config.pad_token_id)


def drawn(model, size=0.02):
    "The model with a change that isn't nothing."
    torch.manual_seed(0)
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, LoRA): m.B.normal_(0, size)
            if isinstance(m, DoRA): m.m.mul_(1 + 0.1 * torch.randn_like(m.m))
    return model


@torch.no_grad()
def logits_of(model, batch):
    return model(**{k: v for k, v in batch.items() if k != "labels"}).logits


def near(a, b, within=1e-4): return (a - b).abs().max() <= within * max(1, b.abs().max().item())


@pytest.mark.parametrize("prepare", [add_lora, add_dora])
def test_merged_is_apart(base, batch, prepare):
    before = logits_of(base, batch)
    model = drawn(prepare(base, r=16, alpha=32))
    apart = logits_of(model, batch)
    assert (apart - before).abs().max() > 1e-2
    assert near(logits_of(merge_lora(model), batch), apart)


def test_dora_equal_to_peft(base, batch):
    peft = pytest.importorskip("peft")
    ours = drawn(add_dora(copy.deepcopy(base), r=4, alpha=8))
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=4, lora_alpha=8, use_dora=True, target_modules="all-linear"
    )
    theirs = peft.get_peft_model(base, config).eval()
    pairs = []
    for name, m in ours.named_modules():
        if not isinstance(m, DoRA): continue
        other = theirs.get_submodule(f"base_model.model.{name}")
        pairs += [
            (m.A, other.lora_A["default"].weight), (m.B, other.lora_B["default"].weight),
            (m.m, other.lora_magnitude_vector["default"].weight),
        ]
    assert len(pairs) == 3 * 210
    for mine, other in pairs: other.data.copy_(mine)
    a, b = ours(**batch), theirs(**batch)
    assert near(a.logits, b.logits)
    a.loss.backward()
    b.loss.backward()
    largest = max(mine.grad.abs().max().item() for mine, _ in pairs)
    assert largest > 0
    assert all((mine.grad - other.grad).abs().max() < 1e-4 * largest for mine, other in pairs)


def test_four_bits_as_bitsandbytes(loaded):
    functional = pytest.importorskip("bitsandbytes").functional
    layers = linear_layers(loaded[0])
    chosen = {n: m for n, m in layers.items() if n.startswith(("layers.0.", "layers.29."))}
    assert len(chosen) == 14
    for layer in chosen.values():
        weight = matrix(layer).detach()
        codes, absmax = encode_nf4(weight)
        theirs, state = functional.quantize_4bit(weight, quant_type="nf4")
        assert torch.equal(codes, theirs.flatten()) and torch.equal(absmax, state.absmax)


def test_four_bits_padded_packed_and_decoded(base, batch):
    model = drawn(add_qlora(base, r=4, targets=("q_proj", "down_proj")))
    assert sum(isinstance(m, QuantizedLinear) for m in model.modules()) == 210
    assert can_do_without_padding(model)
    padded = logits_of(model, batch)
    with unpadded(model): packed = logits_of(model, batch)
    assert near(packed, padded)
    whole = decode_layers(model)
    assert near(logits_of(whole, batch), padded) and near(
        logits_of(merge_lora(whole), batch), padded)


def test_trained_words_padded_packed_and_alone(base, batch):
    before = logits_of(base, batch)
    model = add_prompt(base, 5)
    assert can_do_without_padding(model)
    padded = logits_of(model, batch)
    assert (padded - before).abs().max() > 1e-2
    with unpadded(model): packed = logits_of(model, batch)
    filled = batch["attention_mask"].bool()
    alone = torch.cat([
        logits_of(model, {"input_ids": ids[mask][None]})
        for ids, mask in zip(batch["input_ids"], filled)
    ])
    assert near(packed, padded) and near(alone, padded)
    model(**batch).loss.backward()
    assert model.model.embed_tokens.vectors.grad.abs().sum() > 0


def test_it_has_no_biases(base):
    with pytest.raises(InputError, match="no biases"): train_biases(base)


@pytest.mark.slow
def test_a_recorded_run_can_be_made_again():
    asked = {"method": "head alone", "rate": 3e-3, "seed": 100, "judged_on": "further"}
    table = recorded("adapter-rates").set_index(list(asked))
    found, row = adapter_once(**asked), table.loc[tuple(asked.values())]
    assert abs(found["accuracy"] - row["accuracy"]) < 0.05
    assert found["trained"] == row["trained"] and found["optimizer_mb"] == row["optimizer_mb"]
