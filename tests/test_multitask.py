"""Many tasks: one body in fact, shares with their limits, one task as `fit`, other heads untouched.

Resumed, saved and taken apart."""
import copy
import math
from collections import Counter

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_loops import take_turns
from safetensors.torch import save_file

from course_lib import training
from course_lib.adapters import LoRA, add_lora
from course_lib.errors import InputError
from course_lib.models import load
from course_lib.multitask import (adapters_on_one_body, head_state, joint_against_separate,
                                  joint_and_separate, load_tasks, mixing_shares, over_tasks,
                                  read_tasks, save_tasks, task_order)
from course_lib.recipe import Settings
from course_lib.tokens import batches, epoch_order
from course_lib.training import fit, predict_logits

FAMILIES = ("tiny-gpt2", "tiny-bert", "tiny-t5")
LABELS = {"two": ["no", "yes"], "three": ["a", "b", "c"]}
USUAL = {"batch_size": 8, "learning_rate": 1e-3, "device": "cpu", "bf16": False, "progress": False}


def some(classes, n=20, seed=0):
    rng = torch.Generator().manual_seed(seed)
    ids = [torch.randint(5, 4000, (3 + i % 7,), generator=rng).tolist() for i in range(n)]
    rows = {"input_ids": [[*row, 0] for row in ids], "labels": [i % len(classes) for i in range(n)]}
    features = Features(input_ids=List(Value("int32")), labels=ClassLabel(names=classes))
    return Dataset.from_dict(rows, features=features)


ROWS = {task: some(classes, seed=i) for i, (task, classes) in enumerate(LABELS.items())}


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def count(model):
    return sum(p.numel() for p in model.parameters())


def train(models, order, rows=ROWS, **changes):
    return fit(models, over_tasks(rows, order), **{**USUAL, **changes})


@pytest.mark.parametrize("name", FAMILIES)
def test_one_body(name):
    models, _ = load_tasks(name, LABELS, seed=3)
    two, three = models.values()
    assert two.base_model is three.base_model
    assert two.config.num_labels == 2 and three.config.num_labels == 3
    for task, model in models.items():
        alone, _ = load(name, labels=LABELS[task], seed=3)
        assert equal(model, alone)
        assert torch.equal(predict_logits(model, ROWS[task]), predict_logits(alone, ROWS[task]))
    heads = sum(count(model) - count(model.base_model) for model in models.values())
    assert count(models) == count(two.base_model) + heads


