"""An experiment can be cut off at any run and goes on; a run is made anew when anything that it
depends on changes; words follow from intervals; the shipped ledger follows from its kept runs; a
completion is what greedy decoding writes."""
import importlib.util
import json
import os
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from scipy.stats import ttest_1samp
from typer.testing import CliRunner

import course_lib.claims as module
from course_lib.claims import (
    CLAIMS, COLUMNS, PACKED, RATES, RECORDS, SHARED, SOURCES, STEPS, SWEEP, Claim, Runs, arms,
    asked_runs, check_claims, conditions, contamination_once, continuation, decide, draw,
    from_eighths, gain, in_eighths, interval, judged, labels_for, ledger_rows, merged, numbers,
    p_value, pack, recomputed, resolved, run_claims, run_key, run_once, searching, sentences,
    spelt_alike, stale, unpacked, verdict, winners_luck
)
from course_lib.cli import app
from course_lib.download import cache_folder
from course_lib.errors import InputError
from course_lib.files import is_folder, shipped
from course_lib.models import load
from course_lib.optim import SCHEDULES
from course_lib.prompting import encode, prompt_accuracy
from course_lib.records import recorded

DRIFTS = ("cut off", "misspelt", "negations", "turned")
quick = settings(max_examples=100, deadline=None)
several = st.lists(st.floats(-50, 50), min_size=2, max_size=20).filter(lambda v: np.std(v) > 1e-6)


@quick
@given(several)
def test_the_interval_is_students(values):
    mean, low, high = interval(values)
    reference = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), reference.low, reference.high))
    assert interval([1.0])[1:] == (-np.inf, np.inf)
    n = len(values)
    wider = interval(values, 0.2)
    assert wider[2] - mean == pytest.approx((high - mean) * (1 + 0.2 * n) ** 0.5)


@quick
@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0.01, 3))
def test_a_word_has_a_reason(low, width, worth):
    high = low + width
    word = decide(low, high, worth)
    assert (word == "helps") == (low > worth)
    assert (word == "harms") == (high < -worth)
    assert (word == "negligible") == (-worth <= low and high <= worth)
    opposite = {"helps": "harms", "harms": "helps"}
    assert decide(-high, -low, worth) == opposite.get(word, word)
    assert decide(np.array([low]), np.array([high]), worth).tolist() == [word]


@quick
@given(several, st.floats(0.1, 20), st.sampled_from([0.0, *SHARED.values()]))
def test_a_word_is_given_where_p_is_small(values, worth, shared):
    p = p_value(values, worth, shared)
    assume(abs(p - 0.05) > 1e-6)
    assert (decide(*interval(values, shared)[1:], worth) != "open") == (p < 0.05)
    if not shared:
        above = ttest_1samp(values, worth, alternative="greater").pvalue
        if decide(*interval(values)[1:], worth) == "helps": assert p == pytest.approx(2 * above)


def test_verdicts_of_several_conditions():
    def said(**words): return verdict(words, dict.fromkeys(words, ("helps",)))
    assert said(a="helps", b="helps") == "borne out – *helps*: a; b"
    assert said(a="harms") == "not borne out – *harms*: a"
    assert said(a="negligible").startswith("not borne out – *negligible*")
    assert said(a="helps", b="harms", c="open") == "depends – *helps*: a, *harms*: b"
    assert said(a="open").startswith("open")
    assert said(a="helps", b="open").startswith("borne out in 1 of 2, the rest open")
    assert said(a="no test").startswith("no test")
    assert said(a="no test", b="helps") == "borne out – *helps*: b"
    assert said(**dict.fromkeys("abcd", "helps")) == "borne out – *helps*: 4 conditions"
    assert verdict({"a": "negligible"}, {"a": ("negligible", "helps")}).startswith("borne out")


def test_effects_that_cannot_differ_are_no_test():
    rows = ledger_rows("dropout", {c: [(v, 80 + v, 80.0) for v in values] for c, values in {
        "0.1, reviews": [0.0] * 5, "0.3, reviews": [-3.0, -3.5, -4, -3, -3.2]}.items()})
    table = judged(pd.DataFrame(rows))
    assert table["word"].tolist() == ["no test", "harms"]
    assert table["why"][0] == "the same in every seed" and np.isnan(table["p"][0])
    assert table["q"][1] == table["p"][1]                         # only one was tested
    assert table["first"].tolist() == [80, pytest.approx(76.66)]


