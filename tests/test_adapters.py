"""Adapters: nothing at the start, the base untouched, merged as apart, equal to peft's, in each
family."""
import ast
import copy
import math
import re
from contextlib import nullcontext

import pytest
import torch
from conftest import ROOT
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification
)
from transformers.pytorch_utils import Conv1D

from course_lib.adapters import (
    LoRA, Bottleneck, DoRA, Wrapped, add_bottlenecks, add_dora, add_lora, add_prompt,
    linear_layers, load_adapter, matrix, merge_lora, save_adapter, sizes, train_biases
)
from course_lib.errors import InputError
from course_lib.files import is_file, shipped
from course_lib.models import freeze, load
from course_lib.packed import can_do_without_padding, packable, unpadded
from course_lib.quantized import (
    BLOCK, FORMS, NF4, RECORDS, QuantizedLinear, add_qlora, decode_layers, decode_nf4, encode_nf4,
    in_form, moved, quantize, to_bfloat16, to_nf4
)
from course_lib.records import recorded
from course_lib.tokens import pad_batch
from course_lib.training import fit, predict_logits

FAMILIES, METHODS = ("tiny-gpt2", "tiny-bert", "tiny-t5"), {
    "lora": add_lora,
    "bottlenecks": add_bottlenecks,
    "dora": add_dora,
}


def small(**more):
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=99, n_positions=64, n_layer=2, n_embd=32, n_head=4, pad_token_id=0,
            bos_token_id=1, eos_token_id=1, initializer_range=0.2, **more,
        )
    ).eval()


def some(n=32, words=99, end=1):
    rng = torch.Generator().manual_seed(0)
    return Dataset.from_list([
        {
            "input_ids": [*torch.randint(2, words, (3 + i % 7,), generator=rng).tolist(), end],
            "labels": i % 2,
        }
        for i in range(n)
    ])


def family(name): return load(name, labels=["negative", "positive"])[0]
def train(model, rows, **more):
    return fit(
        model,
        rows,
        **{
            "epochs": 1,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "device": "cpu",
            "bf16": False,
            "progress": False,
            **more,
        },
    )
def trained(model): return {n: p for n, p in model.named_parameters() if p.requires_grad}


def untouched(model, original):
    """Whether every frozen weight is what it was, and everything outside the adapters and the head
    is frozen."""
    was, frozen = original.state_dict(), {
        n.replace(".frozen.", "."): p for n, p in model.named_parameters() if not p.requires_grad
    }
    body = {
        n for n, _ in original.named_parameters() if n.startswith(original.base_model_prefix + ".")
    }
    return body == set(frozen) and all(torch.equal(p, was[n]) for n, p in frozen.items())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_in_each_family(name, method):
    model, rows = family(name), some(16, 4000, end=0)
    base = copy.deepcopy(model)
    before = predict_logits(model, rows)
    adapted = METHODS[method](model)
    assert adapted is model and not packable(model)
    started = predict_logits(model, rows)
    assert torch.allclose(started, before, atol=1e-5)
    train(model, rows)
    assert untouched(model, base) and (predict_logits(model, rows) - before).abs().max() > 1e-3
    moved = [
        m.up.weight if method == "bottlenecks" else m.B
        for m in model.modules() if isinstance(m, Wrapped)
    ]
    assert moved and all(w.any() for w in moved)


