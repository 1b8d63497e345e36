"""Many tasks: one body in fact, shares with their limits, one task as `fit`, other heads untouched, saved and taken apart."""
import copy
import math
from collections import Counter

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.adapters import LoRA
from course_lib.data import InputError
from course_lib.models import load
from course_lib.multitask import adapters_on_one_body, fit_tasks, head_state, joint_against_separate, joint_and_separate, load_tasks, mixing_shares, read_tasks, save_tasks, task_batches, task_order
from course_lib.tokens import batches, epoch_order
from course_lib.training import fit, predict_logits

FAMILIES, LABELS = ("tiny-gpt2", "tiny-bert", "tiny-t5"), {"two": ["no", "yes"], "three": ["a", "b", "c"]}
USUAL = {"batch_size": 8, "learning_rate": 1e-3, "device": "cpu", "bf16": False}


def some(classes, n=20, seed=0):
    rng = torch.Generator().manual_seed(seed)
    rows = {"input_ids": [[*torch.randint(5, 4000, (3 + i % 7,), generator=rng).tolist(), 0] for i in range(n)], "labels": [i % len(classes) for i in range(n)]}
    return Dataset.from_dict(rows, features=Features(input_ids=List(Value("int32")), labels=ClassLabel(names=classes)))


ROWS = {task: some(classes, seed=i) for i, (task, classes) in enumerate(LABELS.items())}
def equal(a, b): return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
def count(model): return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_one_body(name):
    models, _ = load_tasks(name, LABELS, seed=3)
    two, three = models.values()
    assert two.base_model is three.base_model and two.config.num_labels == 2 and three.config.num_labels == 3
    for task, model in models.items():
        alone, _ = load(name, labels=LABELS[task], seed=3)
        assert equal(model, alone) and torch.equal(predict_logits(model, ROWS[task]), predict_logits(alone, ROWS[task]))
    assert count(models) == count(two.base_model) + sum(count(model) - count(model.base_model) for model in models.values())


@pytest.mark.parametrize("name", FAMILIES)
def test_one_task_is_fit(name):
    models, _ = load_tasks(name, {"two": LABELS["two"]})
    reference, _ = load(name, labels=LABELS["two"])
    history = fit_tasks(models, {"two": ROWS["two"]}, ["two"] * 6, seed=4, **USUAL)
    wanted = fit(reference, ROWS["two"], epochs=2, seed=4, progress=False, **USUAL)
    assert equal(models["two"], reference) and list(history["loss"]) == list(wanted["loss"]) and list(history["tokens"]) == list(wanted["tokens"])
    assert not equal(reference, load(name, labels=LABELS["two"])[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_leaves_the_other_heads(name):
    models, _ = load_tasks(name, LABELS)
    fit_tasks(models, ROWS, ["three", "two", "three"], weight_decay=0.5, **USUAL)
    before, body = {n: w.clone() for n, w in head_state(models["three"]).items()}, copy.deepcopy(models["two"].base_model)
    fit_tasks(models, ROWS, ["two"] * 3, weight_decay=0.5, warmup_ratio=0, **USUAL)
    assert all(torch.equal(w, before[n]) for n, w in head_state(models["three"]).items()) and not equal(models["three"].base_model, body)


def test_within_a_run_too():
    "The optimizer has steps of both tasks behind it; the head that is out of turn is watched at each step."
    models, _ = load_tasks("tiny-gpt2", LABELS)
    seen, order = [], ["three", "three", "two", "two", "three", "two"]
    def watch(*_): seen.append({task: model.score.weight.detach().clone() for task, model in models.items()})
    handle = models["two"].transformer.ln_f.register_forward_hook(watch)              # a hook also makes the model go the padded way
    fit_tasks(models, ROWS, order, weight_decay=0.5, warmup_ratio=0, **USUAL)
    handle.remove(); watch()
    for task, before, after in zip(order, seen[:-1], seen[1:], strict=True):
        for other in LABELS: assert torch.equal(before[other], after[other]) == (other != task)


def test_same_seed_same_bits_and_the_random_numbers_outside_stay():
    order = task_order({"two": 0.5, "three": 0.5}, 6, 1)
    torch.manual_seed(5); wanted = torch.rand(3); torch.manual_seed(5)
    a, b, c = (load_tasks("tiny-gpt2", LABELS)[0] for _ in range(3))
    for models, seed in ((a, 1), (b, 1), (c, 2)): fit_tasks(models, ROWS, order, seed=seed, **USUAL)
    assert torch.equal(torch.rand(3), wanted) and equal(a, b) and not equal(a, c)


# shares and order

SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**7), min_size=1)