@pytest.mark.parametrize("name", FAMILIES)
def test_one_task_is_fit(name):
    models, _ = load_tasks(name, {"two": LABELS["two"]})
    reference, _ = load(name, labels=LABELS["two"])
    history = train(models, ["two"] * 6, {"two": ROWS["two"]}, seed=4)
    wanted = fit(reference, ROWS["two"], epochs=2, seed=4, **USUAL)
    assert equal(models["two"], reference)
    for column in ("loss", "tokens"): assert list(history[column]) == list(wanted[column])
    assert not equal(reference, load(name, labels=LABELS["two"])[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_as_a_loop_for_tasks_alone(name):
    "Losses and weights are those of a plain loop that knows nothing else, to the last bit."
    order = task_order(mixing_shares({"two": 20, "three": 20}), 9, 2)
    (models, _), (reference, _) = (load_tasks(name, LABELS) for _ in range(2))
    history = train(models, order, seed=4)
    wanted = take_turns(reference, ROWS, order, batch_size=8, learning_rate=1e-3, seed=4)
    assert list(history["loss"]) == wanted and list(history["task"]) == order
    assert equal(models, reference) and not equal(models, load_tasks(name, LABELS)[0])


def test_parts_of_a_step_add_up(tmp_path):
    "Steps of twelve and of eight rows, whole and in parts of four: the same but for rounding."
    model, tokenizer = load("tiny-gpt2", labels=LABELS["two"])
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"): setattr(model.config, name, 0.0)
    model.base_model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = []
    for size, parts in ((12, 1), (4, 3)):
        models, _ = load_tasks(str(tmp_path), LABELS)
        changes = {"batch_size": size, "gradient_accumulation_steps": parts, "learning_rate": 1e-4}
        found.append(train(models, ["two", "three", "two", "three"], **changes)["loss"])
    assert (found[0] - found[1]).abs().max() < 2e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_leaves_the_other_heads(name):
    models, _ = load_tasks(name, LABELS)
    train(models, ["three", "two", "three"], weight_decay=0.5)
    before = {n: w.clone() for n, w in head_state(models["three"]).items()}
    body = copy.deepcopy(models["two"].base_model)
    train(models, ["two"] * 3, weight_decay=0.5, warmup_ratio=0)
    assert all(torch.equal(w, before[n]) for n, w in head_state(models["three"]).items())
    assert not equal(models["three"].base_model, body)


def test_within_a_run_too():
    "The optimizer has steps of both tasks behind it; the other head is watched at each step."
    models, _ = load_tasks("tiny-gpt2", LABELS)
    order = ["three", "three", "two", "two", "three", "two"]
    def heads():
        weights = {task: model.score.weight for task, model in models.items()}
        return {task: weight.detach().clone() for task, weight in weights.items()}
    seen = [heads()]
    train(models, order, weight_decay=0.5, warmup_ratio=0,
          callbacks=[lambda history: seen.append(heads())])
    for task, before, after in zip(order, seen[:-1], seen[1:], strict=True):
        for other in LABELS: assert torch.equal(before[other], after[other]) == (other != task)


def test_same_seed_same_bits_and_the_random_numbers_outside_stay():
    order = task_order({"two": 0.5, "three": 0.5}, 6, 1)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = (load_tasks("tiny-gpt2", LABELS)[0] for _ in range(3))
    for models, seed in ((a, 1), (b, 1), (c, 2)): train(models, order, seed=seed)
    assert torch.equal(torch.rand(3), wanted) and equal(a, b) and not equal(a, c)


def test_cut_off_and_resumed_is_the_same(tmp_path):
    order = task_order({"two": 0.5, "three": 0.5}, 8, 1)
    (whole, _), (cut, _), (resumed, _) = (load_tasks("tiny-gpt2", LABELS) for _ in range(3))
    wanted = train(whole, order)
    def cut_off(history):
        if len(history) == 5: raise RuntimeError("cut off")
    with pytest.raises(RuntimeError, match="cut off"):
        train(cut, order, callbacks=[cut_off], checkpoint=tmp_path)
    assert list(tmp_path.glob("*-*.pt"))
    with pytest.raises(InputError, match="was begun on other rows"):
        train(resumed, order[::-1], checkpoint=tmp_path, resume=True)
    resumed, _ = load_tasks("tiny-gpt2", LABELS)
    history = train(resumed, order, checkpoint=tmp_path, resume=True)
    assert equal(whole, resumed) and list(history["loss"]) == list(wanted["loss"])


# shares and order

SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**7), min_size=1)


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, temperature=st.floats(0.05, 1e6))
def test_shares(sizes, temperature):
    found = mixing_shares(sizes, temperature)
    assert math.isclose(sum(found.values()), 1) and set(found) == set(sizes)
    proportion, alike = mixing_shares(sizes), mixing_shares(sizes, math.inf)
    for a in sizes:
        assert math.isclose(proportion[a], sizes[a] / sum(sizes.values()), rel_tol=1e-9)
        assert math.isclose(alike[a], 1 / len(sizes))
        for b in sizes:
            if found[b] <= 1e-200: continue
            wanted = (sizes[a] / sizes[b]) ** (1 / temperature)
            assert math.isclose(found[a] / found[b], wanted, rel_tol=1e-6, abs_tol=1e-12)


def test_shares_by_the_formula():
    "p ∝ n^(1/T) of Raffel et al. 2020, written out."
    sizes, T = {"a": 640, "b": 10, "c": 90}, 3
    powers = {task: n ** (1 / T) for task, n in sizes.items()}
    wanted = {task: x / sum(powers.values()) for task, x in powers.items()}
    assert mixing_shares(sizes, T) == pytest.approx(wanted)


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, temperature=st.sampled_from((1, 2, 5, math.inf)), steps=st.integers(1, 300),
       seed=st.integers(0, 99))
def test_order(sizes, temperature, steps, seed):
    shares = mixing_shares(sizes, temperature)
    order = task_order(shares, steps, seed)
    counts = Counter(order)
    assert len(order) == steps and set(order) <= set(sizes)
    assert all(abs(counts[task] - share * steps) < 1 for task, share in shares.items())
    assert order == task_order(shares, steps, seed)


def test_order_is_mixed_and_exact_where_it_can_be():
    shares = mixing_shares({"a": 480, "b": 96})
    order = task_order(shares, 36)
    assert Counter(order) == {"a": 30, "b": 6}
    assert order != sorted(order) and order != task_order(shares, 36, 1)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 50), size=st.integers(1, 20), seed=st.integers(0, 9))
def test_batches_are_those_of_fit(n, size, seed):
    "A task goes through its own epochs, whether others have a turn between or not."
    epochs = [batches(epoch_order(n, seed, epoch), size) for epoch in range(3)]
    wanted = [rows for epoch in epochs for rows in epoch]
    order = ["a", "b", "b"] * len(wanted)
    plan = over_tasks({"a": range(n), "b": range(7)}, order)(Settings(batch_size=size, seed=seed))
    found = [plan.parts(step) for step in range(plan.steps)]
    assert [rows for [(task, rows)] in found if task == "a"] == wanted