@pytest.mark.parametrize("name", FAMILIES)
def test_merged_is_apart(name, tmp_path):
    model, rows = add_lora(family(name), r=4), some(16, 4000, end=0)
    train(model, rows)
    apart = predict_logits(model, rows)
    merged = merge_lora(copy.deepcopy(model))
    assert torch.allclose(predict_logits(merged, rows), apart, atol=1e-5)
    assert not any(isinstance(m, Wrapped) for m in merged.modules())
    assert [type(m) for m in merged.modules()] == [type(m) for m in family(name).modules()]
    assert list(merged.state_dict()) == list(family(name).state_dict())
    load(name)[1].save_pretrained(tmp_path)
    merged.save_pretrained(tmp_path)
    assert torch.allclose(predict_logits(load(str(tmp_path))[0], rows), apart, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    r=st.integers(1, 40), n_in=st.integers(1, 20), n_out=st.integers(1, 20),
    alpha=st.floats(0.1, 100), conv=st.booleans(), seed=st.integers(0, 99),
)
def test_a_layer(r, n_in, n_out, alpha, conv, seed):
    torch.manual_seed(seed)
    layer = Conv1D(n_out, n_in) if conv else torch.nn.Linear(n_in, n_out)
    x = torch.randn(3, 5, n_in)
    assert sizes(layer) == (n_in, n_out)
    before, wrapped = layer(x), LoRA(layer, r, alpha)
    assert torch.equal(wrapped(x), before)
    assert wrapped.A.numel() + wrapped.B.numel() == r * (n_in + n_out)
    assert wrapped.A.abs().max() <= 1 / math.sqrt(n_in)
    with torch.no_grad(): wrapped.B.normal_()
    by_hand = layer.weight.detach() if conv else layer.weight.detach().T
    wanted = x @ (by_hand + alpha / r * (wrapped.B @ wrapped.A).T) + layer.bias
    scale = max(1.0, wanted.abs().max().item())
    assert (wrapped(x) - wanted).abs().max() / scale < 1e-5
    with torch.no_grad(): matrix(layer).copy_(wrapped.changed())
    assert (layer(x) - wanted).abs().max() / scale < 1e-5
    assert torch.equal(Bottleneck(layer, r)(x), layer(x))


@settings(max_examples=10, deadline=None)
@given(r=st.integers(1, 30), width=st.integers(1, 30))
def test_the_number_of_trained_weights(r, width):
    head, n = 2 * 32, 32
    def count(model): return sum(p.numel() for p in trained(model).values()) - head
    each_layer = (n + 3 * n) + (n + n) + (n + 4 * n) + (4 * n + n)
    assert count(add_lora(small(), r)) == 2 * r * each_layer
    assert count(add_lora(small(), r, targets=("c_attn",))) == 2 * r * 4 * n
    assert count(add_bottlenecks(small(), width)) == 4 * (2 * n * width + n + width)


def test_same_seed_same_adapter_and_the_random_numbers_outside_stay():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (
        add_lora(small_fixed(), seed=1), add_lora(small_fixed(), seed=1),
        add_lora(small_fixed(), seed=2),
    )
    assert torch.equal(torch.rand(3), wanted)
    A = [m.transformer.h[0].attn.c_attn.A for m in (a, b, c)]
    assert torch.equal(A[0], A[1]) and not torch.equal(A[0], A[2])


def small_fixed():
    with torch.random.fork_rng(): return small()


def test_an_adapter_lies_where_its_layer_lies():
    for device, dtype in (("meta", torch.float32), ("cpu", torch.bfloat16)):
        layer = torch.nn.Linear(4, 3, device=device, dtype=dtype)
        assert all(
            p.device.type == device and p.dtype == dtype
            for m in (LoRA(layer, 2, 4), Bottleneck(layer, 2))
            for p in m.parameters()
        )


def test_bottlenecks_stand_behind_each_part():
    ends = {"tiny-gpt2": {"c_proj"}, "tiny-bert": {"Wo"}, "tiny-t5": {"o", "wo"}}
    for name, wanted in ends.items():
        model = add_bottlenecks(family(name))
        found = [n for n, m in model.named_modules() if isinstance(m, Bottleneck)]
        assert {n.rpartition(".")[2] for n in found} == wanted
        assert len(found) == {"tiny-gpt2": 8, "tiny-bert": 8, "tiny-t5": 10}[name]
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        vocab_size=50,
    )
    bert = add_bottlenecks(BertForSequenceClassification(config))
    found = [n for n, m in bert.named_modules() if isinstance(m, Bottleneck)]
    wanted = [f"{i}.{part}output.dense" for i in (0, 1) for part in ("attention.", "")]
    assert sorted(n.removeprefix("bert.encoder.layer.") for n in found) == wanted