@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, temperature=st.floats(0.05, 1e6))
def test_shares(sizes, temperature):
    found = mixing_shares(sizes, temperature)
    assert math.isclose(sum(found.values()), 1) and set(found) == set(sizes)
    for a in sizes:
        assert math.isclose(mixing_shares(sizes)[a], sizes[a] / sum(sizes.values()), rel_tol=1e-9) and math.isclose(mixing_shares(sizes, math.inf)[a], 1 / len(sizes))
        for b in sizes:
            if found[b] > 1e-200: assert math.isclose(found[a] / found[b], (sizes[a] / sizes[b]) ** (1 / temperature), rel_tol=1e-6, abs_tol=1e-12)


def test_shares_by_the_formula():
    "p ∝ n^(1/T) of Raffel et al. 2020, written out."
    sizes, T = {"a": 640, "b": 10, "c": 90}, 3
    powers = {task: n ** (1 / T) for task, n in sizes.items()}
    assert mixing_shares(sizes, T) == pytest.approx({task: x / sum(powers.values()) for task, x in powers.items()})


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, temperature=st.sampled_from((1, 2, 5, math.inf)), steps=st.integers(1, 300), seed=st.integers(0, 99))
def test_order(sizes, temperature, steps, seed):
    shares = mixing_shares(sizes, temperature)
    order = task_order(shares, steps, seed)
    counts = Counter(order)
    assert len(order) == steps and set(order) <= set(sizes) and all(abs(counts[t] - p * steps) < 1 for t, p in shares.items()) and order == task_order(shares, steps, seed)


def test_order_is_mixed_and_exact_where_it_can_be():
    order = task_order(mixing_shares({"a": 480, "b": 96}), 36)
    assert Counter(order) == {"a": 30, "b": 6} and order != sorted(order) and order != task_order(mixing_shares({"a": 480, "b": 96}), 36, 1)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 50), size=st.integers(1, 20), seed=st.integers(0, 9))
def test_batches_are_those_of_fit(n, size, seed):
    stream = task_batches(n, size, seed)
    for epoch in range(3):
        for wanted in batches(epoch_order(n, seed, epoch), size): assert next(stream) == wanted


# saved, read, taken apart

@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_taken_apart(name, tmp_path):
    models, tokenizer = load_tasks(name, LABELS)
    fit_tasks(models, ROWS, ["two", "three"], **USUAL)
    wanted = {task: predict_logits(model, ROWS[task]) for task, model in models.items()}
    save_tasks(models, tokenizer, tmp_path / "all")
    again, its = read_tasks(tmp_path / "all")
    assert set(again) == set(models) and again["two"].base_model is again["three"].base_model and its.get_vocab() == tokenizer.get_vocab()
    assert sum(p.stat().st_size for p in (tmp_path / "all/heads").iterdir()) < 0.2 * (tmp_path / "all/body/model.safetensors").stat().st_size
    for task, model in models.items():
        model.save_pretrained(tmp_path / task); tokenizer.save_pretrained(tmp_path / task)
        single, _ = load(str(tmp_path / task))
        for got in (single, again[task]):
            assert list(got.config.id2label.values()) == LABELS[task] and (predict_logits(got, ROWS[task]) - wanted[task]).abs().max() <= 1e-6
        assert torch.equal(predict_logits(model, ROWS[task]), wanted[task])
    save_tasks(torch.nn.ModuleDict({"two": models["two"]}), tokenizer, tmp_path / "all")                # over an older one
    assert list(read_tasks(tmp_path / "all")[0]) == ["two"]


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    models, tokenizer = load_tasks("tiny-gpt2", LABELS)
    with pytest.raises(InputError, match="no heads/"): read_tasks(tmp_path)
    save_tasks(models, tokenizer, tmp_path)
    from safetensors.torch import save_file
    head = tmp_path / "heads/two.safetensors"
    save_file({"score.weight": torch.zeros(2, 7)}, head, metadata={"labels": '["no", "yes"]'})
    with pytest.raises(InputError, match="another body"): read_tasks(tmp_path)
    save_file({"score.weight": torch.zeros(2, 192)}, head)
    with pytest.raises(InputError, match="two.safetensors – can't be read as a head"): read_tasks(tmp_path)
    head.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="can't be read as a head"): read_tasks(tmp_path)