@pytest.fixture
def toy(monkeypatch):
    "A claim whose runs take a hundred seconds of a false clock; what was made, and the clock."
    done, clock = [], [0.0]
    def run(seed, dropout=None, **settings):
        done.append((seed, dropout))
        clock[0] += 100
        accuracy = 70 + seed % 3 + (5 + seed / 100) * (dropout or 0)
        return {"accuracy": accuracy}
    monkeypatch.setitem(module.RUNS, "fine-tune", run)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    rate = {"learning_rate": 1e-3}
    more = gain(dropout=0.3, **rate, against=rate)
    still_more = gain(dropout=0.3, **rate, against={"dropout": 0.1, **rate})
    claim = Claim("dropout helps", {"0.3": more, "0.1 and 0.3": still_more}, worth=0.1, seeds=5)
    monkeypatch.setitem(CLAIMS, "toy", claim)
    return done


def in_silence(line): pass


def test_experiments_go_on(tmp_path, toy):
    """After every run the time is up once; what was computed stays, and the end is the same as
    without interruptions."""
    for _ in range(40):
        table = run_claims(["toy"], tmp_path / "often", minutes=1, say=in_silence)
    assert len(toy) == len(set(toy)) == 3 * 5
    whole = run_claims(["toy"], tmp_path / "whole", minutes=1e6, say=in_silence)
    pd.testing.assert_frame_equal(table, whole)
    assert whole["word"].tolist() == ["helps"] * 2
    assert table["effect"].tolist() == pytest.approx([1.506, 1.004])
    assert table["first"].tolist() == pytest.approx([72.306] * 2)
    written = pd.read_csv(tmp_path / "often/claims.csv")
    assert written.query("claim == 'toy'")["seeds"].tolist() == [5, 5]
    assert len(written) == len(pd.read_csv(shipped("claims.csv"))) + 2       # no line is lost
    kept = [run["kind"] for run in unpacked(tmp_path / "often" / PACKED)]
    assert kept.count("fine-tune") == 15
    assert run_claims(["toy"], tmp_path / "none", minutes=-1, say=in_silence).empty
    assert not (tmp_path / "none/claims.csv").exists()
    with pytest.raises(InputError, match="is not known – they are lr-default"):
        run_claims(["no-such-claim"], tmp_path)
    part = run_claims(["toy:and"], tmp_path / "part", minutes=1e6, say=in_silence)
    assert part["condition"].tolist() == ["0.1 and 0.3"]
    assert part["values"].tolist() == [whole["values"][1]]


def test_another_machine_goes_on_from_the_packed_file(tmp_path, toy, monkeypatch):
    run_claims(["toy"], tmp_path / "here", minutes=12, say=in_silence)
    before = len(toy)
    assert 0 < before < 15
    there = tmp_path / "there"
    there.mkdir()
    for name in ("claims.csv", PACKED): shutil.copy(tmp_path / "here" / name, there)
    monkeypatch.setattr(module, "shipped", lambda name: there / name if "claims" in name
                        else shipped(name))
    table = run_claims(["toy"], tmp_path / "elsewhere", minutes=1e6, say=in_silence)
    assert len(toy) == len(set(toy)) == 15 and table["seeds"].tolist() == [5, 5]


def key(kind="fine-tune", **settings):
    return run_key(kind, resolved(kind, {"seed": 0, "rows": 60, **settings}))


def test_a_key_holds_what_a_run_depends_on(tmp_path, monkeypatch):
    usual = key()
    assert usual == key() == key(epochs=4) == key(data="reviews") == key(model="tiny-gpt2")
    different = [key(seed=1), key(noise=0.1), key(epochs=5), key(model="tiny-bert"), key("prompt"),
                 key("corpus"), key("drift"), key("next word"), key("joint"), key("states"),
                 key(learning_rate=1e-4), key(change={"dropout": 0.1}), key(data="films")]
    assert len({usual, *different}) == 1 + len(different)
    counted = key(model="word counts")
    with monkeypatch.context() as m:
        m.setitem(module.RECIPE, "epochs", 5)
        assert key() != usual and key(model="word counts") == counted
        assert key("drift") != different[6] and key("corpus") != different[5]
    monkeypatch.setattr(module, "shipped", lambda name: tmp_path / name)
    text = shipped("reviews.csv").read_text(encoding="utf-8")
    (tmp_path / "reviews.csv").write_text(text, encoding="utf-8")
    assert key() == usual
    (tmp_path / "reviews.csv").write_text(text + "\n", encoding="utf-8")
    assert key() != usual and key(model="word counts") != counted


