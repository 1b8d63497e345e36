"""The headline: recorded rows, paired gains with intervals over rows and seeds, sentences."""
import numpy as np
import pandas as pd
import pytest

from course_lib.evaluation import model_gain
from course_lib.files import shipped
from course_lib.fresh import (
    FILES, MODELS, PARTS, RECORDS, count_right, gain_over, headline, read_right, rows_of,
    say_headline)


def test_the_recorded_runs_are_complete():
    table = pd.read_csv(shipped("records/headline.csv"), dtype=str)
    settings = table[["preset", "seed"]].astype({"seed": int}).to_dict("records")
    assert settings == RECORDS["headline"][1]
    for part in PARTS:
        assert set(table[part].str.len()) == {len(rows_of(part))}
        assert set("".join(table[part])) == {"0", "1"}
        for seed in (0, 1):
            assert (read_right("counter", part)[seed] == count_right(part, seed)).mean() > 0.995


def test_a_gain_of_one_seed_is_that_of_the_paired_bootstrap():
    rng = np.random.default_rng(0)
    model, counter = rng.random(400) < 0.8, rng.random(400) < 0.7
    value, low, high = gain_over(counter[None].astype(int), model[None].astype(int))
    labels = np.ones(400, int)
    wanted = model_gain(labels, np.eye(2)[model.astype(int)], np.eye(2)[counter.astype(int)])
    assert value == pytest.approx(wanted["value"])
    assert low == pytest.approx(wanted["low"], abs=0.01)
    assert high == pytest.approx(wanted["high"], abs=0.01)


def test_seeds_and_pairs_widen_the_interval():
    rng = np.random.default_rng(1)
    right = (rng.random(300) < 0.5).astype(int)
    counter = np.zeros((4, 300), int)
    def width(model, groups=None):
        _, low, high = gain_over(counter, model, groups)
        return high - low
    alike = np.array([right] * 4)
    apart = np.array([np.roll(right, i) * (i % 2) for i in range(4)])
    assert width(apart) > 1.5 * width(alike)
    twice = np.repeat(right[:150], 2)[None].repeat(4, 0)
    assert width(twice, np.repeat(range(150), 2)) > 1.2 * width(twice)


def test_only_a_whole_interval_makes_a_model_better():
    row = {"part": "fresh", "rows": 600, "model": "m", "seeds": 5, "right": 0.8, "counter": 0.7}
    for low, high, said in ((0.01, 0.2, "ahead"), (-0.2, -0.01, "behind"),
                            (-0.01, 0.2, "no clear difference")):
        table = pd.DataFrame([{**row, "gain": (low + high) / 2, "low": low, "high": high}])
        assert f": {said} (" in say_headline(table)
    table = headline()
    assert len(table) == len(MODELS) * len(PARTS)
    lines = say_headline(table).splitlines()
    assert len(lines) == len(MODELS) * len(FILES)
    for line, found in zip(lines, table[table["part"] != "test"].to_dict("records")):
        assert ("ahead" in line) == (found["low"] > 0)
        assert ("behind" in line) == (found["high"] < 0)
