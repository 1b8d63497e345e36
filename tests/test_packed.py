"""GPT-2 without padding: what it computes is what the library computes."""
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from transformers import (AutoConfig, AutoModelForQuestionAnswering,
                          AutoModelForSequenceClassification, AutoModelForTokenClassification,
                          GPT2Config, GPT2ForSequenceClassification, PreTrainedModel)

from course_lib.models import load
from course_lib.packed import (
    UNPADDED, can_do_without_padding, chance, dropout, packable, packed_logits, places, read,
    unpadded)
from course_lib.tokens import length_grouped_batches, pack_batch, pad_batch
from course_lib.training import batch_logits, make_batch

SHAPES = {
    "narrow": dict(n_layer=3, n_embd=32, n_head=4),
    "one layer": dict(n_layer=1, n_embd=16, n_head=1),
    "wide inside": dict(n_layer=2, n_embd=24, n_head=2, n_inner=40),
}


def small(shape="narrow", **more):
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=99, n_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=1,
            num_labels=3, initializer_range=0.3, **SHAPES[shape], **more,
        )
    ).eval()


def some(lengths, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [
        {"input_ids": torch.randint(2, 99, (n,), generator=rng).tolist(), "labels": i % 3}
        for i, n in enumerate(lengths)
    ]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=9),
    shape=st.sampled_from(list(SHAPES)), seed=st.integers(0, 999),
)
def test_logits_and_gradients_are_the_librarys(lengths, shape, seed):
    ours, theirs = small(shape), small(shape)
    features = some(lengths, seed)
    packed, padded = pack_batch(features), pad_batch(features, 0)
    a = packed_logits(ours, packed["input_ids"], packed["lengths"])
    b = theirs(**padded)
    assert torch.allclose(a, b.logits, atol=1e-4)
    cross_entropy(a, packed["labels"]).backward()
    b.loss.backward()
    gradients = [torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (ours, theirs)]
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm() + 1e-6


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9))
def test_places(lengths):
    position, place, last = places(torch.tensor(lengths))
    assert position.tolist() == [p for n in lengths for p in range(n)]
    assert place.tolist() == [t * max(lengths) + p for t, n in enumerate(lengths) for p in range(n)]
    assert position[last].tolist() == [n - 1 for n in lengths]


def test_a_text_does_not_see_its_neighbours():
    model, (first, second, other) = small(), some([9, 5, 7])
    answers = [
        packed_logits(model, **{k: v for k, v in pack_batch(f).items() if k != "labels"})
        for f in ([first, second], [other, second], [second])
    ]
    assert torch.allclose(answers[0][1], answers[1][1], atol=1e-5)
    assert torch.allclose(answers[0][1], answers[2][0], atol=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.0, 0.9])
def test_dropout(p):
    torch.manual_seed(0)
    module, x = torch.nn.Dropout(p), torch.ones(777, 333, requires_grad=True)
    out = dropout(x, chance(module))
    zero = (out == 0).float()
    assert abs(zero.mean() - p) < 0.004
    assert set(out.detach().unique().tolist()) <= {0.0, torch.tensor(1 / (1 - p)).item()}
    out.sum().backward()
    assert torch.equal(x.grad == 0, out == 0) and dropout(x, chance(module.eval())) is x


def test_dropout_of_the_model_is_what_its_modules_say():
    model, batch = small().train(), pack_batch(some([5, 9]))
    def logits(): return packed_logits(model, batch["input_ids"], batch["lengths"])
    torch.manual_seed(0)
    a, b = logits(), logits()
    assert not torch.equal(a, b)
    for d in model.modules():
        if isinstance(d, torch.nn.Dropout): d.p = 0.0
    assert torch.equal(logits(), logits())


def test_which_models_are_packable():
    assert all(packable(small(s)) for s in SHAPES)
    assert packable(small(activation_function="gelu_pytorch_tanh"))
    for variant in (
        {"activation_function": "relu"},
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"problem_type": "regression"},
    ):
        assert not packable(small(**variant))