def test_biases():
    model = small()
    base, rows = copy.deepcopy(model), some()
    assert packable(train_biases(model))
    assert all(n.endswith("bias") or n == "score.weight" for n in trained(model))
    assert len(trained(model)) == 1 + sum(n.endswith("bias") for n, _ in base.named_parameters())
    train(model, rows)
    was = base.state_dict()
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(torch.equal(p, was[n]) for n, p in frozen.items())
    for name in ("tiny-bert", "tiny-t5"):
        with pytest.raises(InputError, match="no biases"): train_biases(family(name))


@pytest.mark.parametrize(
    "mistake, said",
    [
        (lambda m: add_lora(m, r=0), "r 0 – a rank"),
        (lambda m: add_lora(m, r=-3), "r -3 –"),
        (lambda m: add_lora(m, r=2.5), "r 2.5 –"),
        (lambda m: add_lora(m, r=32), "r 32 – the narrowest layer has 32"),
        (lambda m: add_lora(m, targets=("q_proj",)), "'q_proj' – no linear layer .* c_attn, c_fc"),
        (lambda m: add_lora(m, targets=("c_attn", "v")), "'v'"),
        (lambda m: add_lora(m, targets=("proj",)), "'proj'"),
        (lambda m: add_lora(m, targets=("score",)), "'score'"),
        (lambda m: add_lora(add_lora(m)), "adapters already"),
        (lambda m: add_lora(add_bottlenecks(m)), "adapters already"),
        (lambda m: add_bottlenecks(m, width=0), "width 0 –"),
        (lambda m: add_dora(m, r=0), "r 0 – a rank"),
        (lambda m: add_dora(add_lora(m)), "adapters already"),
        (lambda m: add_prompt(m, n=0), "n 0 –"),
        (lambda m: add_prompt(add_lora(m)), "adapters already"),
        (lambda m: add_lora(add_prompt(m)), "adapters already"),
        (lambda m: add_prompt(family("tiny-bert")), "its head doesn't read the last token"),
        (lambda m: merge_lora(add_prompt(m)), "no LoRA layers"),
        (lambda m: merge_lora(add_qlora(m)), "kept in few bits"),
        (lambda m: quantize(m), "no frozen linear layers"),
        (lambda m: add_qlora(add_qlora(m)), "adapters already"),
        (lambda m: add_lora(quantize(freeze(m, 2))), "no linear layers"),
        (lambda m: add_bottlenecks(m, targets=("nothing",)), "'nothing'"),
        (lambda m: merge_lora(m), "no LoRA layers"),
        (lambda m: merge_lora(add_bottlenecks(m)), "no LoRA layers"),
    ],
)
def test_bad_input_is_one_line(mistake, said):
    with pytest.raises(InputError, match=said) as e: mistake(small())
    assert "\n" not in str(e.value) and str(e.value).count(" – ") == 2


def test_what_is_refused_changes_nothing():
    model, original = small(), small()
    for mistake in (
        lambda: add_lora(model, r=0), lambda: add_lora(model, targets=("c_attn", "typo")),
        lambda: add_bottlenecks(model, width=0),
    ):
        with pytest.raises(InputError): mistake()
    assert all(p.requires_grad for p in model.parameters())
    assert [type(m) for m in model.modules()] == [type(m) for m in original.modules()]


def test_a_model_whose_parts_have_other_names():
    class Odd(torch.nn.Module):
        base_model_prefix = "body"
        def __init__(self):
            super().__init__()
            self.base_model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    with pytest.raises(InputError, match="name them"): add_bottlenecks(Odd())


