"""Each statistic equals its reference; alarms are as rare as stated; no text is kept; whatever a
second model does, a request gets its answer."""
import json
import threading
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import chi2_contingency, ks_2samp, permutation_test
from transformers import BertConfig, BertForSequenceClassification

from course_lib.data import load_data
from course_lib.errors import InputError
from course_lib.evaluation import wilson_interval
from course_lib.models import load
from course_lib.fairness import holm
from course_lib.monitoring import (
    Canary, Monitor, Shadow, answer_numbers, as_result, compare_tables, confidence_sequence, drift,
    energy_drift, evidence_against, in_tenths, input_numbers, label_drift, labels_until_below,
    measure, number_drift, places, psi, random_map, reference, report_page, same_answer, spread,
    together, watch_file, windows_until_alarm)

quick = settings(max_examples=50, deadline=None)
CLASSES = ("negative", "positive")


@pytest.fixture(scope="module")
def gpt(): return load("tiny-gpt2", labels=list(CLASSES))


@pytest.fixture(scope="module")
def reviews(): return load_data("reviews")["validation"]["text"][:240]


def answers_to(texts, seed=0):
    "What a classifier might say."
    found = []
    for share in np.random.default_rng(seed).random(len(texts)):
        scores = dict(zip(CLASSES, (1 - share, share)))
        found.append({"label": CLASSES[int(share > 0.5)], "score": max(scores.values()),
                      "scores": scores})
    return [{"text": text, **answer} for text, answer in zip(texts, found)]


@pytest.fixture(scope="module")
def known(gpt, reviews):
    model, tokenizer = gpt
    return reference(reviews[:120], answers_to(reviews[:120]), tokenizer, model, placed=40)


# the statistics

def test_numbers_are_compared_as_scipy_does():
    rng = np.random.default_rng(0)
    old, new = rng.integers(5, 60, 200), rng.integers(5, 70, 45)
    theirs = ks_2samp(old, new)
    found = number_drift(old, new)
    assert found["statistic"] == pytest.approx(theirs.statistic)
    assert found["p_value"] == pytest.approx(theirs.pvalue)
    edges = np.quantile(old, np.arange(1, 10) / 10)
    bins = [-np.inf, *np.unique(edges), np.inf]
    theirs = [np.histogram(values, bins)[0] for values in (old, new)]
    np.testing.assert_array_equal(in_tenths(old, new), theirs)
    assert found["psi"] == pytest.approx(psi(*theirs))


def test_psi_is_its_formula_and_zero_for_equal_shares():
    p, q = np.array([20.5, 30.5]) / 51, np.array([10.5, 10.5]) / 21
    assert psi([20, 30], [10, 10]) == pytest.approx(sum((q - p) * np.log(q / p)))
    assert psi([5, 5], [5, 5]) == 0
    assert np.isfinite(psi([5, 0], [0, 5]))


def test_classes_are_compared_as_scipy_does():
    old, new = {"a": 100, "b": 80, "c": 60}, {"a": 40, "b": 20, "c": 40}
    theirs = chi2_contingency([[100, 80, 60], [40, 20, 40]])
    found = label_drift(old, new)
    assert found["statistic"] == pytest.approx(theirs.statistic)
    assert found["p_value"] == pytest.approx(theirs.pvalue)
    assert label_drift({"a": 100, "b": 100}, {"z": 50})["p_value"] < 1e-10
    assert label_drift({"a": 100}, {"a": 50})["p_value"] == 1


@quick
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), min_size=1, max_size=12))
def test_rare_classes_are_put_together(pairs):
    counts = np.array(pairs).T
    if 0 in counts.sum(1): return
    merged = together(counts)
    assert merged.sum(1).tolist() == counts.sum(1).tolist()
    expected = np.outer(merged.sum(1), merged.sum(0)) / merged.sum()
    assert merged.shape[1] == 1 or expected.min() >= 5 - 1e-9
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    if expected.min() >= 5: assert merged.shape == counts.shape