# adapters

@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_on_one_body(name):
    models, _ = load_tasks(name, LABELS)
    body, before = models["two"].base_model, {task: predict_logits(model, ROWS[task]) for task, model in models.items()}
    were = [p.clone() for p in body.parameters()]
    assert adapters_on_one_body(models, r=4) is models
    frozen = [{id(p) for p in model.parameters() if not p.requires_grad} for model in models.values()]
    assert frozen[0] == frozen[1] == {id(p) for p in body.parameters()} and not any(isinstance(m, LoRA) for m in body.modules())
    assert count(models) == count(body) + sum(p.numel() for model in models.values() for p in model.parameters() if p.requires_grad)
    for task, model in models.items(): assert torch.allclose(predict_logits(model, ROWS[task]), before[task], atol=1e-5)
    fit(models["two"], ROWS["two"], epochs=1, progress=False, **USUAL)
    two = predict_logits(models["two"], ROWS["two"])
    assert torch.allclose(predict_logits(models["three"], ROWS["three"]), before["three"], atol=1e-5) and not torch.allclose(two, before["two"], atol=1e-5)
    fit(models["three"], ROWS["three"], epochs=1, progress=False, **USUAL)
    assert torch.equal(predict_logits(models["two"], ROWS["two"]), two) and all(torch.equal(p, q) for p, q in zip(were, body.parameters(), strict=True))


def test_as_if_each_adapter_were_alone():
    from course_lib.adapters import add_lora
    models = adapters_on_one_body(load_tasks("tiny-gpt2", LABELS)[0], r=4)
    alone = add_lora(load("tiny-gpt2", labels=LABELS["three"])[0], r=4)
    fit(models["two"], ROWS["two"], epochs=1, progress=False, **USUAL)
    for model in (models["three"], alone): fit(model, ROWS["three"], epochs=1, progress=False, **USUAL)
    assert torch.equal(predict_logits(models["three"], ROWS["three"]), predict_logits(alone, ROWS["three"]))


def test_adapters_are_not_saved_as_a_body(tmp_path):
    models, tokenizer = load_tasks("tiny-gpt2", LABELS)
    adapters_on_one_body(models, r=4)
    with pytest.raises(InputError, match="save_adapter"): save_tasks(models, tokenizer, tmp_path / "all")
    with pytest.raises(InputError, match="has adapters in it"): save_tasks(torch.nn.ModuleDict({"two": models["two"]}), tokenizer, tmp_path / "all")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("mistake, said", [(lambda: task_order({"a": 2, "b": 1}, 10), "don't sum to one"), (lambda: task_order({"a": 0.2, "b": 0.3}, 10), "don't sum to one"), (lambda: task_order({}, 10), "don't sum to one"),
    (lambda: adapters_on_one_body(torch.nn.ModuleDict()), "hold no task"), (lambda: save_tasks(torch.nn.ModuleDict(), None, "nowhere"), "hold no task"),
    (lambda: joint_and_separate({"two": ROWS["two"], "three": ROWS["three"].cast_column("labels", Value("int64"))}), "'three' – its rows have no ClassLabel"),
    (lambda: joint_and_separate({"two": ROWS["two"], "three": ROWS["three"].select([0])}, temperature=0.1), "'three' – gets none of the")])