def test_targets_by_the_end_of_their_names():
    model = small()
    assert list(linear_layers(model, ("attn.c_proj",))) == ["h.0.attn.c_proj", "h.1.attn.c_proj"]
    assert len(linear_layers(model, ("c_proj",))) == 4
    assert list(linear_layers(model, ("h.1.mlp.c_fc", "h.0.attn.c_attn"))) == [
        "h.0.attn.c_attn",
        "h.1.mlp.c_fc",
    ]


@pytest.mark.parametrize(
    "prepare", [add_lora, add_bottlenecks, train_biases, add_dora, add_prompt, add_qlora]
)
def test_a_file_of_what_was_trained(prepare, tmp_path):
    rows, path = some(), tmp_path / "deep" / "a.safetensors"
    model = prepare(small())
    train(model, rows)
    save_adapter(model, path)
    other = prepare(small())
    assert not torch.equal(predict_logits(other, rows), predict_logits(model, rows))
    assert load_adapter(other, path) is other
    assert torch.equal(predict_logits(other, rows), predict_logits(model, rows))
    assert path.stat().st_size < 4 * sum(p.numel() for p in trained(model).values()) + 4000
    assert [p.name for p in path.parent.iterdir()] == ["a.safetensors"]


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_adapter(add_lora(small()), path)
    for wrong in (
        small(), add_lora(small(), r=4), add_lora(small(), targets=("c_attn",)),
        add_bottlenecks(small()), train_biases(small()), add_lora(small(num_labels=3)),
        add_dora(small()), add_prompt(small()),
    ):
        before = {n: p.clone() for n, p in wrong.named_parameters()}
        with pytest.raises(InputError, match="prepare the model") as e: load_adapter(wrong, path)
        assert "\n" not in str(e.value)
        assert all(torch.equal(p, before[n]) for n, p in wrong.named_parameters())
    turned, other = small(), small()
    turned.config.id2label = {0: "LABEL_1", 1: "LABEL_0"}
    with torch.no_grad(): next(other.transformer.parameters())[5, 5] += 1e-3
    for wrong, said in (
        (add_lora(small(), alpha=32), "another method: LoRA 2.0, here LoRA 4.0"),
        (add_lora(turned), "another classes"),
        (add_lora(other), "another base"),
        (add_qlora(small()), "another base"),
    ):
        with pytest.raises(InputError, match=said): load_adapter(wrong, path)
    broken = add_lora(small())
    with torch.no_grad(): broken.score.weight[0, 0] = math.nan
    save_adapter(broken, path)
    with pytest.raises(InputError, match="score.weight holds numbers that aren't finite"):
        load_adapter(add_lora(small()), path)
    path.write_bytes(b"nonsense")
    for bad in (path, tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="can't be read"): load_adapter(add_lora(small()), bad)


def test_cut_off_and_resumed_ends_in_the_same_bits(tmp_path):
    rows, calls = some(), []
    def pull_the_plug(logits, labels):
        calls.append(1)
        if len(calls) == 2: raise KeyboardInterrupt
        return 0
    whole, cut, resumed = (add_lora(small()) for _ in range(3))
    train(whole, rows, validation=rows, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(cut, rows, validation=rows, epochs=2, metric=pull_the_plug, checkpoint=tmp_path)
    train(resumed, rows, validation=rows, epochs=2, checkpoint=tmp_path, resume=True)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters()))
    assert not torch.equal(whole.score.weight, add_lora(small()).score.weight)


def test_padding_and_batch_size_change_nothing():
    model, rows = add_lora(small()), some()
    train(model, rows)
    assert torch.allclose(
        predict_logits(model, rows, batch_size=1), predict_logits(model, rows, batch_size=32),
        atol=1e-5,
    )
    assert not packable(model)


# trained words in front