# saved, read, taken apart

@pytest.mark.parametrize("name", FAMILIES)
def test_saved_and_taken_apart(name, tmp_path):
    models, tokenizer = load_tasks(name, LABELS)
    train(models, ["two", "three"])
    wanted = {task: predict_logits(model, ROWS[task]) for task, model in models.items()}
    save_tasks(models, tokenizer, tmp_path / "all")
    again, its = read_tasks(tmp_path / "all")
    assert set(again) == set(models) and its.get_vocab() == tokenizer.get_vocab()
    assert again["two"].base_model is again["three"].base_model
    heads = sum(path.stat().st_size for path in (tmp_path / "all/heads").iterdir())
    assert heads < 0.2 * (tmp_path / "all/body/model.safetensors").stat().st_size
    for task, model in models.items():
        model.save_pretrained(tmp_path / task)
        tokenizer.save_pretrained(tmp_path / task)
        single, _ = load(str(tmp_path / task))
        for got in (single, again[task]):
            assert list(got.config.id2label.values()) == LABELS[task]
            assert (predict_logits(got, ROWS[task]) - wanted[task]).abs().max() <= 1e-6
        assert torch.equal(predict_logits(model, ROWS[task]), wanted[task])
    only = torch.nn.ModuleDict({"two": models["two"]})
    save_tasks(only, tokenizer, tmp_path / "all") # over an older one
    assert list(read_tasks(tmp_path / "all")[0]) == ["two"]


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    models, tokenizer = load_tasks("tiny-gpt2", LABELS)
    with pytest.raises(InputError, match="no heads/"): read_tasks(tmp_path)
    save_tasks(models, tokenizer, tmp_path)
    head, names = tmp_path / "heads/two.safetensors", {"labels": '["no", "yes"]'}
    save_file({"score.weight": torch.zeros(2, 7)}, head, metadata=names)
    with pytest.raises(InputError, match="another body"): read_tasks(tmp_path)
    save_file({"score.weight": torch.zeros(2, 192)}, head)
    with pytest.raises(InputError, match="two.safetensors – can't be read as a head"):
        read_tasks(tmp_path)
    head.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="can't be read as a head"): read_tasks(tmp_path)


# adapters

@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_on_one_body(name):
    models, _ = load_tasks(name, LABELS)
    two, three = models.values()
    body = two.base_model
    before = {task: predict_logits(model, ROWS[task]) for task, model in models.items()}
    were = [p.clone() for p in body.parameters()]
    assert adapters_on_one_body(models, r=4) is models
    frozen, trained = [], 0
    for model in (two, three):
        frozen.append({id(p) for p in model.parameters() if not p.requires_grad})
        trained += sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert frozen[0] == frozen[1] == {id(p) for p in body.parameters()}
    assert not any(isinstance(m, LoRA) for m in body.modules())
    assert count(models) == count(body) + trained
    for task, model in models.items():
        assert torch.allclose(predict_logits(model, ROWS[task]), before[task], atol=1e-5)
    fit(two, ROWS["two"], epochs=1, **USUAL)
    answers = predict_logits(two, ROWS["two"])
    assert not torch.allclose(answers, before["two"], atol=1e-5)
    assert torch.allclose(predict_logits(three, ROWS["three"]), before["three"], atol=1e-5)
    fit(three, ROWS["three"], epochs=1, **USUAL)
    assert torch.equal(predict_logits(two, ROWS["two"]), answers)
    assert all(torch.equal(p, q) for p, q in zip(were, body.parameters(), strict=True))


def test_as_if_each_adapter_were_alone():
    models = adapters_on_one_body(load_tasks("tiny-gpt2", LABELS)[0], r=4)
    alone = add_lora(load("tiny-gpt2", labels=LABELS["three"])[0], r=4)
    fit(models["two"], ROWS["two"], epochs=1, **USUAL)
    for model in (models["three"], alone): fit(model, ROWS["three"], epochs=1, **USUAL)
    answers = [predict_logits(model, ROWS["three"]) for model in (models["three"], alone)]
    assert torch.equal(*answers)


def test_adapters_are_not_saved_as_a_body(tmp_path):
    models, tokenizer = load_tasks("tiny-gpt2", LABELS)
    adapters_on_one_body(models, r=4)
    only = torch.nn.ModuleDict({"two": models["two"]})
    with pytest.raises(InputError, match="save_adapter"):
        save_tasks(models, tokenizer, tmp_path / "all")
    with pytest.raises(InputError, match="has adapters in it"):
        save_tasks(only, tokenizer, tmp_path / "all")
    assert not (tmp_path / "all").exists()


