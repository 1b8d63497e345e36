"Cross-validation: the folds, their scores together, and the command."
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.cli import main
from course_lib.data import load_data, text_key
from course_lib.errors import InputError
from course_lib.folds import fold_numbers, fold_split, pool, pooled_score
from course_lib.recipe import Recipe
from course_lib.runs import fine_tune, known_splits

FAST = ["--epochs", "1", "--max-length", "16"]


def table_of(texts, labels):
    names = sorted(set(labels))
    features = Features(text=Value("string"), label=ClassLabel(names=names))
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)


def write_table(path, n=48):
    rows = [(f"{'a lovely' if i % 2 else 'an awful'} film, number {i}", "pos" if i % 2 else "neg")
            for i in range(n)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
    return path


def course(capsys, *arguments):
    with pytest.raises(SystemExit) as end: main([str(a) for a in arguments])
    said = capsys.readouterr()
    return end.value.code or 0, said.out, said.err


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=12, max_size=120),
       st.integers(2, 6), st.integers(0, 9))
def test_each_row_is_in_one_fold_with_its_copies(rows, folds, seed):
    texts = [f"text {k}" for k, _ in rows]
    label_of = {text: label for text, (_, label) in zip(texts, rows)}
    labels = [label_of[text] for text in texts]
    if len(set(labels)) < 2: return
    dataset = table_of(texts, labels)
    different = Counter(label_of[text] for text in set(texts))
    if min(different.values()) < folds:
        with pytest.raises(InputError, match="too few for"): fold_numbers(dataset, folds, seed)
        return
    numbers = fold_numbers(dataset, folds, seed)
    assert set(numbers) == set(range(1, folds + 1))
    fold_of = {}
    for text, fold in zip(texts, numbers): assert fold_of.setdefault(text, fold) == fold
    largest = max(Counter(texts).values())
    for label in set(labels):
        sizes = Counter(f for f, y in zip(numbers, labels) if y == label)
        assert max(sizes.values()) - min(sizes[k] for k in range(1, folds + 1)) <= largest


def test_the_parts_of_all_turns_share_no_text():
    reviews = load_data("reviews")["train"].select(range(200))
    tested = []
    for fold in range(1, 5):
        parts = fold_split(reviews, 4, fold)
        keys = {name: {*map(text_key, part["text"])} for name, part in parts.items()}
        assert not keys["train"] & keys["test"] and not keys["validation"] & keys["test"]
        assert not keys["train"] & keys["validation"]
        tested += parts["test"]["text"]
    assert sorted(tested) == sorted(reviews["text"])


def test_the_pooled_interval_is_that_of_a_weighted_mean():
    scores = [{"value": 0.8, "low": 0.7, "high": 0.9}, {"value": 0.5, "low": 0.2, "high": 0.8}]
    found = pooled_score(scores, [30, 10])
    assert np.isclose(found["value"], 0.725)
    assert np.isclose(found["high"] - found["low"], np.hypot(0.75 * 0.2, 0.25 * 0.6))
    assert pooled_score(scores[:1], [30]) == pytest.approx(scores[0])
    right = pooled_score([{"value": 1.0, "low": 0.8, "high": 1.0}] * 4, [10] * 4)
    assert right == pytest.approx({"value": 1, "low": 0.9, "high": 1})
    one = {"n": 9, "metrics": {"accuracy": scores[0], "auc": scores[0]}, "best_baseline": "b",
           "baselines": {"b": {"accuracy": scores[1]}}}
    other = {**one, "metrics": {"accuracy": scores[1]}, "best_baseline": "a"}
    both = pool([one, other, one])
    assert set(both["metrics"]) == {"accuracy"} and both["best_baseline"] == "b"


@pytest.mark.parametrize("wrong, says", [
    ({"fold": 2}, "give folds too"), ({"folds": 2, "fold": 3}, "give one from 1 to 2"),
    ({"folds": 1}, "not between 2 and 100"), ({"folds": 2, "test": "x.csv"}, "leave out"),
    ({"folds": 2, "validation": "x.csv"}, "leave out")])
def test_a_fold_that_cannot_be_is_refused(wrong, says):
    with pytest.raises(InputError, match=says): Recipe(**wrong)


def test_one_run_of_several_folds_is_refused(tmp_path):
    with pytest.raises(InputError, match="more than one run"):
        fine_tune(Recipe(folds=3), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_command_answers_every_row_once_and_goes_on(tmp_path, capsys):
    data = write_table(tmp_path / "t.csv")
    out = tmp_path / "cv"
    code, said, notes = course(capsys, "fine-tune", "--data", data, "--out", out, "--folds", 3,
                               *FAST)
    assert code == 0, notes
    assert "3 folds, n = 48" in said and "fold 3, n = 16" in said and "fold 2 of 3" in notes
    assert "plot " not in said and "README.md" in said
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n"] == 48 and [one["n"] for one in metrics["folds"]] == [16] * 3
    right = sum(one["n"] * one["metrics"]["accuracy"]["value"] for one in metrics["folds"])
    assert np.isclose(metrics["metrics"]["accuracy"]["value"], right / 48)
    assert "answered once" in (out / "README.md").read_text()
    recipe = json.loads((out / "fold-2/recipe.json").read_text())
    assert known_splits(recipe) is not None
    code, said, notes = course(capsys, "predict", out, "a film")
    assert code == 2 and "fold" in notes and "no model of its own" in notes
    code, said, notes = course(capsys, "predict", out / "fold-1", "a film")
    assert code == 0 and json.loads(said)["label"] in ("neg", "pos")
    (out / "fold-3/README.md").unlink()
    before = (out / "fold-1/model/model.safetensors").stat().st_mtime_ns
    code, said, notes = course(capsys, "fine-tune", "--data", data, "--out", out, "--folds", 3,
                               *FAST, "--resume")
    assert code == 0 and (out / "fold-3/README.md").exists()
    assert (out / "fold-1/model/model.safetensors").stat().st_mtime_ns == before
    assert json.loads((out / "metrics.json").read_text()) == metrics
    code, said, notes = course(capsys, "fine-tune", "--data", data, "--out", out, "--folds", 3,
                               *FAST)
    assert code == 2 and "--resume" in notes and "--force" in notes


def test_too_few_texts_of_a_class_are_refused_before_anything_is_written(tmp_path, capsys):
    data = write_table(tmp_path / "t.csv", 12)
    code, _, notes = course(capsys, "fine-tune", "--data", data, "--out", tmp_path / "cv",
                            "--folds", 7)
    assert code == 2 and "only 6 different texts, too few for 7 folds" in notes
    assert not (tmp_path / "cv").exists()