@pytest.mark.parametrize("n", [1, 5])
def test_trained_words_before_the_text(n):
    base, rows = small(), some()
    model = add_prompt(copy.deepcopy(base), n)
    assert {name for name, _ in trained(model).items()} == {
        "transformer.wte.vectors",
        "score.weight",
    }
    with torch.no_grad(): # as if the words were there: the model's own vectors of tokens 7, 8, …
        model.transformer.wte.vectors.copy_(base.transformer.wte.weight[7:7 + n])
    longer = [{"input_ids": [*range(7, 7 + n), *row["input_ids"]]} for row in rows]
    assert torch.allclose(predict_logits(model, rows), predict_logits(base, longer), atol=1e-5)
    before = {name: p.clone() for name, p in model.named_parameters()}
    train(model, rows)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(trained(model))


def test_trained_words_alone_and_beside_longer_texts_padded_and_without():
    model, rows = add_prompt(small(), 4), some()
    assert not packable(model) and can_do_without_padding(model)
    alone = predict_logits(model, rows, batch_size=1)
    assert torch.allclose(predict_logits(model, rows), alone, atol=1e-5)
    batch = pad_batch([rows[i] for i in range(len(rows))], 0)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        padded = model(**inputs).logits
        with unpadded(model): packed = model(**inputs).logits
        one = model(input_ids=torch.tensor([rows[0]["input_ids"]])).logits
    assert torch.allclose(padded, alone, atol=1e-5) and torch.allclose(packed, padded, atol=1e-5)
    assert torch.allclose(one, alone[:1], atol=1e-5)
    def gradient(context):
        model.zero_grad()
        with context: model(**batch).loss.backward()
        return model.transformer.wte.vectors.grad.clone()
    assert torch.allclose(gradient(nullcontext()), gradient(unpadded(model)), atol=1e-6)


# four bits

@pytest.fixture(scope="module")
def bitsandbytes(): return pytest.importorskip("bitsandbytes", reason="bitsandbytes is missing")


def theirs_in_four_bits(bitsandbytes, weight):
    codes, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4")
    back = bitsandbytes.functional.dequantize_4bit(codes, state)
    return codes.flatten(), state.absmax, back


def test_the_levels_are_theirs(bitsandbytes):
    assert torch.equal(NF4, bitsandbytes.functional.get_4bit_type("nf4", "cpu"))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12), blocks=st.integers(1, 6), seed=st.integers(0, 10**6),
    size=st.sampled_from([1e-30, 1e-4, 0.03, 1.0, 1e6]), kind=st.sampled_from(
        [torch.float32, torch.bfloat16, torch.float16]), zeros=st.booleans(),
)
def test_four_bits_as_theirs(bitsandbytes, rows, blocks, seed, size, kind, zeros):
    torch.manual_seed(seed)
    weight = (torch.randn(rows, BLOCK * blocks) * size).to(kind)
    if zeros: weight[0, :BLOCK] = 0
    if not weight.isfinite().all(): weight = weight.clamp(-6e4, 6e4)
    codes, absmax = encode_nf4(weight)
    their_codes, their_absmax, back = theirs_in_four_bits(bitsandbytes, weight)
    assert torch.equal(codes, their_codes) and torch.equal(absmax, their_absmax)
    assert codes.dtype == torch.uint8 and 2 * len(codes) == weight.numel()
    assert torch.equal(decode_nf4(codes, absmax, weight.shape).to(kind), back)


def test_all_matrices_of_a_model_in_four_bits(bitsandbytes):
    for layer in linear_layers(family("tiny-gpt2")).values():
        weight = matrix(layer).detach().contiguous()
        codes, absmax = encode_nf4(weight)
        their_codes, their_absmax, back = theirs_in_four_bits(bitsandbytes, weight)
        assert torch.equal(codes, their_codes) and torch.equal(absmax, their_absmax)
        assert torch.equal(decode_nf4(codes, absmax, weight.shape), back)


