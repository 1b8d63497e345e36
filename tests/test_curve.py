"""The learning curve: its record, its draws, its intervals, and some of its points made again."""
import numpy as np
import pandas as pd
import pytest
import torch

from course_lib.curve import (
    LAYERS, RECORDS, ROWS, TEMPLATE, best_layer, clear_from, curve_once, difference, draw_rows,
    layers_of, over_draws, parts, right_answers, sixteen_bits, token_ids)
from course_lib.download import cache_folder
from course_lib.files import is_folder
from course_lib.models import load
from course_lib.prompting import few_shot_log_probs
from course_lib.records import recorded

SETTINGS = ["model", "way", "labels", "seed"]
needs_smollm2 = pytest.mark.skipif(not is_folder(cache_folder() / "smollm2"),
                                   reason="smollm2 isn't downloaded: course download smollm2")


@pytest.fixture(scope="module")
def record() -> pd.DataFrame:
    return recorded("learning-curve")


def recorded_rows(record, **point) -> str:
    own = record
    for name, value in point.items(): own = own[own[name] == value]
    (rows,) = own["rows"]
    return rows


def agreeing(first: str, second: str) -> float:
    return np.mean([a == b for a, b in zip(first, second, strict=True)])


def test_the_record_holds_the_runs_that_its_command_makes(record):
    assert record[SETTINGS].to_dict("records") == RECORDS["learning-curve"][1]


def test_the_accuracies_are_those_of_the_rows(record):
    assert (record["n"] == ROWS).all()
    for line in record.itertuples():
        assert len(line.rows) == ROWS and set(line.rows) <= {"r", "w"}
        assert line.accuracy == pytest.approx(line.rows.count("r") / ROWS, abs=1e-4)


def test_draws_are_balanced_and_nested_and_no_scored_row_is_among_them():
    _, scored = parts()
    for seed in range(3):
        smaller = set()
        for labels in (8, 32, 128, 512):
            rows = draw_rows(labels, seed)
            assert np.bincount(rows["label"][:]).tolist() == [labels // 2, labels // 2]
            drawn = set(rows["text"])
            assert len(drawn) == labels and smaller < drawn
            assert not drawn & set(scored["text"])
            smaller = drawn
    assert set(draw_rows(8, 0)["text"]) != set(draw_rows(8, 1)["text"])


def test_states_are_those_of_each_text_alone():
    model, tokenizer = load("tiny-gpt2", task="text-generation")
    rows = token_ids(draw_rows(8, 0), tokenizer)
    found = layers_of(model, rows)
    assert found.shape == (model.config.n_layer, 8, model.config.n_embd)
    for i, ids in enumerate(rows["input_ids"]):
        with torch.inference_mode(), sixteen_bits():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        alone = torch.stack([s[0, -1].float() for s in states[1:]]).numpy()
        scale = np.abs(alone).max()
        assert np.abs(found[:, i] - alone).max() < 0.03 * scale # 16 bits where they are fast


def test_the_layer_that_tells_the_classes_is_found():
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    states = rng.normal(size=(6, 64, 20))
    states[3, :, 0] += 4 * y
    assert best_layer(states, y) == 4


def test_the_interval_holds_both_kinds_of_luck():
    rng = np.random.default_rng(0)
    same_draws = np.repeat(rng.integers(0, 2, (1, 400)), 5, axis=0).astype(float)
    mean, low, high = over_draws(same_draws)
    by_formula = 1.96 * same_draws[0].std() / 20
    assert mean == same_draws.mean() and high - low == pytest.approx(2 * by_formula, rel=0.15)
    other_draws = same_draws.copy()
    other_draws[:2] = 1 - other_draws[:2]
    other_draws[0] = 1
    _, low, high = over_draws(other_draws)
    assert high - low > 3 * by_formula
    assert over_draws(np.ones((3, 10))) == (1, 1, 1)


def test_a_difference_is_taken_row_by_row():
    def line(way, seed, rows): return {"model": "m", "way": way, "labels": 8, "seed": seed,
                                       "rows": rows}
    table = pd.DataFrame([line("a", 0, "rrrrw"), line("a", 1, "rrrww"), line("b", 0, "rrrww"),
                          line("b", 1, "rrwww"), line("one", 0, "rwwww"),
                          {**line("asked", 0, "rwwww"), "labels": 0}])
    assert right_answers(table, "m", "a", 8).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    assert difference(table, ("m", "a", 8), ("m", "b", 8))[0] == pytest.approx(0.2)
    assert difference(table, ("m", "a", 8), ("m", "asked", 0))[0] == pytest.approx(0.5)
    assert difference(table, ("m", "a", 8), ("m", "one", 8))[0] == pytest.approx(0.6) # draw 0
    assert difference(table, ("m", "a", 8), ("m", "a", 8)) == (0, 0, 0)


@pytest.mark.parametrize("lows, start", [
    ({8: -1, 32: 1, 128: 2}, 32), ({8: 1, 32: -1, 128: 2}, 128), ({8: 1, 32: 1}, 8),
    ({8: 1, 32: 0}, None), ({}, None)])
def test_training_is_better_from_where_all_intervals_are_above_zero(lows, start):
    assert clear_from({n: (low + 1, low, low + 2) for n, low in lows.items()}) == start


@pytest.mark.parametrize("model, way, least", [
    ("none", "word counts", 0.97), ("tiny-gpt2", "frozen states", 0.9),
    ("tiny-gpt2", "all weights", 0.8)])
def test_quick_points_come_out_again(record, model, way, least):
    found = curve_once(model, way, 32, 1)
    before = recorded_rows(record, model=model, way=way, labels=32, seed=1)
    assert agreeing(found["rows"], before) >= least


@needs_smollm2
@pytest.mark.slow
def test_a_frozen_smollm2_comes_out_again(record):
    for way in (f"frozen, layer {LAYERS[1]}", "frozen states"):
        found = curve_once("smollm2", way, 8, 0)
        before = recorded_rows(record, model="smollm2", way=way, labels=8, seed=0)
        assert agreeing(found["rows"], before) > 0.9


@needs_smollm2
@pytest.mark.slow
def test_asking_smollm2_comes_out_again(record):
    model, tokenizer = load("smollm2", task="text-generation")
    some = parts()[1].select(range(40))
    with sixteen_bits():
        plain, calibrated, _ = few_shot_log_probs(
            model, tokenizer, some["text"][:], [], TEMPLATE)
    for way, scores in {"prompting": plain, "prompting, calibrated": calibrated}.items():
        right = scores.argmax(-1) == np.array(some["label"][:])
        rows = "".join("r" if r else "w" for r in right)
        before = recorded_rows(record, model="smollm2", way=way, labels=0, seed=0)
        assert agreeing(rows, before[:40]) > 0.9