def test_a_key_holds_the_weights(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(shipped("models/tiny-gpt2") / name, tmp_path)
    before = key(model=str(tmp_path))
    assert before == key(model=str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert key(model=str(tmp_path)) != before


CODE = """
LIMIT = 3

def helper(x):
    "What it does."
    return x + 1   # one more

def unused(x): return x

def run(seed):
    "A run."
    def inner(): return helper(seed) * LIMIT
    return {"accuracy": inner()}
"""


@pytest.mark.parametrize("old, new, same", [
    ("# one more", "# another word", True), ('"What it does."', '"Said better."', True),
    ("return x + 1   #", "\n    return (x +\n        1)  #", True),
    ("x): return x", "x): return 7", True),
    ("x + 1", "x + 2", False), ("LIMIT = 3", "LIMIT = 4", False), ("* LIMIT", "+ LIMIT", False),
    ('"accuracy"', '"loss"', False)])
def test_a_key_holds_the_code_but_no_comment(tmp_path, old, new, same):
    assert old in CODE
    found = []
    for i, text in enumerate([CODE, CODE.replace(old, new)]):
        path = tmp_path / f"runs_{i}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("some_runs", path)
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        found.append(module.code_of(made.run))
    assert (found[0] == found[1]) == same


def test_the_code_of_a_run_reaches_its_helpers():
    known = json.loads(module.code_of(run_once))
    assert {"run_once", "draw", "cleaned", "measures", "counted", "STEPS"} <= set(known)
    assert not {"RECIPE", "RATES", "interval", "prompt_once", "fit"} & set(known)
    assert "run_once" in json.loads(module.code_of(module.corpus_once))
    assert "counted" not in json.loads(module.code_of(module.next_word_once))


def test_runs_are_packed_as_they_were(tmp_path):
    runs = Runs(tmp_path / "runs", tmp_path / PACKED)
    one = {"key": "a" * 16, "kind": "fine-tune", "settings": {"seed": 0, "step": None},
           "found": {"accuracy": 50.0, "n": 3}, "versions": {"torch": "2"},
           "predictions": np.array([-12, 0, 16], np.int8).tobytes()}
    two = {**one, "key": "b" * 16, "kind": "joint", "predictions": None, "settings": {"seed": 0}}
    for run in (one, two): runs.keep(run)
    assert runs.find("a" * 16) == one and runs.find("c" * 16) is None
    pack(runs.all(), tmp_path / PACKED)
    again = unpacked(tmp_path / PACKED)
    assert again == [one, two] and unpacked(tmp_path / "none") == []
    behind = Runs(tmp_path / "empty", tmp_path / PACKED)
    assert behind.find("b" * 16) == two and behind.all() == [one, two]
    newer = Runs(tmp_path / "newer", tmp_path / PACKED)
    newer.keep({**one, "key": "d" * 16})
    assert {r["key"] for r in newer.all()} == {"b" * 16, "d" * 16}    # it takes the old one's place


def test_fifteen_hundred_runs_are_small_and_quickly_checked(tmp_path):
    rng = np.random.default_rng(0)
    shape = next(r for r in unpacked(shipped(PACKED)) if r["kind"] == "fine-tune")
    runs = []
    for i in range(1500):
        own = {**shape["settings"], "seed": i % 10, "noise": i, "data": "reviews"}
        answers = in_eighths(rng.normal(2, 3, 1536)).tobytes()
        runs.append({**shape, "key": f"{i:016x}", "settings": own, "predictions": answers})
    pack(runs, tmp_path / PACKED)
    assert (tmp_path / PACKED).stat().st_size < 3e6
    start = time.process_time()
    for run in runs[:300]: recomputed(run)
    assert time.process_time() - start < 30


@quick
@given(st.lists(st.floats(-15.9, 15.9), min_size=1, max_size=50))
def test_eighths_keep_the_sign_and_nearly_the_size(values):
    values = np.array(values)
    kept = in_eighths(values)
    assert kept.dtype == np.int8 and ((kept >= 0) == (values >= 0)).all()
    assert np.abs(from_eighths(kept) - values).max() <= 1 / 16
    assert in_eighths(np.array([-99.0, 99.0])).tolist() == [-128, 127]


def test_the_measures_follow_from_what_is_kept():
    asked = {"seed": 3, "rows": 200, "positive": 0.2, "model": "word counts", "step": "lower case"}
    made = module.made("fine-tune", resolved("fine-tune", asked))
    again = recomputed({**made, "found": {"temperature": made["found"]["temperature"], "n": 0}})
    for name in set(again) - {"temperature", "odds"}: assert again[name] == made["found"][name]
    assert len(made["predictions"]) == again["n"] == len(again["odds"])


@pytest.mark.skipif("COURSE_REAL_DATA" not in os.environ, reason="COURSE_REAL_DATA isn't set")
def test_the_measures_of_films_follow_without_their_texts(monkeypatch):
    asked = {"seed": 3, "rows": 200, "positive": 0.2, "model": "word counts", "data": "films",
             "test_rows": 403}
    made = module.made("fine-tune", resolved("fine-tune", asked))
    monkeypatch.delattr(module, "all_rows")
    kept = {name: made["found"][name] for name in ("temperature", "labels")}
    again = recomputed({**made, "found": kept})
    for name in ("accuracy", "balanced_accuracy", "ece", "tempered_ece", "loss", "n"):
        assert again[name] == made["found"][name]
    assert again["n"] == 403 and again["balanced_accuracy"] != again["accuracy"]


def test_each_recipe_gets_its_own_rate():
    """Of several rates the one that is best on the validation rows of the first three seeds; the
    test rows have no say, nor has a later seed."""
    asked = []
    def get_one(further=0, kind="fine-tune", seed=7, **settings):
        asked.append((seed, settings.get("learning_rate")))
        best = {"none": 5e-4, "much": 2e-4}[settings.get("decay", "none")]
        good = settings.get("learning_rate") == best
        return {"validation": 80.0 if good else 70.0, "accuracy": 10 if good else 90}
    get = searching(get_one)
    assert get()["accuracy"] == get(decay="much")["accuracy"] == 10
    assert asked[-1] == (7, 2e-4) and {s for s, _ in asked} == {0, 1, 2, 7}
    asked.clear()
    assert get(learning_rate=2e-4)["accuracy"] == 90 and asked == [(7, 2e-4)]
    asked.clear()
    for kind, model in [("states", "minilm"), ("fine-tune", "word counts"), ("drift", "tiny-gpt2")]:
        get(kind=kind, model=model)
    assert asked == [(7, None)] * 3
    get(learning_rate=(1.0, 2.0))
    assert {rate for _, rate in asked[3:]} == {1.0, 2.0}


def test_all_rates_are_among_the_asked_runs():
    asked = [json.loads(text) for _, text in asked_runs({"weight-decay": ["0.1, reviews"]})]
    for decay in (0.0, 0.1):
        own = [(s["seed"], s["learning_rate"]) for s in asked if s["weight_decay"] == decay]
        assert sorted(own) == [(seed, r) for seed in range(10) for r in sorted(RATES["tiny-gpt2"])]


def test_labels_on_a_line():
    line = {120: 60.0, 480: 66.0, 1920: 72.0}                     # three points a doubling
    assert labels_for(line, 66) == pytest.approx(np.log2(480))
    assert labels_for(line, 78) == pytest.approx(np.log2(7680))   # also beyond the ends
    accuracy = {"tiny-gpt2": {120: 66.0}, "word counts": line}
    def get(model="tiny-gpt2", rows=0, **settings): return {"accuracy": accuracy[model][rows]}
    effect = CLAIMS["pretraining-helps"].effects["tiny-gpt2 against word counts, reviews"]
    assert arms(effect(get))[0] == pytest.approx(2)


def test_the_winner_on_one_half_was_lucky():
    "Ten runs that are equally good: the best on one half is usual on the other."
    rng = np.random.default_rng(0)
    odds = {json.dumps(one): np.where(rng.random(1536) < 0.7, 1.0, -1) for one in SWEEP}
    winner, usual = winners_luck(lambda **one: {"odds": odds[json.dumps(one)]})
    assert len(SWEEP) == 10 and abs(usual) < 0.1
    sd = 100 * (0.7 * 0.3 / 768) ** 0.5
    assert -2.5 * sd < winner < -sd    # expected: 1.54 standard deviations up, then back to usual


@pytest.mark.slow
def test_the_shipped_ledger_is_what_its_runs_say():
    ledger = pd.read_csv(shipped("claims.csv"))
    runs = Runs(shipped("none"))
    assert list(ledger) == COLUMNS and not ledger.duplicated(["claim", "condition"]).any()
    lines = list(zip(ledger["claim"], ledger["condition"]))
    assert lines == [(name, condition) for name, claim in CLAIMS.items()
                     for condition in claim.effects if (name, condition) in lines]
    wanted = [CLAIMS[name].of(condition).seeds for name, condition in lines]
    assert ledger["seeds"].between(2, wanted).all()
    assert ledger["seeds"].tolist() == [len(numbers(v)) for v in ledger["values"]]
    start = time.monotonic()
    assert check_claims(ledger, runs) == [] == stale(runs)
    assert time.monotonic() - start < 60
    assert shipped(PACKED).stat().st_size < 3e6
    two = [isinstance(arms_of(line), tuple) for _, line in ledger.iterrows()]
    assert ledger.loc[two, ["first", "second"]].notna().all(axis=None)
    gap = (ledger["first"] - ledger["second"] - ledger["effect"])[two]
    assert gap.abs().max() < 2e-3


def arms_of(line):
    "What the effect of a line returns, a number or a pair of them."
    def get(*args, **settings):
        return module.defaultdict(lambda: float(settings.get("rows", 480)), odds=np.ones(4))
    return CLAIMS[line["claim"]].effects[line["condition"]](get)


@pytest.fixture
def own_ledger(tmp_path):
    for name in ("claims.csv", PACKED): shutil.copy(shipped(name), tmp_path)
    return tmp_path


def checked(folder): return CliRunner().invoke(app, ["claims", "--check", "--out", str(folder)])


@pytest.mark.slow
@pytest.mark.parametrize("column, new", [
    ("effect", 9.0), ("values", "1 2 3 4 5"), ("word", "helps"), ("first", 99.0),
    ("verdict", "borne out"), ("q", 0.5)])
def test_a_changed_line_is_found(own_ledger, column, new):
    assert checked(own_ledger).exit_code == 0
    ledger = pd.read_csv(own_ledger / "claims.csv")
    line = ledger.query("condition == 'drop stop words, word counts'").index[0]
    ledger.loc[line, column] = new
    ledger.to_csv(own_ledger / "claims.csv", index=False)
    found = checked(own_ledger)
    assert found.exit_code == 1
    lines = found.stdout.strip().splitlines()
    assert f"cleaning, drop stop words, word counts: {column} is {new}" in lines[0]
    assert len(lines) == 1


@pytest.mark.slow
def test_a_claim_alone_loses_no_other_runs(own_ledger):
    "Those of other claims stay in the packed file, but not those that nothing asks for."
    before = unpacked(own_ledger / PACKED)
    odd = {**before[0], "key": "e" * 16, "settings": {**before[0]["settings"], "noise": 0.33}}
    Runs(own_ledger / "runs").keep(odd)
    run_claims(["cleaning:drop punctuation, word counts"], own_ledger, minutes=0, say=in_silence)
    assert unpacked(own_ledger / PACKED) == before
    assert checked(own_ledger).exit_code == 0


@pytest.mark.slow
def test_changed_predictions_are_found(own_ledger):
    runs = unpacked(own_ledger / PACKED)
    one = next(r for r in runs if r["settings"].get("noise") == 0.2
               and r["settings"]["model"] == "word counts" and r["settings"]["data"] == "reviews")
    answers = np.frombuffer(one["predictions"], np.int8).copy()
    answers[:50] = -1 - answers[:50]
    one["predictions"] = answers.tobytes()
    pack(runs, own_ledger / PACKED)
    found = checked(own_ledger)
    assert found.exit_code == 1
    assert "data-quality, 20% of the labels wrong, word counts: values is" in found.stdout
    pack([r for r in runs if r is not one], own_ledger / PACKED)
    assert "20% of the labels wrong, word counts: a run isn't kept" in checked(own_ledger).stdout


def test_conditions_are_chosen_by_a_part_of_their_name():
    assert conditions(["dropout"]) == {"dropout": list(CLAIMS["dropout"].effects)}
    assert conditions(["dropout:0.3"]) == {"dropout": ["0.3, reviews"]}
    assert conditions(CLAIMS) == {name: list(claim.effects) for name, claim in CLAIMS.items()}
    large = conditions([":smollm2"])
    assert "few-shot" in large and "dropout" not in large
    assert all("smollm2" in condition for own in large.values() for condition in own)
    for bad in ("dropout:no such thing", "no-such-claim:smollm2"):
        with pytest.raises(InputError): conditions([bad])


def test_new_lines_leave_the_others_as_they_are():
    ledger = pd.read_csv(shipped("claims.csv"))
    pd.testing.assert_frame_equal(merged(ledger, ledger), ledger)
    name = "dropout"
    one, two, *others = CLAIMS[name].effects
    def lines(*values): return judged(pd.DataFrame(ledger_rows(name, {
        one: [(v, 80 + v, 80.0) for v in values]})))
    ledger = merged(ledger, lines(1.0, 2.0, 3.0, 1.0, 2.0))
    left = ledger[(ledger["claim"] != name) | (ledger["condition"] != two)]
    both = merged(left, lines(5.0, 6.0, 7.0, 5.0, 6.0))
    assert both["condition"].tolist() == left["condition"].tolist()
    mine = both.query("claim == @name")
    assert mine["values"].iloc[0] == "5 6 7 5 6"
    assert mine["verdict"].nunique() == 1 and one in mine["verdict"].iloc[0]
    same = ["effect", "low", "high", "values", "word"]
    old = ledger[(ledger["claim"] != name) | ledger["condition"].isin(others)]
    kept = both[(both["claim"] != name) | both["condition"].isin(others)]
    pd.testing.assert_frame_equal(kept[same].reset_index(drop=True),
                                  old[same].reset_index(drop=True))
    fewer = merged(ledger, lines(5.0, 6.0, 7.0))                  # three seeds replace no five
    pd.testing.assert_frame_equal(fewer, ledger)


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
        "joint": ("joint", "separate"),
        "corpus": ("accuracy",),
        "drift": ("false_alarms", *(f"{c}: ahead" for c in DRIFTS)),
        "skew": ("accuracy", "gap", "changed", "equalised_odds"),
        "attacks": ("never", "once", "ten times", "false alarms", "by loss", "by reference",
                    "loss"),
    }
    changes = set(module.altered.__code__.co_varnames) - {"network", "seed", "tables", "table"}
    def get(further=0, kind="fine-tune", **settings):
        assert set(settings) <= taken[kind]
        points = float(settings.get("rows", 480)) ** 0.5
        if kind in measured: return dict.fromkeys(measured[kind], points)
        assert settings.get("step") in {None, *STEPS}
        assert settings.get("lr_scheduler_type", "linear") in SCHEDULES
        assert set(settings.get("change", {})) <= changes
        names = """
            accuracy balanced_accuracy ece tempered_ece negation loss train_loss validation_loss
            lowest_loss steps tokens temperature
        """.split()
        found = {**dict.fromkeys(names, points), "odds": np.ones(10)}
        if settings.get("flips"): found |= {f"flips: {k}": 0.1 for k in module.CHANGES}
        return found
    for condition, effect in CLAIMS[name].effects.items():
        own = CLAIMS[name].of(condition)
        assert np.isfinite(arms(effect(get))[0]) and own.worth > 0 and own.seeds >= 5
        assert set(own.expects) <= {"helps", "harms", "negligible"}
    assert set(CLAIMS[name].special) <= set(CLAIMS[name].effects)


def test_rows_of_a_run():
    parts = draw(3, rows=200, noise=0.25, step="drop stop words")
    assert len(parts["train"]) == 200 and parts["train"].column_names == ["text", "label", "slice"]
    clean = draw(3, rows=200)
    labels, true = (np.array(p["train"]["label"][:]) for p in (parts, clean))
    assert (labels != true).sum() == 50
    assert parts["test"]["label"][:] == clean["test"]["label"][:]
    assert not any(" not " in t for t in parts["test"]["text"])
    few = draw(3, rows=200, test_rows=40)
    assert [few[part].num_rows for part in ("train", "validation", "test")] == [200, 10, 40]
    assert set(few["test"]["text"]) <= set(clean["test"]["text"])
    assert few["train"]["text"][:] == clean["train"]["text"][:]
    assert 10 < sum(few["test"]["label"][:]) < 30          # not one class after the other


def test_runs_of_the_other_kinds(monkeypatch):
    "Each gives the numbers that its chapter's function gives, in points, the same twice."
    small = draw(1, rows=40)
    small["test"] = small["test"].select(range(60))
    monkeypatch.setattr(module, "draw", lambda seed, rows, test_rows=None: small)
    asked = module.prompt_once(1, rows=40, shots=2)
    assert 20 < asked["accuracy"] < 90
    assert 20 < asked["calibrated"] < 90
    kept = asked.pop("predictions")
    again = module.prompt_once(1, rows=40, shots=2)
    assert (again.pop("predictions") == kept).all() and again == asked
    network, tokenizer = load("tiny-gpt2", "text-generation")
    chapters = prompt_accuracy(network, tokenizer, small, 2, 1, part="test")
    for name in ("accuracy", "calibrated"): assert asked[name] == 100 * chapters[name]
    assert asked["examples"] == chapters["examples"]
    assert module.prompt_once(1, rows=40)["accuracy"] != asked["accuracy"]
    gpt, bert = (
        module.next_word_once(1, model=m)["loss"] / 100 for m in ("tiny-gpt2", "tiny-bert")
    )
    assert 2 < gpt < np.log(8192) and 2 < bert < np.log(8192) and gpt != bert


@pytest.mark.parametrize("beside, classes", [("kind", {"negation", "mixed"}), ("news", {"sports"})])
def test_two_tasks_share_a_body(beside, classes, monkeypatch):
    "The second task has its own classes, and none of its texts is among the test rows."
    seen = {}
    def joint_and_separate(train, **settings):
        seen.update(train)
        model = load("tiny-gpt2", labels=["negative", "positive"])[0]
        return {way: {"reviews": model} for way in ("joint", "separate")}
    monkeypatch.setattr(module, "joint_and_separate", joint_and_separate)
    found = module.joint_once(1, rows=16, beside=beside, beside_rows=24)
    assert [len(seen[task]) for task in ("reviews", beside)] == [16, 24]
    assert classes <= set(seen[beside].features["labels"].names)
    assert found["joint"] == found["separate"] == 100 * (found["predictions"][:1536] >= 0).mean()
    known = {tuple(ids) for task in seen for ids in seen[task]["input_ids"]}
    tokens = module.tokenize(draw(1), load("tiny-gpt2")[1])["test"]
    assert not known & {tuple(ids) for ids in tokens["input_ids"]}


def test_a_head_on_frozen_states(monkeypatch):
    "What is learnt is logistic regression on what the frozen model makes of the texts."
    rng = np.random.default_rng(0)
    table, _ = module.all_rows("reviews")
    labels = dict(zip(table["text"][:], table["label"][:]))
    states = {text: np.r_[rng.normal(size=3), 4.0 * y] for text, y in labels.items()}
    monkeypatch.setattr(module, "states_of", lambda *asked: states)
    assert module.states_once(1, rows=100)["accuracy"] > 95
    assert module.states_once(1, rows=100, noise=0.5)["accuracy"] < 95


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
    change = {"frozen_layers": 1, "kept_layers": 2, "embeddings": True, "dropout": 0.1}
    training = dict(epochs=1, patience=1, learning_rate=1e-3, change=change)
    found, again = (run_once(1, rows=64, positive=0.2, flips=True, **training) for _ in range(2))
    assert found["steps"] == 8
    assert np.isfinite([v for k, v in found.items() if k != "predictions"]).all()
    assert found["flips: upper case"] == 0
    assert (found.pop("predictions") == again.pop("predictions")).all()
    for run in (found, again): del run["seconds"]
    assert found == again


@pytest.fixture(scope="module")
def gpt(): return load("tiny-gpt2", "text-generation")


@pytest.mark.parametrize("row", range(6))
def test_a_completion_is_what_greedy_decoding_writes(gpt, row):
    "All tokens right, and only then: generate writes the rest; the likelihood is minus the loss."
    model, tokenizer = gpt
    texts = draw(0)["test"]["text"]
    start = torch.tensor(encode(tokenizer, [texts[row]]))[:, :12]
    written = model.generate(start, max_new_tokens=start.shape[1], do_sample=False,
                             eos_token_id=None)[0, 1:]
    for text in (texts[row], tokenizer.decode(written)):
        ids = torch.tensor(encode(tokenizer, [text]))
        half = ids.shape[1] // 2
        again = model.generate(ids[:, :half], max_new_tokens=ids.shape[1] - half, do_sample=False,
                               eos_token_id=None)
        found = continuation(model, tokenizer, text)
        assert found["exact"] == (again[0].tolist() == ids[0].tolist())
        assert found["exact"] == (found["right"] == 1)
        labels = ids.clone()
        labels[0, :half] = -100
        with torch.no_grad(): loss = model(ids, labels=labels).loss.item()
        assert found["log_likelihood"] == pytest.approx(-loss, abs=2e-3)
        assert found["tokens"] == ids.shape[1] - half


def test_sentences_of_a_source():
    assert spelt_alike("It's \"fine\", isn't it? Well-made (mostly).") == (
        "it's \" fine \" , isn't it ? well-made ( mostly ) .")
    for source in set(SOURCES) - {"rotten_tomatoes"}:
        texts = sentences(source)
        assert len(texts) == len(set(texts)) == SOURCES[source]
        assert all(12 <= len(t.split()) for t in texts)
    assert sentences("our reviews, spelt alike") == [*map(spelt_alike, sentences("our reviews"))]


def test_the_recorded_completions_are_whole():
    found = recorded("contamination")
    settings_ = [dict(zip(("source", "row"), r)) for r in found[["source", "row"]].to_numpy()]
    assert settings_ == RECORDS["contamination"][1]
    assert found["right"].between(0, 1).all() and (found["log_likelihood"] < 0).all()
    assert ((found["right"] == 1) == (found["exact"] == 1)).all()


@pytest.mark.skipif(not is_folder(cache_folder() / "smollm2"),
                    reason="smollm2 isn't downloaded: course download smollm2")
def test_completions_recorded_can_be_made_again():
    found = recorded("contamination").set_index(["source", "row"])
    for source in ("our reviews", "famous beginnings"):
        for row in range(3):
            new, old = contamination_once(source, row), found.loc[(source, row)]
            assert new["tokens"] == old["tokens"]
            assert new["right"] == pytest.approx(old["right"], abs=0.11)
            assert new["log_likelihood"] == pytest.approx(old["log_likelihood"], abs=0.05)


def test_a_stream_changes_slowly_and_holds_no_row_of_its_reference():
    rows = pd.DataFrame({"kind": ["usual"] * 400})
    tables = {"none": rows, "other": rows.assign(kind="other")}
    known, windows = module.stream_tables(tables, "other", 0)
    windows = list(windows)
    assert [len(w) for w in windows] == [100] * 20 and len(known) == 200
    assert [(w["kind"] == "other").sum() for w in windows] == [5 * i for i in range(1, 21)]
    assert not any(set(w.index) & set(known.index) for w in windows)
    assert module.cut_off("a b c d e f g h") == "a b c d e f"
    changed = module.misspelt("A splendid film")
    assert changed != "A splendid film" and sorted(changed) == sorted("A splendid film")
    assert changed == module.misspelt("A splendid film")


def test_monitoring_counts_texts_until_the_alarm(monkeypatch):
    "What looks different is seen before five points are lost; turned labels never are."
    rng = np.random.default_rng(0)
    usual = pd.DataFrame({"length": rng.poisson(30, 800), "right": np.arange(800) % 10 > 0})
    usual["place"] = [*rng.normal(size=(800, 3))]
    longer = usual.assign(length=usual["length"] * 3, right=np.arange(800) % 10 > 1)
    tables = {"none": usual, "longer": longer, "turned": usual.assign(right=~usual["right"])}
    monkeypatch.setattr(module, "fit", lambda *args, **settings: None)
    monkeypatch.setattr(module, "measured_streams", lambda *args: (tables, np.zeros((2, 3))))
    monkeypatch.setattr(module, "false_alarms", lambda *args: 0.5)
    found = module.drift_once(1, rows=40, streams=2)
    lost = {name: found[f"{name}: lost"] for name in ("longer", "turned")}
    assert lost == pytest.approx({"longer": 10, "turned": 80}) and found["false_alarms"] == 0.5
    assert 0 < found["longer: ahead"] <= 2000 * 5 / 10 - 200
    assert found["turned: ahead"] <= 2000 * 5 / 80 - 200