def test_a_rest_that_fills_no_block():
    for shape in ((1,), (3, 21), (65,), (7, 9)):
        weight = torch.randn(shape)
        codes, absmax = encode_nf4(weight)
        back = decode_nf4(codes, absmax, weight.shape)
        assert back.shape == weight.shape and len(absmax) == -(-weight.numel() // BLOCK)
        step = (NF4[1:] - NF4[:-1]).max() / 2
        assert ((back - weight).abs() <= step * weight.abs().max() + 1e-6).all()


def test_decoded_and_encoded_again_is_the_same():
    codes, absmax = encode_nf4(torch.randn(8, 128))
    back = decode_nf4(codes, absmax, (8, 128))
    again = encode_nf4(back)
    assert torch.equal(again[0], codes) and torch.equal(again[1], absmax)


@pytest.mark.parametrize("conv", [False, True])
def test_a_layer_in_four_bits_is_the_decoded_layer(conv):
    torch.manual_seed(0)
    layer = (Conv1D(6, 32) if conv else torch.nn.Linear(32, 6)).requires_grad_(False)
    small_layer = QuantizedLinear(layer)
    plain = torch.nn.Linear(32, 6).requires_grad_(False)
    plain.weight.copy_(small_layer.weight)
    plain.bias.copy_(layer.bias)
    x = torch.randn(5, 32, requires_grad=True)
    y = x.detach().clone().requires_grad_(True)
    small_layer(x).pow(2).sum().backward()
    plain(y).pow(2).sum().backward()
    assert torch.equal(small_layer(x), plain(y)) and torch.allclose(x.grad, y.grad, atol=1e-6)
    assert not any(p.requires_grad for p in small_layer.parameters())
    assert small_layer.codes.numel() == 6 * 32 / 2


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_lora_beside_four_bits_is_lora_beside_the_decoded_weights(name, bf16):
    rows = some(16, 4000, end=0)
    ours = add_qlora(family(name), r=4)
    plain = decode_layers(copy.deepcopy(ours))
    assert sum(isinstance(m, QuantizedLinear) for m in ours.modules()) == len(
        linear_layers(family(name))
    )
    assert not any(isinstance(m, QuantizedLinear) for m in plain.modules())
    for model in (ours, plain): train(model, rows, bf16=bf16)
    assert torch.allclose(
        predict_logits(ours, rows), predict_logits(plain, rows), atol=1e-2 if bf16 else 1e-5
    )
    assert torch.allclose(
        predict_logits(merge_lora(plain), rows), predict_logits(ours, rows),
        atol=1e-2 if bf16 else 1e-5,
    )


def test_a_model_in_four_bits_is_saved_and_read(tmp_path):
    model, rows = add_qlora(small()), some()
    torch.save(model.state_dict(), tmp_path / "all.pt")
    other = add_qlora(small(), seed=1)
    other.load_state_dict(torch.load(tmp_path / "all.pt"))
    assert torch.equal(predict_logits(other, rows), predict_logits(model, rows))


@pytest.mark.parametrize("size, gone", [(1e-3, True), (0.3, False)])
def test_a_change_merged_into_four_bits(size, gone):
    torch.manual_seed(0)
    layer = torch.nn.Linear(128, 128, bias=False).requires_grad_(False)
    layer.weight.copy_(to_nf4(layer.weight))
    lora = LoRA(layer, 4, 4)
    with torch.no_grad(): lora.B.normal_()
    lora.scale = (size * layer.weight.norm() / (lora.B @ lora.A).norm()).item()
    found = moved(lora, to_nf4)
    assert found["share"] < 0.1 if gone else abs(found["share"] - 1) < 0.1
    assert abs(moved(lora, to_bfloat16)["share"] - 1) < 0.05
    exact = moved(lora, lambda weight: weight)
    assert abs(exact["share"] - 1) < 1e-2 and exact["noise"] < 1e-2


@pytest.mark.parametrize("method, prepare", [("LoRA r 16", add_lora), ("QLoRA r 16", add_qlora)])
def test_the_forms_in_which_it_is_served(method, prepare):
    model, rows = prepare(small()), some()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, LoRA): m.B.normal_(0, 0.02)
    apart = predict_logits(model, rows)
    found = {form: in_form(model, form) for form in FORMS[method]}
    logits = {form: predict_logits(each, rows) for form, each in found.items()}
    assert torch.equal(logits["apart"], apart) and torch.equal(predict_logits(model, rows), apart)
    off = {form: (z - apart).abs().max().item() for form, z in logits.items()}
    assert 0 < off["merged, 16 bits"] < off["merged, 4 bits"]
    sixteen = found["merged, 16 bits"].transformer.h[0].mlp.c_fc.weight
    assert torch.equal(sixteen, to_bfloat16(sixteen)) and not isinstance(
        found["merged, 16 bits"].transformer.h[0].mlp.c_fc, LoRA)
    four = found["merged, 4 bits"].transformer.h[0].mlp.c_fc
    assert isinstance(four, QuantizedLinear)