# the experiment

def test_both_sides_see_the_same_rows(monkeypatch):
    seen, real = [], training.TaskLoss.forward
    def watched(self, name, rows):
        seen.append((name, [tuple(row["input_ids"]) for row in rows]))
        return real(self, name, rows)
    monkeypatch.setattr(training.TaskLoss, "forward", watched)
    joint_and_separate(ROWS, epochs=2, batch_size=8, device="cpu")
    half = len(seen) // 2
    for task in LABELS:
        joint, separate = ([rows for name, rows in side if name == task]
                           for side in (seen[:half], seen[half:]))
        assert joint == separate and sum(map(len, joint)) == 2 * 20


@pytest.mark.slow
def test_the_experiment():
    options = {"rows": {"reviews": 16, "news": 16}, "epochs": 1, "device": "cpu"}
    first, again = (joint_against_separate(1, **options) for _ in range(2))
    assert first == again and list(first) == ["reviews", "news"]
    assert [scores["n"] for scores in first.values()] == [576, 120]
    for scores in first.values():
        assert set(scores) == {"joint", "separate", "n"} and 0 <= scores["joint"] <= 1


# what is refused

def without_classes():
    numbers = ROWS["three"].cast_column("labels", Value("int64"))
    return joint_and_separate({**ROWS, "three": numbers})


def without_a_step():
    rows = {**ROWS, "three": ROWS["three"].select([0])}
    return joint_and_separate(rows, temperature=0.1)


@pytest.mark.parametrize("mistake, said", [
    (lambda: load_tasks("tiny-gpt2", {}), "labels – no task"),
    (lambda: load_tasks("tiny-gpt2", {"a.b": ["x", "y"]}), "task 'a.b' –"),
    (lambda: load_tasks("tiny-gpt2", {"../a": ["x", "y"]}), "can't be the name"),
    (lambda: load_tasks("tiny-gpt2", {"train": ["x", "y"]}), "task 'train'"),
    (lambda: load_tasks("tiny-gpt2", {"": ["x", "y"]}), "task ''"),
    (lambda: mixing_shares({"a": 3, "b": 0}), "task 'b' – has no rows"),
    (lambda: mixing_shares({"a": 3}, 0), "temperature 0 –"),
    (lambda: mixing_shares({"a": 3}, -1), "temperature -1"),
    (lambda: mixing_shares({"a": 3}, math.nan), "temperature nan"),
    (lambda: task_order({"a": 2, "b": 1}, 10), "don't sum to one"),
    (lambda: task_order({"a": 0.2, "b": 0.3}, 10), "don't sum to one"),
    (lambda: task_order({}, 10), "don't sum to one"),
    (lambda: adapters_on_one_body(torch.nn.ModuleDict()), "hold no task"),
    (lambda: save_tasks(torch.nn.ModuleDict(), None, "nowhere"), "hold no task"),
    (lambda: over_tasks(ROWS, []), "names no task"),
    (lambda: over_tasks(ROWS, ["two", "four"]), "task 'four' – has no rows"),
    (lambda: over_tasks({"two": ROWS["two"]}, ["two", "three"]), "task 'three' – has no rows"),
    (without_classes, "'three' – its rows have no ClassLabel"),
    (without_a_step, "'three' – gets none of the")])
def test_bad_input_is_one_line(mistake, said):
    with pytest.raises(InputError, match=said) as e: mistake()
    assert "\n" not in str(e.value) and str(e.value).count(" – ") == 2


@pytest.mark.parametrize("rows, said", [
    ({"two": ROWS["three"]}, "label 2"), ({**ROWS, "four": ROWS["two"]}, "'four' – has no model")])
def test_rows_that_do_not_fit_are_refused_before_the_first_step(rows, said):
    models, _ = load_tasks("tiny-gpt2", LABELS)
    original = copy.deepcopy(models)
    with pytest.raises(InputError, match=said) as e: train(models, ["two"], rows)
    assert str(e.value).count(" – ") == 2 and equal(models, original)


def test_what_goes_wrong_later_is_said_too():
    models, tokenizer = load_tasks("tiny-gpt2", LABELS)
    with pytest.raises(InputError, match="batch_size -1"): train(models, ["two"], batch_size=-1)
    with torch.no_grad(): models["two"].score.weight.fill_(math.inf)
    with pytest.raises(InputError, match="step 1 .* nothing was trained"): train(models, ["two"])
    models["two"].transformer = copy.deepcopy(models["two"].transformer)
    for refused in (adapters_on_one_body, lambda models: save_tasks(models, tokenizer, "nowhere")):
        with pytest.raises(InputError, match="'three' – has a body of its own"): refused(models)
