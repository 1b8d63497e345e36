"""An experiment can be cut off at any run and goes on; verdicts follow from intervals; the shipped
ledger follows from its own numbers."""
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import ttest_1samp

import course_lib.claims as module
from course_lib.claims import (
    CLAIMS, STEPS, Claim, decide, draw, gain, interval, ledger_rows, run_claims, run_once, verdict
)
from course_lib.data import InputError, shipped
from course_lib.optim import SCHEDULES

quick = settings(max_examples=100, deadline=None)


@quick
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=20).filter(lambda v: np.std(v) > 1e-6))
def test_the_interval_is_students(values):
    mean, low, high = interval(values)
    reference = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), reference.low, reference.high))
    assert interval([1.0])[1:] == (-np.inf, np.inf)


@quick
@given(st.floats(-5, 5), st.floats(0, 5), st.floats(-3, 3), st.floats(0, 2))
def test_a_verdict_has_a_reason(low, width, least, extra):
    found = decide(low, low + width, least, least + extra)
    assert (found == "holds") == (low > least)
    if found == "fails": assert low + width < least + extra
    if found == "open": assert low <= least and low + width >= least + extra


def test_verdicts_of_several_conditions():
    assert verdict({"a": "holds", "b": "holds"}) == "holds here"
    assert verdict({"a": "fails"}) == "fails here"
    assert (
        verdict({"a": "holds", "b": "fails", "c": "open"}) == "depends: holds for a – fails for b"
    )
    assert "open" in verdict({"a": "open"})
    assert verdict({"a": "holds", "b": "open"}) == "holds here for a; the rest is open"


def test_experiments_go_on(tmp_path, monkeypatch):
    """After every run the time is up once; what was computed stays, and the end is the same as
    without interruptions."""
    done, clock = [], [0.0]
    def run(seed, **settings):
        done.append((seed, json.dumps(settings)))
        clock[0] += 100
        return {"accuracy": 70 + seed % 3 + 5 * settings.get("dropout", 0)}
    monkeypatch.setitem(module.RUNS, "fine-tune", run)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    more, still_more = gain(dropout=0.3), gain(dropout=0.3, against={"dropout": 0.1})
    toy = Claim("dropout helps", {"0.3": more, "0.1 and 0.3": still_more})
    monkeypatch.setitem(CLAIMS, "toy", toy)
    for _ in range(40):
        table = run_claims(["toy"], tmp_path / "often", minutes=1, say=lambda line: None)
    assert len(done) == len(set(done)) == 3 * 5
    whole = run_claims(["toy"], tmp_path / "whole", minutes=1e6, say=lambda line: None)
    assert table.equals(whole)
    assert table["verdict"].tolist() == ["holds here"] * 2
    assert table["effect"].tolist() == pytest.approx([1.5, 1.0])
    assert pd.read_csv(tmp_path / "often/claims.csv")["seeds"].tolist() == [5, 5]
    assert run_claims(["toy"], tmp_path / "none", minutes=-1, say=lambda line: None).empty
    assert not (tmp_path / "none/claims.csv").exists()
    with pytest.raises(InputError, match="is not known – they are lr-default"):
        run_claims(["no-such-claim"], tmp_path)


@pytest.mark.parametrize("name", CLAIMS)
def test_every_effect_can_be_asked(name):
    "Each effect asks for runs with settings that a run takes, and gives a number."
    taken = {
        kind: set(run.__code__.co_varnames[: run.__code__.co_argcount])
        for kind, run in module.RUNS.items()
    }
    taken["fine-tune"] |= {"learning_rate", *module.RECIPE}
    measured = {
        "prompt": ("accuracy", "calibrated"),
        "next word": ("loss",),
        "joint": [
            f"{task}, {way}" for task in ("reviews", "news") for way in ("joint", "separate")
        ],
        "corpus": ("accuracy",),
    }
    def get(further=0, kind="fine-tune", **settings):
        assert set(settings) <= taken[kind]
        if kind != "fine-tune": return dict.fromkeys(measured[kind], 50.0)
        assert settings.get("step") in {None, *STEPS}
        assert settings.get("lr_scheduler_type", "linear") in SCHEDULES
        names = """
            accuracy balanced_accuracy macro_f1 first_half second_half ece tempered_ece negation
            loss last_loss lowest_loss steps tokens
        """.split()
        found = dict.fromkeys(names, 50.0)
        if settings.get("flips"): found |= {f"flips: {k}": 0.1 for k in module.CHANGES}
        return found
    for effect in CLAIMS[name].effects.values(): assert np.isfinite(effect(get))
    assert CLAIMS[name].worth >= CLAIMS[name].least and CLAIMS[name].seeds >= 5