@pytest.mark.parametrize("name", RECORDS)
def test_the_recorded_tables_were_made_with_these_settings(name):
    if not is_file(shipped("records") / f"{name}.csv"):
        pytest.skip(f"isn't recorded yet: course record {name}")
    table, (_, wanted) = recorded(name), RECORDS[name]
    assert table[list(wanted[0])].to_dict("records") == wanted


# peft

@pytest.fixture(scope="module")
def peft(): return pytest.importorskip("peft")


def theirs_of(peft, model, ours, r=4, alpha=6, **more):
    "The same LoRA by peft, with our A and B in it."
    prefix = model.base_model_prefix
    conv = any(isinstance(m, Conv1D) for m in model.modules())
    heads = [n for n, _ in model.named_children() if n != prefix and n != "drop"]
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=r, lora_alpha=alpha,
        target_modules=[f"{prefix}.{n}" for n in linear_layers(model)], fan_in_fan_out=conv,
        modules_to_save=heads, **more,
    )
    theirs = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, m in ours.named_modules():
            if isinstance(m, LoRA):
                other = theirs.get_submodule(f"base_model.model.{name}")
                other.lora_A["default"].weight.copy_(m.A)
                other.lora_B["default"].weight.copy_(m.B)
    return theirs


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_to_peft(peft, name):
    base, rows = family(name), some(16, 4000, end=0)
    ours = add_lora(copy.deepcopy(base), r=4, alpha=6)
    with torch.no_grad():
        for m in ours.modules():
            if isinstance(m, LoRA): m.B.normal_(0, 0.02)
    theirs = theirs_of(peft, copy.deepcopy(base), ours)
    assert sum(p.numel() for p in trained(ours).values()) == sum(
        p.numel() for p in trained(theirs).values()
    )
    batch = pad_batch([rows[i] for i in range(16)], ours.config.pad_token_id)
    a, b = ours(**batch), theirs(**batch)
    a.loss.backward()
    b.loss.backward()
    assert torch.allclose(a.logits, b.logits, atol=1e-6)
    def gradient(model):
        return torch.cat([
            p.grad.flatten()
            for n, p in sorted(trained(model).items(), key=lambda x: x[0].replace("lora_", ""))
            if "lora" in n or n.endswith((".A", ".B"))
        ])
    assert torch.allclose(gradient(ours), gradient(theirs), atol=1e-6)
    for model in (ours, theirs): train(model, rows, learning_rate=1e-3)
    assert torch.allclose(predict_logits(ours, rows), predict_logits(theirs, rows), atol=1e-5)
    united, merged = theirs.merge_and_unload(), merge_lora(ours)
    for (n, p), (m, q) in zip(united.named_parameters(), merged.named_parameters()):
        assert n == m and torch.allclose(p, q, atol=1e-5), n