def squared(model):
    # fits, and is the other way round
    model.transformer.h[1].attn.c_proj = torch.nn.Linear(32, 32)
def in_its_place(model):
    model.transformer.h[0].mlp.c_fc = torch.nn.Sequential(model.transformer.h[0].mlp.c_fc)
def parametrized(model):
    torch.nn.utils.parametrizations.weight_norm(model.transformer.h[0].mlp.c_fc)
def pruned(model): prune.l1_unstructured(model.transformer.h[0].mlp.c_fc, "weight", 0.5)
def hooked(model):
    model.transformer.h[2].attn.register_forward_hook(lambda layer, inputs, outputs: None)
def hooked_before(model):
    model.transformer.h[2].register_forward_pre_hook(lambda layer, inputs: None)
def hooked_backwards(model):
    model.transformer.ln_f.register_full_backward_hook(lambda layer, inputs, outputs: None)
def patched(model): model.transformer.h[0].forward = model.transformer.h[0].forward
def hooked_whole(model): model.register_forward_hook(lambda model, inputs, outputs: None)
def another_head(model): model.score = torch.nn.Sequential(torch.nn.Linear(32, 3))
def another_activation(model): model.transformer.h[0].mlp.act = torch.nn.ReLU()


CHANGES = [squared, in_its_place, parametrized, pruned, hooked, hooked_before, hooked_backwards,
           patched, hooked_whole, another_head, another_activation]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_put_into_a_layer_is_not_passed_by(change):
    model, features = small(), some([5, 9, 2])
    change(model)
    assert not packable(model)
    with torch.inference_mode(): # where attention is the library's, to the bit
        ours = batch_logits(model, make_batch(model, features))
        theirs = model(**pad_batch(features, 0)).logits
    assert torch.equal(ours, theirs)


def test_a_row_that_ends_with_the_padding_token_goes_the_librarys_way():
    model, features = small(), [{"input_ids": [5, 6, 0]}, {"input_ids": [7]}]
    batch = make_batch(model, features)
    assert torch.allclose(batch_logits(model, batch), model(**pad_batch(features, 0)).logits)


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=200), size=st.integers(1, 20))
def test_length_groups_hold_each_row_once(lengths, size):
    found = length_grouped_batches(lengths, size, 0, 0)
    assert sorted(i for b in found for i in b) == list(range(len(lengths)))
    assert all(len(b) <= size for b in found)


def test_the_shipped_model_takes_this_way():
    assert packable(load("tiny-gpt2", labels=["a", "b"])[0])


# every family whose attention can be exchanged

SHARED = {"vocab_size": 99, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
SIZE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4,
        "intermediate_size": 64, "max_position_embeddings": 66}
FAMILIES = {
    "gpt2": {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 64},
    "llama": {**SIZE, "num_key_value_heads": 2}, "qwen2": {**SIZE, "num_key_value_heads": 2},
    "bert": SIZE, "roberta": SIZE, "electra": {**SIZE, "embedding_size": 16},
    "albert": {**SIZE, "embedding_size": 16},
    "distilbert": {"n_layers": 2, "dim": 32, "n_heads": 4, "hidden_dim": 64},
    "modernbert": {**SIZE, "global_attn_every_n_layers": 2, "local_attention": 8,
                   "cls_token_id": 1, "sep_token_id": 2},
}
HEADS = {"classes": AutoModelForSequenceClassification, "tags": AutoModelForTokenClassification,
         "answers": AutoModelForQuestionAnswering}


def made(family, head):
    "A small model of the family with large random weights."
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHARED, **FAMILIES[family])
    config.num_labels = 2 if head == "answers" else 3
    model = HEADS[head].from_config(config).eval()
    for p in model.parameters():
        if p.ndim > 1: torch.nn.init.normal_(p, std=0.2)
    return model


