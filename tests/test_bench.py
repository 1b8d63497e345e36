"The bench: the way of comparing, not how fast anything is."
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from conftest import run_course
from datasets import Dataset

from course_lib import bench
from course_lib.errors import InputError
from course_lib.files import shipped
from course_lib.training import TaskLoss, classification


def test_candidates_take_turns():
    seen = []

    def candidate(name):
        def set_up():
            seen.append(f"set up {name}")
            return run

        def run(): seen.append(name)
        return set_up

    table = bench.in_turns({n: candidate(n) for n in "abc"}, rounds=3, progress=False)
    assert [s for s in seen if len(s) == 1] == list("abc" "bca" "cab") and seen[0] == "set up a"
    assert table.shape == (3, 3)
    assert list(table.columns) == list("abc")
    assert (table >= 0).all(axis=None)


def test_setting_up_is_not_timed():
    def busy(): return sum(i * i for i in range(2_000_000))
    def idle(): pass

    def slow_to_set_up():
        busy()
        return idle

    def slow_to_run(): return busy
    candidates = {"setting up": slow_to_set_up, "work": slow_to_run}
    table = bench.in_turns(candidates, rounds=3, progress=False)
    assert table["setting up"].max() < 0.2 * table["work"].min()


def test_ratios_are_of_rounds():
    seconds = pd.DataFrame({"ours": [1.0, 10.0, 1.0], "other": [2.0, 30.0, 4.0]})
    found = bench.ratios(seconds, "ours")
    assert found.loc["other"].tolist() == [4.0, 3.0, 2.0, 4.0]
    assert found.loc["ours"].tolist() == [1.0, 1.0, 1.0, 1.0]


def test_rows_are_like_sentences_of_reviews():
    rows = bench.sentences(1000)
    lengths = pd.Series([len(i) for i in rows["input_ids"]])
    assert abs(lengths.mean() - 28) < 1.5
    assert abs(lengths.std() - 12) < 1.5
    assert {i[-1] for i in rows["input_ids"]} == {0}
    assert all(t not in (0, 1) for i in rows["input_ids"] for t in i[:-1])
    assert rows["input_ids"] == bench.sentences(1000)["input_ids"]
    with pytest.raises(ValueError): bench.sentences(100_000)


def test_all_candidates_train(monkeypatch):
    "On two texts that are told apart by any token, every loop ends far below the loss of guessing."
    monkeypatch.setattr(bench, "LEARNING_RATE", 2e-3)
    made, make = [], bench.new_classifier

    def remember(*arguments):
        made.append(make(*arguments))
        return made[-1]

    monkeypatch.setattr(bench, "new_classifier", remember)
    labels = [i % 2 for i in range(160)]
    texts = [[20 + 30 * label] * 8 + [0] for label in labels]
    rows = Dataset.from_dict({"input_ids": texts, "labels": labels})
    candidates = bench.training_candidates("tiny", rows)
    for ready in candidates.values(): ready()()
    features = [rows[i] for i in range(16)]
    losses = [TaskLoss(m.eval(), classification) for m in made]
    after = [loss("task", features)[0].item() for loss in losses]
    assert len(after) == len(candidates) >= 4
    assert max(after) < 0.35, dict(zip(candidates, after))


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    # what this process holds doesn't count
    big = torch.zeros(64 * 2**20 // 4)
    found = bench.peak_memory("tiny", ["ours"], 16, progress=False)
    assert 5 < found["ours"] < 500 and len(big)


def test_unknown_part_and_other_threads():
    threads = torch.get_num_threads()
    with pytest.raises(InputError, match="optimizers"): bench.bench("nothing")
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_command_line(tmp_path):
    command = [sys.executable, "-m", "course_lib", "bench", "imports", "--rounds", "1", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    found = json.loads(done.stdout)
    assert found["imports"]["course_lib"]["ratio"] < 0.1
    assert found["machine"]["torch"] == torch.__version__
    wrong = run_course("bench", "speed", cwd=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("course: bench 'speed'")
    assert len(wrong.stderr.splitlines()) == 1


def test_the_recorded_run_is_whole():
    found = json.loads(shipped("bench.json").read_text())
    parts = {f"{part}, {shape}" for part in bench.PARTS for shape in bench.SHAPES}
    whole = {"machine", "peers", "peers, machine", "imports", "growth"} | parts
    assert set(found) - {"machine, training"} == whole
    timed = [name for name in found if name.startswith(("training", "prediction"))]
    assert timed
    for name in timed:
        assert found[name]
        for row in found[name].values(): assert row["low"] <= row["ratio"] <= row["high"]
