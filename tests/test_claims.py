"""An experiment can be cut off at any run and goes on; verdicts follow from intervals; the shipped
ledger follows from its own numbers; a completion is what greedy decoding writes."""
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import ttest_1samp

import course_lib.claims as module
from course_lib.claims import (
    CLAIMS, RECORDS, SOURCES, STEPS, Claim, conditions, contamination_once, continuation, decide,
    draw, gain, interval, ledger_rows, merged, run_claims, run_once, sentences, spelt_alike, verdict
)
from course_lib.download import cache_folder
from course_lib.errors import InputError
from course_lib.files import is_folder, shipped
from course_lib.models import load
from course_lib.optim import SCHEDULES
from course_lib.prompting import encode
from course_lib.records import recorded

DRIFTS = ("cut off", "misspelt", "negations", "turned")
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
    part = run_claims(["toy:and"], tmp_path / "part", minutes=1e6, say=lambda line: None)
    assert part["condition"].tolist() == ["0.1 and 0.3"]
    assert part["values"].tolist() == [whole["values"][1]]


def test_conditions_are_chosen_by_a_part_of_their_name():
    assert conditions(["dropout"]) == {"dropout": list(CLAIMS["dropout"].effects)}
    assert conditions(["dropout:0.1, 256"]) == {"dropout": ["0.1, 256 rows"]}
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
    new = pd.DataFrame(ledger_rows(name, {one: [5.0, 6.0, 7.0]}))
    both = merged(ledger[ledger["condition"] != two], new)
    assert both["condition"].tolist() == [c for c in ledger["condition"] if c != two]
    mine = both.query("claim == @name")
    assert mine["values"].iloc[0] == "5 6 7"
    assert mine["verdict"].nunique() == 1 and one in mine["verdict"].iloc[0]
    same = ["effect", "low", "high", "values", "condition_verdict"]
    old = ledger[(ledger["claim"] != name) | ledger["condition"].isin(others)]
    kept = both[(both["claim"] != name) | both["condition"].isin(others)]
    pd.testing.assert_frame_equal(kept[same].reset_index(drop=True),
                                  old[same].reset_index(drop=True))


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
        "drift": ("false_alarms", *(f"{c}: ahead" for c in DRIFTS)),
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