@pytest.mark.parametrize("shift", [0, 0.5])
def test_energy_distance_is_scipys_permutation_test(shift):
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=(25, 4)), rng.normal(shift, size=(15, 4))
    found = energy_drift(old, new)
    both = np.vstack([old, new])
    def energy(i, j):
        a, b = both[i], both[j]
        return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
    rows = np.arange(25), np.arange(25, 40)
    theirs = permutation_test(rows, energy, n_resamples=999, vectorized=False,
                              alternative="greater", rng=2)
    assert found["statistic"] == pytest.approx(theirs.statistic, abs=1e-5)
    assert found["p_value"] == pytest.approx(theirs.pvalue, abs=0.05)
    assert energy_drift(old, old[:1])["p_value"] > 0
    same = np.ones((10, 4))
    assert energy_drift(same, same[:3])["p_value"] == 1


@quick
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_its_definition(p_values):
    adjusted = holm(p_values)
    for rate in (0.01, 0.05, 0.2):
        rejected, left = set(), sorted(range(len(p_values)), key=lambda i: p_values[i])
        for rank, i in enumerate(left):
            if p_values[i] * (len(p_values) - rank) > rate: break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= rate} == rejected


# what is measured

def test_numbers_of_texts(gpt):
    tokenizer = gpt[1]
    texts = ["A joy, truly.", "Ärger überall", "x" * 40, "\n"]
    found = input_numbers(texts, tokenizer)
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    assert found["length"].tolist() == [len(i) for i in ids]
    assert found["tokens_per_character"][0] == len(ids[0]) / len(texts[0])
    pieces = [[p for p in tokenizer.convert_ids_to_tokens(i) if len(p) == 1 and p not in ",."]
              for i in ids]
    assert found["unknown"].tolist() == [len(p) / len(i) for p, i in zip(pieces, ids)]
    assert found["unknown"][0] == 0 < found["unknown"][1]


def test_answers_of_other_tasks_have_what_they_have():
    assert set(answer_numbers(answers_to(["a", "b"]))) == {"label", "confidence"}
    answer = {"question": "Who?", "answer": "Ada", "score": 0.5, "start": 1, "end": 3}
    none = {**answer, "answer": None}
    found = answer_numbers([answer, none])
    assert found["answer_length"].tolist() == [3, 0] and "label" not in found
    written = answer_numbers([{"text": "a text", "summary_text": "short"}])
    assert written.to_dict("list") == {"answer_length": [5]}
    words = {"text": "a", "words": ["a"], "tags": ["O"], "entities": []}
    assert answer_numbers([words]).empty and answer_numbers([]).empty


@pytest.mark.parametrize("name, task", [
    ("tiny-bert", "token-classification"), ("tiny-bert", "question-answering"),
    ("tiny-t5", "translation"), ("tiny-gpt2", "text-generation")])
def test_models_of_other_tasks_are_watched_too(name, task, reviews):
    model, tokenizer = load(name, task, ["O", "B-X"] if task.startswith("token") else None)
    answers = [{"text": t, "answer": t[:20]} for t in reviews[:60]]
    known = reference(reviews[:60], answers, tokenizer, model, placed=20)
    found = drift(known, reviews[60:90], answers[:30], tokenizer, model, placed=10)
    assert "label" not in found.index and {"answer_length", "place"} <= set(found.index)
    found = drift(known, reviews[60:90], [], tokenizer, model, placed=10)
    assert list(found.index) == ["length", "tokens_per_character", "unknown", "place"]


def test_places_do_not_depend_on_the_company(gpt, reviews):
    model, tokenizer = gpt
    directions = random_map(model)
    both = places(reviews[:20], tokenizer, model, directions)
    alone = places(reviews[7:8], tokenizer, model, directions)
    np.testing.assert_allclose(both[7], alone[0], atol=1e-5)
    table = measure(reviews[:20], [], tokenizer, model, directions, picked=[7])
    assert table["place"].notna().tolist() == [i == 7 for i in range(20)]
    assert spread(10, 3).tolist() == [0, 4, 9] and spread(2, 5).tolist() == [0, 1]


def test_a_reference_goes_through_json_and_holds_no_text(known, gpt, reviews):
    stored = json.dumps(known, allow_nan=False)
    assert json.loads(stored) == known
    assert not any(text[:12] in stored for text in reviews)
    model, tokenizer = gpt
    new = reviews[120:180]
    first = drift(known, new, answers_to(new), tokenizer, model)
    again = drift(json.loads(stored), new, answers_to(new), tokenizer, model)
    pd.testing.assert_frame_equal(first, again)
    with pytest.raises(InputError, match="too few to compare with"):
        reference(reviews[:29], [], tokenizer, model)