def test_what_would_mislead_is_refused(mistake, said):
    with pytest.raises(InputError, match=said) as e: mistake()
    assert str(e.value).count(" – ") == 2


# the experiment

def test_both_sides_see_the_same_rows(monkeypatch):
    from course_lib import multitask
    seen, real = [], multitask.make_batch
    monkeypatch.setattr(multitask, "make_batch", lambda model, features: seen.append((model.config.num_labels, [tuple(f["input_ids"]) for f in features])) or real(model, features))
    joint_and_separate(ROWS, epochs=2, batch_size=8, device="cpu")
    half = len(seen) // 2
    for classes in (2, 3): assert [b for c, b in seen[:half] if c == classes] == [b for c, b in seen[half:] if c == classes] and sum(len(b) for c, b in seen[:half] if c == classes) == 2 * 20


def test_the_experiment():
    options = {"rows": {"reviews": 16, "news": 16}, "epochs": 1, "device": "cpu"}
    first, again = joint_against_separate(1, **options), joint_against_separate(1, **options)
    assert first == again and set(first) == {"reviews", "news"} and [first[t]["n"] for t in ("reviews", "news")] == [576, 120]
    assert all(set(s) == {"joint", "separate", "n"} and 0 <= s["joint"] <= 1 for s in first.values())


@pytest.mark.parametrize("mistake, said", [
    (lambda: load_tasks("tiny-gpt2", {}), "labels – no task"), (lambda: load_tasks("tiny-gpt2", {"a.b": ["x", "y"]}), "task 'a.b' –"), (lambda: load_tasks("tiny-gpt2", {"../a": ["x", "y"]}), "can't be the name"),
    (lambda: load_tasks("tiny-gpt2", {"train": ["x", "y"]}), "task 'train'"), (lambda: load_tasks("tiny-gpt2", {"": ["x", "y"]}), "task ''"),
    (lambda: mixing_shares({"a": 3, "b": 0}), "task 'b' – has no rows"), (lambda: mixing_shares({"a": 3}, 0), "temperature 0 –"), (lambda: mixing_shares({"a": 3}, -1), "temperature -1"), (lambda: mixing_shares({"a": 3}, math.nan), "temperature nan")])
def test_bad_input_is_one_line(mistake, said):
    with pytest.raises(InputError, match=said) as e: mistake()
    assert "\n" not in str(e.value) and str(e.value).count(" – ") == 2


def test_bad_turns_are_refused_before_the_first_step():
    models, tokenizer = load_tasks("tiny-gpt2", LABELS)
    original = copy.deepcopy(models)
    for rows, order, said in ((ROWS, ["two", "four"], "'four'"), ({"two": ROWS["two"]}, ["two", "three"], "'three'"), (ROWS, [], "names no task"), ({"two": ROWS["three"]}, ["two"], "label 2"),
                              ({**ROWS, "four": ROWS["two"]}, ["two"], "'four'")):
        with pytest.raises(InputError, match=said) as e: fit_tasks(models, rows, order, **USUAL)
        assert str(e.value).count(" – ") == 2
    assert equal(models, original)
    with pytest.raises(InputError, match="step 1, task 'two'.* smaller learning_rate"):
        with torch.no_grad(): models["two"].score.weight.fill_(math.inf)
        fit_tasks(models, ROWS, ["two"], **USUAL)
    with pytest.raises(InputError, match="batch_size -1"): fit_tasks(models, ROWS, ["two"], **{**USUAL, "batch_size": -1})
    models["two"].transformer = copy.deepcopy(models["two"].transformer)
    with pytest.raises(InputError, match="'three' – has a body of its own"): adapters_on_one_body(models)
    with pytest.raises(InputError, match="'three' – has a body of its own"): save_tasks(models, tokenizer, "nowhere")