def test_rows_of_a_run():
    parts = draw(3, rows=200, noise=0.25, step="drop stop words")
    assert len(parts["train"]) == 200 and parts["train"].column_names == ["text", "label", "slice"]
    clean = draw(3, rows=200)
    labels, true = (np.array(p["train"]["label"][:]) for p in (parts, clean))
    assert (labels != true).sum() == 50
    assert parts["test"]["label"][:] == clean["test"]["label"][:]
    assert not any(" not " in t for t in parts["test"]["text"])


def test_runs_of_the_other_kinds(monkeypatch):
    "Each gives the numbers that its chapter's function gives, in points, the same twice."
    small = draw(1, rows=40)
    small["test"] = small["test"].select(range(60))
    monkeypatch.setattr(module, "draw", lambda seed, rows: small)
    asked = module.prompt_once(1, rows=40, shots=2)
    assert 20 < asked["accuracy"] < 90
    assert 20 < asked["calibrated"] < 90
    assert asked == module.prompt_once(1, rows=40, shots=2) != module.prompt_once(1, rows=40)
    gpt, bert = (
        module.next_word_once(1, model=m)["loss"] / 100 for m in ("tiny-gpt2", "tiny-bert")
    )
    assert 2 < gpt < np.log(8192) and 2 < bert < np.log(8192) and gpt != bert

    def both(seed, rows, **settings):
        return {task: {"joint": 0.5, "separate": 0.25, "n": 4} for task in rows}

    monkeypatch.setattr(module, "joint_against_separate", both)
    reviews = {"reviews, joint": 50, "reviews, separate": 25}
    assert module.joint_once(0, 8) == {**reviews, "news, joint": 50, "news, separate": 25}


@pytest.mark.slow
def test_a_checkpoint_made_from_more_or_less_text(monkeypatch):
    "As many tokens are read, of eight times the text; no text of the test part is among them."
    small, seen = draw(1, rows=40), []
    real = module.token_stream

    def token_stream(texts, tokenizer):
        seen.extend(texts)
        return real(texts, tokenizer)

    for part in ("validation", "test"): small[part] = small[part].select(range(60))
    monkeypatch.setattr(module, "draw", lambda seed, *rest: small)
    monkeypatch.setattr(module, "token_stream", token_stream)
    whole = module.corpus_once(1, rows=40, steps=2)
    part = module.corpus_once(1, rows=40, steps=2, share=0.125)
    assert whole["read_tokens"] == part["read_tokens"] == 2 * 8 * 256
    assert 7 < whole["corpus_tokens"] / part["corpus_tokens"] < 9
    assert 0 <= part["accuracy"] <= 100
    assert set(small["train"]["text"]) <= set(seen)
    assert not set(small["test"]["text"]) & set(seen)


@pytest.mark.slow
def test_a_small_run():
    training = dict(epochs=1, patience=1, frozen_layers=1, kept_layers=2, dropout=0.0)
    found, again = (run_once(1, rows=64, positive=0.2, flips=True, **training) for _ in range(2))
    assert found["steps"] == 4
    assert np.isfinite(list(found.values())).all()
    assert found["flips: upper case"] == 0
    for run in (found, again): del run["seconds"]
    assert found == again


def test_the_shipped_ledger_is_what_its_numbers_say():
    ledger = pd.read_csv(shipped("claims.csv"))
    assert set(ledger["claim"]) <= set(CLAIMS) and (ledger["seeds"] >= 5).all()
    for name, rows in ledger.groupby("claim"):
        assert rows["condition"].tolist() == list(CLAIMS[name].effects)
        values = [[float(v) for v in text.split()] for text in rows["values"]]
        again = pd.DataFrame(ledger_rows(name, dict(zip(rows["condition"], values))))
        assert again["verdict"].tolist() == rows["verdict"].tolist()
        assert rows["seeds"].tolist() == [len(v) for v in values]
        columns = ["effect", "low", "high"]
        np.testing.assert_allclose(again[columns], rows[columns], atol=0.01)