def test_windows_with_few_texts(known, gpt, reviews):
    model, tokenizer = gpt
    for n in (1, 2, 5):
        found = drift(known, reviews[-n:], answers_to(reviews[-n:]), tokenizer, model)
        assert found["p_value"].between(0, 1).all() and (found["n"] == n).all()
    with pytest.raises(InputError, match="there are none"): drift(known, [], [], tokenizer, model)
    with pytest.raises(InputError, match="give one for each"):
        drift(known, reviews[:3], answers_to(reviews[:2]), tokenizer, model)
    with pytest.raises(InputError, match="is no rate"):
        drift(known, reviews[:3], [], tokenizer, model, alarm_rate=1)


def test_a_reference_of_another_model_is_refused(known, gpt, reviews):
    shape = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    other = BertForSequenceClassification(BertConfig(vocab_size=8192, pad_token_id=1, **shape))
    with pytest.raises(InputError, match="make the reference with this model"):
        drift(known, reviews[:3], [], gpt[1], other.eval())


# how often, how soon

def invented(rng, n, shift=0.0): # measured texts
    table = pd.DataFrame({"length": rng.poisson(30 * (1 + shift), n), "unknown": rng.random(n) ** 3,
                          "tokens_per_character": rng.normal(0.25, 0.02, n),
                          "confidence": rng.beta(5, 2, n),
                          "label": rng.choice(CLASSES, n, p=[0.4, 0.6])})
    table["place"] = [*rng.normal(shift, 1, (n, 4))]
    return table


def known_of(table): # a reference, as `summary` makes it
    numbers = table.select_dtypes("number")
    return {"numbers": {c: numbers[c].tolist() for c in numbers}, "places": [*table["place"]],
            "labels": table["label"].value_counts().to_dict()}


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated():
    rng, alarms, n = np.random.default_rng(0), 0, 400
    for _ in range(n):
        old = known_of(invented(rng, 200))
        alarms += compare_tables(old, invented(rng, 50), alarm_rate=0.05)["alarm"].any()
    low, high = wilson_interval(int(alarms), n)
    assert low <= 0.05 and high < 0.1


def test_an_alarm_needs_two_windows_in_a_row():
    rng = np.random.default_rng(0)
    old = known_of(invented(rng, 200))
    def stream(shifts): return (invented(rng, 50, shift) for shift in shifts)
    assert windows_until_alarm(old, stream([0, 0, 1, 1, 1])) == 4
    assert windows_until_alarm(old, stream([1, 0, 1, 0, 1])) is None
    assert windows_until_alarm(old, stream([])) is None


def test_a_confidence_sequence_holds_at_all_times():
    rng = np.random.default_rng(0)
    for p in (0.5, 0.9):
        hits = np.cumsum(rng.random((1000, 300)) < p, axis=1)
        ever = (evidence_against(p, hits, np.arange(1, 301)) > np.log(20)).any(1)
        assert wilson_interval(int(ever.sum()), len(ever))[0] <= 0.05


@quick
@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from([0.01, 0.05, 0.2]))
def test_its_ends_are_where_the_evidence_is_too_much(right, wrong, error):
    n = right + wrong
    low, high = confidence_sequence(right, n, error)
    assert 0 <= low <= (right / n if n else 0.5) <= high <= 1
    for end in (low, high):
        if 0 < end < 1:
            assert evidence_against(end, right, n) == pytest.approx(-np.log(error), abs=1e-4)


def test_labels_are_counted_until_the_promise_is_broken():
    right = np.random.default_rng(0).random(500) < 0.5
    found = labels_until_below(right, 0.8)
    highs = [confidence_sequence(int(right[:n].sum()), n)[1] for n in range(1, 501)]
    assert found == next(n for n, high in enumerate(highs, 1) if high < 0.8)
    assert labels_until_below([True] * 100, 0.8) is None
    assert labels_until_below([], 0.8) is None


# the monitor

