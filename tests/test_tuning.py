"""Trials, the finder, the panel without hands, the search: on few rows, so that effects are large
or absent."""
import time

import numpy as np
import pytest
import torch
from datasets import DatasetDict

from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.tuning import (
    CONTROLS, Panel, diagnose, estimate_seconds, find_learning_rate, flip_labels, run_trial, search,
    set_dropout, suggest_learning_rate, trial_table
)


@pytest.fixture(scope="module")
def splits():
    whole = load_data("reviews")
    return DatasetDict({
        "train": whole["train"].select(range(64)),
        "validation": whole["validation"].select(range(40)),
    })


def finished(panel):
    panel.thread.join(timeout=120)
    assert not panel.thread.is_alive()
    return panel


def test_a_trial_never_sees_the_test_part(splits):
    # there is none in these splits
    trial = run_trial(splits, epochs=1, learning_rate=5e-4)
    assert trial.settings["learning_rate"] == 5e-4
    assert trial.accuracy["low"] <= trial.accuracy["value"] <= trial.accuracy["high"]
    again = run_trial(splits, epochs=1, learning_rate=5e-4)
    assert again.history["loss"].tolist() == trial.history["loss"].tolist()


def test_dropout_and_frozen_layers_have_an_effect(splits):
    plain, other, frozen = (
        run_trial(splits, epochs=1, learning_rate=5e-4, **more).history["loss"].tolist()
        for more in ({}, {"dropout": 0.5}, {"frozen_layers": 2})
    )
    assert plain != other and plain != frozen
    with pytest.raises(ValueError, match="layers"): run_trial(splits, frozen_layers=9)
    layer = torch.nn.Sequential(torch.nn.Dropout(0.1))
    set_dropout(layer, 0.4)
    assert layer[0].p == 0.4


@pytest.mark.slow
def test_the_finder_stops_when_the_loss_explodes(splits):
    curve = find_learning_rate(splits, highest=10, steps=60)
    assert curve["learning_rate"].is_monotonic_increasing
    assert np.isfinite(curve["loss"]).all()
    assert len(curve) < 60
    assert curve["learning_rate"].iloc[0] == pytest.approx(1e-6)
    assert suggest_learning_rate(curve) < curve["learning_rate"].iloc[-1]


@pytest.mark.slow
def test_the_panel_runs_stops_and_shows_errors(splits):
    panel = Panel(splits, models=("tiny-gpt2", "nowhere"))
    assert set(panel.controls) == {"model", *CONTROLS}
    panel.controls["epochs"].value = 1
    panel.run.click()
    assert panel.run.disabled and not panel.stop.disabled
    finished(panel)
    assert panel.message.value.startswith("done")
    assert panel.picture.value[:4] == b"\x89PNG"
    assert len(panel.trials) == 1
    assert "<table" in panel.table.value
    panel.controls["epochs"].value, panel.controls["batch_size"].value = 12, 4
    panel.run.click()
    while "about" not in panel.message.value and panel.thread.is_alive(): time.sleep(0.02)
    panel.stop.click()
    finished(panel)
    assert panel.message.value.startswith("stopped")
    assert trial_table(panel.trials)["end"].tolist() == ["done", "stopped"]
    assert 0 < panel.bar.value < panel.bar.max == 12 * 16
    assert panel.trials[-1].history["step"].iloc[-1] < 12 * 16
    assert not panel.run.disabled
    assert panel.stop.disabled
    panel.controls["model"].value = "nowhere"
    panel.run.click()
    finished(panel)
    assert panel.message.value.startswith("can't run: nowhere")
    assert len(panel.trials) == 2
    assert not panel.run.disabled


@pytest.mark.parametrize("name, value, said", [
    ("weight_decay", 5.0, "weight decay 5 is not between 0 and 0.5"),
    ("learning_rate", 3.0, "learning rate 3 is not between 1e-06 and 0.1"),
    ("epochs", 0, "epochs 0 is not between 1 and 12")])
def test_a_value_out_of_range_is_said_and_not_changed(splits, name, value, said):
    panel = Panel(splits)
    before = panel.controls[name].slider.value
    panel.controls[name].value = value
    assert panel.controls[name].value == value and panel.controls[name].slider.value == before
    panel.message.value = ""
    panel.run.click()
    assert said in panel.message.value and panel.thread is None and not panel.run.disabled
    panel.controls[name].slider.value = before * 1.5 if name != "epochs" else 3
    assert panel.controls[name].value == panel.controls[name].slider.value
    assert panel.message.value == "ready to run"


def test_the_settings_of_the_panel_are_those_of_a_trial(splits):
    panel = Panel(splits)
    panel.controls["epochs"].value, panel.controls["patience"].value = 1, 2
    settings = panel.settings()
    by_hand = run_trial(splits, **settings)
    panel.run.click()
    finished(panel)
    assert panel.trials[0].history["loss"].tolist() == by_hand.history["loss"].tolist()


def test_the_table_shows_what_differs(splits):
    a, b = (run_trial(splits, epochs=1, learning_rate=r) for r in (1e-5, 1e-3))
    table = trial_table([a, b])
    assert "learning_rate" in table and "epochs" not in table and len(table) == 2


def test_an_estimate_grows_with_the_epochs(splits):
    one, ten = (estimate_seconds(splits, epochs=e) for e in (1, 10))
    assert 3 < ten / one < 30


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped(splits, tmp_path):
    storage, space = f"sqlite:///{tmp_path}/search.db", {
        "learning_rate": (1e-5, 1e-2),
        "batch_size": [8, 16],
        "epochs": (1, 2),
    }
    first = search(splits, space, 2, storage, progress=False)
    more = search(splits, space, 4, storage, progress=False)
    assert [t.params for t in more.trials[:2]] == [t.params for t in first.trials[:2]]
    assert len(more.trials) == 4
    assert (
        len({t.params["learning_rate"] for t in more.trials}) == 4
    ), "a continued search must not draw the same settings again"
    assert len(search(splits, space, 4, storage, progress=False).trials) == 4
    assert all(
        1e-5 <= t.params["learning_rate"] <= 1e-2 and t.params["epochs"] in (1, 2)
        for t in more.trials
    )


def test_flipped_labels(splits):
    flipped = flip_labels(splits, 0.25)
    changed = np.array(flipped["train"]["label"][:]) != np.array(splits["train"]["label"][:])
    assert changed.sum() == 16
    assert flipped["train"].features == splits["train"].features
    assert flipped["train"]["text"][:] == splits["train"]["text"][:]
    assert flip_labels(splits, 0.0)["train"]["label"][:] == splits["train"]["label"][:]


def test_diagnose_finds_what_was_planted(splits):
    leak = DatasetDict({"train": splits["train"], "validation": splits["train"].select(range(20))})
    assert diagnose(run_trial(leak, epochs=1), leak).startswith("leak: 20 texts")
    assert diagnose(run_trial(splits, epochs=1, warmup_ratio=1.0), splits).startswith("warm-up")
    assert diagnose(run_trial(splits, epochs=3, learning_rate=0.1), splits).startswith(
        "rate too high"
    )
    assert diagnose(run_trial(splits, epochs=1, frozen_layers=4), splits).startswith("frozen")
    with pytest.raises(InputError): diagnose(run_trial(splits, model="nowhere"), splits)