def answers_of(model, batch):
    out = model(**{k: batch[k] for k in ("input_ids", "attention_mask")})
    if "logits" not in out: return torch.stack([out.start_logits, out.end_logits], -1)
    return out.logits


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", sorted(UNPADDED))
def test_no_padding_in_any_family_or_head(family, head):
    model, batch = made(family, head), pad_batch(some([5, 9, 2, 20, 1]), 0)
    filled = batch["attention_mask"].bool()
    with torch.inference_mode():
        wanted = answers_of(model, batch)
        with unpadded(model): found = answers_of(model, batch)
        again = answers_of(model, batch)
    if head != "classes": wanted, found, again = (t[filled] for t in (wanted, found, again))
    assert torch.allclose(wanted, found, atol=1e-4) and wanted.std() > 0.05
    assert torch.equal(wanted, again), "afterwards the model is as it was"


def test_the_list_of_families_is_the_one_that_is_tried():
    assert set(FAMILIES) == UNPADDED


def test_who_stays_padded():
    "A body with somebody's hooks in it, another attention, a family that computes it itself."
    model = made("bert", "classes")
    other = AutoConfig.for_model("gpt_neo", **SHARED)
    assert can_do_without_padding(model)
    model.bert.encoder.layer[0].register_forward_hook(lambda layer, inputs, outputs: None)
    assert not can_do_without_padding(model)
    other.num_layers, other.attention_types = 1, [[["global"], 1]]
    other.attention_layers, other.hidden_size, other.num_heads = ["global"], 32, 4
    assert not can_do_without_padding(AutoModelForSequenceClassification.from_config(other))


def test_an_error_inside_leaves_the_model_as_it_was():
    model, batch = made("bert", "classes"), pad_batch(some([5, 9]), 0)
    with pytest.raises(IndexError), unpadded(model):
        model(input_ids=batch["input_ids"] + 1000, attention_mask=batch["attention_mask"])
    with torch.inference_mode(): assert answers_of(model, batch).isfinite().all()
    assert can_do_without_padding(model)


@pytest.mark.parametrize("spoil", [
    lambda batch: batch["attention_mask"].copy_(batch["attention_mask"].flip(1)),
    lambda batch: batch["attention_mask"][0, 1].zero_(),
    lambda batch: batch.update(output_hidden_states=True),
])
def test_what_is_not_usual_goes_the_librarys_way(spoil):
    "Padding before the texts, holes in a mask, further wishes."
    model, batch = made("gpt2", "tags"), pad_batch(some([5, 9, 2, 20]), 0)
    del batch["labels"]
    spoil(batch)
    with torch.inference_mode():
        wanted, found = model(**batch), read(model, batch)
    assert torch.equal(wanted.logits, found.logits)
    if found.hidden_states: assert found.hidden_states[1].shape[:2] == batch["input_ids"].shape


def test_threads_load_at_the_same_time():
    "As a server that loads the next version does; meanwhile the library changes a class."
    tie = PreTrainedModel.tie_weights
    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(lambda k: load("tiny-gpt2", "text-generation")[0], range(24)))
    assert PreTrainedModel.tie_weights is tie
    assert all(m.lm_head.weight is m.transformer.wte.weight for m in models)


def test_two_threads_read_at_the_same_time():
    "As a served model and its shadow do."
    found = {}
    def read_all(name):
        model, tokenizer = load("tiny-bert", labels=["no", "yes"])
        texts = [" ".join(["good"] * (1 + (i * 7) % 40)) for i in range(64)]
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            alone = model(**batch).logits
            for _ in range(8): found.setdefault(name, []).append((alone, read(model, batch).logits))
    threads = [threading.Thread(target=read_all, args=[name]) for name in ("one", "other")]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert {name: len(pairs) for name, pairs in found.items()} == {"one": 8, "other": 8}
    for alone, ours in sum(found.values(), []): assert torch.allclose(alone, ours, atol=1e-5)