def test_a_monitor_gives_what_drift_gives(known, gpt, reviews, tmp_path):
    model, tokenizer = gpt
    log = tmp_path / "log.jsonl"
    watch = Monitor(known, tokenizer, model, window=30, out=log, placed=10)
    texts, answers = reviews[120:], answers_to(reviews[120:])
    for i in range(0, 75, 7): watch(texts[i:i + 7], answers[i:i + 7])
    assert watch.windows == 2 and watch.filled == 77 - 60
    for window, at in (0, 0), (1, 30):
        whole = drift(known, texts[at:at + 30], answers[at:at + 30], tokenizer, model, placed=10)
        features = watch.results[window]["features"]
        for name, row in whole.iterrows():
            assert features[name]["statistic"] == pytest.approx(row["statistic"], abs=1e-5)
            assert features[name]["n"] == row["n"]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == list(watch.results)
    assert not any(text[:12] in log.read_text() for text in texts)
    gauges = watch.gauges()
    assert gauges["drift_windows"] == 2 and gauges["drift_texts"] == 77
    assert all(isinstance(value, int | float) for value in gauges.values())
    assert gauges["drift_alarm"] == int(lines[-1]["alarm"])


def test_a_monitor_raises_an_alarm_and_takes_it_back(known, gpt, reviews):
    model, tokenizer = gpt
    watch = Monitor(known, tokenizer, model, window=20, placed=0)
    assert watch.gauges() == {"drift_windows": 0, "drift_texts": 0, "drift_seconds": 0.0}
    for texts in [reviews[:20], ["eins zwei " * 40] * 40, reviews[20:60]]: watch(texts, [])
    assert [r["alarm"] for r in watch.results] == [False, False, True, False, False]
    assert "place" not in watch.results[0]["features"]
    with pytest.raises(InputError, match="holds no text"): Monitor(known, tokenizer, model, 0)
    with pytest.raises(InputError, match="can't be written"):
        Monitor(known, tokenizer, model, out="/proc/none/log")


def test_the_page_has_no_outside_address_and_replaces_only_its_kind(tmp_path):
    rng = np.random.default_rng(0)
    found = compare_tables(known_of(invented(rng, 200)), invented(rng, 50, 1))
    page = tmp_path / "page.html"
    results = [as_result(found, 1, 50, False), as_result(found, 2, 50, True)]
    report_page(results, page)
    content = page.read_text()
    assert "http" not in content and 'alt="2 windows' in content and "alarms: 2." in content
    assert all(f"<th>{name.replace('_', ' ')}</th>" in content for name in found.index)
    with pytest.raises(InputError, match="is there already"): report_page(results, page)
    report_page(results[:1], page, force=True)
    assert 'alt="One window' in page.read_text()
    diary = tmp_path / "diary.html"
    diary.write_text("dear diary")
    with pytest.raises(InputError, match="is no page about drift"):
        report_page(results, diary, force=True)
    assert diary.read_text() == "dear diary"
    with pytest.raises(InputError, match="no whole window"): report_page([], tmp_path / "new")


def test_a_file_is_checked_before_a_model_is_loaded(tmp_path):
    with pytest.raises(InputError, match="is no run folder"): watch_file(tmp_path, "reviews")
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "model").mkdir()
    with pytest.raises(InputError, match="no such file"): watch_file(tmp_path, "none.txt")
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    with pytest.raises(InputError, match="would be lost"): watch_file(tmp_path, texts, out=texts)


# two models

class Toy:
    task = "text-classification"
    def __init__(self, answer, name="toy"): self.answer, self.name = answer, name


def says(label):
    return Toy(lambda texts: [{"text": t, "label": label, "score": 1.0} for t in texts])


def fails(texts): raise RuntimeError("no memory")


def poll(holds):
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        threading.Event().wait(0.002)


def test_same_answers():
    assert same_answer({"label": "a", "score": 0.6}, {"label": "a", "score": 0.9})
    assert not same_answer({"label": "a"}, {"label": "b"})
    assert same_answer({"answer": "x", "score": 1}, {"answer": "x", "score": 2})
    assert not same_answer({"answer": "x"}, {"answer": None})


def test_a_shadow_counts_and_answers_with_main():
    other = Toy(lambda texts: [{"label": "a" if len(t) < 3 else "b"} for t in texts])
    shadow = Shadow(says("a"), other)
    assert [a["label"] for a in shadow.answer(["x", "yy", "zzz", "u"])] == ["a"] * 4
    poll(lambda: shadow.counts["compared"] == 4)
    found = shadow.report()
    assert (found["agreed"], found["agreement"]) == (3, 0.75)
    assert (found["low"], found["high"]) == wilson_interval(3, 4)
    shadow.close()