@pytest.mark.parametrize("name", FAMILIES)
def test_dora_equal_to_peft(peft, name):
    base, rows = family(name), some(16, 4000, end=0)
    ours = add_dora(copy.deepcopy(base), r=4, alpha=6)
    torch.manual_seed(0)
    with torch.no_grad():
        for m in ours.modules():
            if isinstance(m, DoRA):
                m.B.normal_(0, 0.02)
                m.m.mul_(torch.rand_like(m.m) + 0.5)
    theirs = theirs_of(peft, copy.deepcopy(base), ours, use_dora=True)
    pairs = []
    for layer, m in ours.named_modules():
        if not isinstance(m, DoRA): continue
        other = theirs.get_submodule(f"base_model.model.{layer}")
        length = other.lora_magnitude_vector["default"].weight
        with torch.no_grad(): length.copy_(m.m)
        pairs += [
            (m.A, other.lora_A["default"].weight), (m.B, other.lora_B["default"].weight),
            (m.m, length),
        ]
    assert len(trained(ours)) == len(trained(theirs))
    batch = pad_batch([rows[i] for i in range(16)], ours.config.pad_token_id)
    a, b = ours(**batch), theirs(**batch)
    a.loss.backward()
    b.loss.backward()
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    for mine, other in pairs:
        assert torch.allclose(mine.grad, other.grad, rtol=1e-3, atol=1e-6)
    for model in (ours, theirs): train(model, rows, learning_rate=1e-3)
    # where a gradient is zero but for rounding, AdamW takes the rounding for a direction
    off = torch.cat([(mine - other).abs().flatten() for mine, other in pairs])
    assert off.mean() < 1e-6 and (off > 1e-5).float().mean() < 2e-3
    apart = predict_logits(ours, rows)
    assert torch.allclose(apart, predict_logits(theirs, rows), atol=1e-4)
    united, merged = theirs.merge_and_unload(), merge_lora(ours)
    for p, q in zip(united.parameters(), merged.parameters()):
        assert (p - q).abs().mean() < 1e-6
    assert torch.allclose(predict_logits(merged, rows), apart, atol=1e-5)


def test_trained_words_equal_to_peft_on_a_text_alone(peft):
    base, rows = small(), some()
    ours = add_prompt(copy.deepcopy(base), 4)
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    theirs = peft.get_peft_model(copy.deepcopy(base), config).eval()
    vectors = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad(): vectors.copy_(ours.transformer.wte.vectors)
    for row in (rows[0], rows[5]):
        batch = pad_batch([row], 0)
        a, b = ours(**batch), theirs(**batch)
        assert torch.allclose(a.logits, b.logits, atol=1e-5)
        ours.zero_grad()
        theirs.zero_grad()
        a.loss.backward()
        b.loss.backward()
        assert torch.allclose(ours.transformer.wte.vectors.grad, vectors.grad, atol=1e-6)


def test_their_layers_are_not_packed(peft):
    base, rows = small(), some()
    theirs = theirs_of(peft, copy.deepcopy(base), add_lora(copy.deepcopy(base), r=4, alpha=6))
    layer = theirs.get_submodule("base_model.model.transformer.h.0.mlp.c_fc")
    with torch.no_grad(): layer.lora_B["default"].weight.normal_()
    for model in (theirs, theirs.base_model.model):
        assert not packable(model)
        batch = pad_batch([rows[i] for i in range(len(rows))], 0)
        assert torch.allclose(predict_logits(model, rows), theirs(**batch).logits, atol=1e-5)
        assert (predict_logits(model, rows) - predict_logits(base, rows)).abs().max() > 1e-2
    assert packable(theirs.merge_and_unload())


def test_the_package_does_without_peft():
    paths = list((ROOT / "course_lib").glob("*.py"))
    assert len(paths) > 20
    for path in paths:
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        found = [ast.unparse(n) for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom))]
        assert not any(re.search(r"\bpeft\b", line) for line in found), path