@pytest.mark.parametrize("bad", [fails, lambda texts: [], lambda texts: None,
                                 lambda texts: [1] * len(texts)])
def test_a_shadow_that_fails_is_only_counted(bad):
    shadow = Shadow(says("a"), Toy(bad))
    for _ in range(3): assert shadow.answer(["x", "y"])[1]["label"] == "a"
    poll(lambda: shadow.counts["failed"] == 6)
    assert shadow.report()["agreement"] is None
    shadow.close()


def test_a_shadow_that_hangs_delays_nobody():
    free = threading.Event()
    def hang(texts):
        free.wait()
        return says("a").answer(texts)
    shadow = Shadow(says("a"), Toy(hang), waiting=2)
    for _ in range(10): assert len(shadow.answer(["x"])) == 1
    assert shadow.counts["dropped"] in (7, 8) and shadow.counts["compared"] == 0
    free.set()
    poll(lambda: shadow.counts["compared"] == 10 - shadow.counts["dropped"])
    shadow.close()


def test_two_models_do_the_same_task():
    other = says("a")
    other.task = "translation"
    for way in (Shadow, Canary):
        with pytest.raises(InputError, match="give two models for the same task"):
            way(says("a"), other)


TEXTS = [f"text number {i}" for i in range(3000)]


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_a_canary_gets_its_share_and_the_same_texts(share):
    canary = Canary(says("a"), says("a"), share)
    went = [canary.chosen(t) for t in TEXTS]
    low, high = wilson_interval(sum(went), len(went))
    assert low < share < high
    assert went == [Canary(says("b"), says("c"), share).chosen(t) for t in TEXTS]
    assert went != [Canary(says("a"), says("a"), share, seed=1).chosen(t) for t in TEXTS]
    assert all(Canary(says("a"), says("a"), 1).chosen(t) for t in TEXTS[:50])
    with pytest.raises(InputError, match="is no share"): Canary(says("a"), says("a"), 0)


def test_a_canary_answers_the_chosen_texts_in_their_places():
    canary = Canary(says("a"), says("b"), 0.3, most_differing=1)
    for i in range(0, 600, 7):
        texts = TEXTS[i:i + 7]
        found = canary.answer(texts)
        assert [a["label"] for a in found] == ["ab"[canary.chosen(t)] for t in texts]
        assert [a["text"] for a in found] == texts
    assert canary.counts["differing"] == canary.counts["texts"] > 0 and not canary.stopped


@pytest.mark.parametrize("bad", [fails, lambda texts: []])
def test_a_canary_that_fails_is_stopped_and_nobody_notices(bad):
    canary = Canary(says("a"), Toy(bad), 0.3)
    for i in range(0, 600, 6):
        assert [a["label"] for a in canary.answer(TEXTS[i:i + 6])] == ["a"] * 6
    assert "failed" in canary.stopped and canary.counts["calls"] < 20
    assert canary.counts["texts"] == 0


def test_a_canary_that_differs_is_stopped():
    canary = Canary(says("a"), says("b"), 0.5, most_differing=0.2)
    for i in range(0, 200, 5): canary.answer(TEXTS[i:i + 5])
    assert "differing" in canary.stopped and canary.counts["texts"] < 30
    assert {a["label"] for a in canary.answer(TEXTS[:100])} == {"a"}


def test_labels_stop_a_worse_model_and_no_better_one():
    worse, better = (Canary(says(x), says(y)) for x, y in ("ab", "ba"))
    for canary in (worse, better): canary.learn(TEXTS[:30], ["a"] * 30)
    assert "only_main" in worse.stopped and better.stopped is None
    assert better.counts["decided"] == 30 and better.counts["only_main"] == 0


def test_a_good_canary_is_rarely_stopped():
    rng, stopped, n = np.random.default_rng(0), 0, 200
    for _ in range(n):
        canary = Canary(says("a"), says("a"))
        for right in rng.random(60) < 0.5:
            canary.counts["decided"] += 1
            canary.counts["only_main"] += int(right)
            canary.judge()
        stopped += canary.stopped is not None
    assert wilson_interval(stopped, n)[0] <= 0.05
