"""Each metric against scikit-learn on random answers, ties and missing classes included; intervals;
pictures."""
import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.counting import COUNTERS, tfidf_baseline
from course_lib.data import fingerprint, load_data
from course_lib.errors import InputError
from course_lib.evaluation import (
    accuracy, baselines, bootstrap_interval, confusion_matrix, expected_calibration_error, macro_f1,
    majority_baseline, model_gain, open_test, plot_confusion, plot_reliability, plot_roc,
    reliability, roc_auc, roc_curve, score, wilson_interval, worst
)


@st.composite
def answers(draw):
    """Labels and probabilities, coarse enough for many ties, of 2 to 5 classes of which some may
    never occur."""
    classes, n = draw(st.integers(2, 5)), draw(st.integers(1, 40))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
    row = st.lists(st.integers(1, 4), min_size=classes, max_size=classes)
    z = np.array(draw(st.lists(row, min_size=n, max_size=n)), dtype=float)
    return labels, z / z.sum(-1, keepdims=True)


@settings(max_examples=150, deadline=None)
@given(answers())
def test_metrics_equal_scikit_learn(case):
    y, p = case
    hat = p.argmax(-1)
    assert math.isclose(accuracy(y, hat), sklearn.metrics.accuracy_score(y, hat))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isclose(
            macro_f1(y, hat), sklearn.metrics.f1_score(y, hat, average="macro", zero_division=0)
        )
    assert (
        confusion_matrix(y, hat, p.shape[1])
        == sklearn.metrics.confusion_matrix(y, hat, labels=range(p.shape[1]))
    ).all()
    areas = [
        sklearn.metrics.roc_auc_score(y == c, p[:, c])
        for c in ([1] if p.shape[1] == 2 else range(p.shape[1]))
        if 0 < (y == c).sum() < len(y)
    ]
    assert math.isclose(roc_auc(y, p), np.mean(areas)) if areas else math.isnan(roc_auc(y, p))


@settings(max_examples=100, deadline=None)
@given(answers())
def test_roc_curve_equals_scikit_learn(case):
    y, p = case
    if not 0 < (y == 1).sum() < len(y): return
    x, t = roc_curve(y == 1, p[:, 1])
    theirs = sklearn.metrics.roc_curve(y == 1, p[:, 1], drop_intermediate=False)
    assert np.allclose(x, theirs[0]) and np.allclose(t, theirs[1])


@settings(max_examples=150, deadline=None)
@given(answers())
def test_scores_lie_in_their_intervals(case):
    for name, m in score(*case).items():
        assert 0 <= m["low"] <= m["value"] + 1e-12 and m["value"] <= m["high"] + 1e-12, name
        assert m["high"] <= 1 and m["high"] - m["low"] > 0.005, f"{name}: no score is certain"


def test_wilson_equals_scipy_and_never_claims_certainty():
    for right, n in ((0, 1), (1, 1), (20, 20), (87, 100)):
        interval = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson_interval(right, n) == (interval.low, interval.high)
        assert interval.high - interval.low > 0.05


def test_bootstrap_agrees_with_scipy_and_has_its_coverage():
    rng = np.random.default_rng(0)
    sample = rng.normal(size=200)
    theirs = scipy.stats.bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=3000, rng=0
    ).confidence_interval
    assert np.allclose(bootstrap_interval(np.mean, sample, resamples=3000), theirs, atol=0.02)
    samples = rng.normal(size=(300, 100))
    intervals = [bootstrap_interval(np.mean, s, resamples=300) for s in samples]
    hits = sum(low <= 0 <= high for low, high in intervals)
    assert 0.90 <= hits / 300 <= 0.98


def test_macro_f1_needs_both_classes_where_accuracy_does_not():
    y, lazy = np.array([0] * 95 + [1] * 5), np.zeros(100, dtype=int)
    assert accuracy(y, lazy) == 0.95 and macro_f1(y, lazy) < 0.5


def test_calibration():
    y, p = np.array([1, 1, 1, 0]), np.tile([0.25, 0.75], (4, 1))
    assert math.isclose(expected_calibration_error(y, p), 0)
    assert reliability(y, p)["n"].tolist() == [4]
    assert math.isclose(expected_calibration_error(1 - y, p), 0.5)


def table(texts, labels, names):
    return Dataset.from_dict(
        {"text": texts, "label": labels},
        features=Features(text=Value("string"), label=ClassLabel(names=names)),
    )


def test_baselines_on_real_words_and_on_none():
    splits = load_data("reviews")
    truth = np.eye(2)[np.array(splits["validation"]["label"][:])]
    found = baselines(splits, splits["validation"], truth)
    scores = found["baselines"]
    assert set(scores) == {"majority", *COUNTERS} and "slices" not in found
    for who, s in scores.items():
        assert (
            s["model_gain"]["value"] == pytest.approx(1 - s["accuracy"]["value"])
            and s["model_gain"]["low"] > 0.05
        ), who
    assert scores["majority"]["accuracy"]["value"] == pytest.approx(0.5, abs=0.01)
    best = max(COUNTERS, key=lambda name: scores[name]["accuracy"]["value"])
    assert found["best_baseline"] == best == "naive_bayes_negation"
    assert 0.8 < scores[best]["accuracy"]["value"] < 0.95
    signs = table(["🙂", "🙁", "!!"], [1, 0, 0], ["sad", "glad", "never seen"])
    p = tfidf_baseline(signs, ["🙂", "?"])
    assert p.shape == (2, 3)
    assert p[0, 1] > p[1, 1]
    assert (p[:, 2] == 0).all()
    assert np.allclose(p.sum(1), 1)
    assert majority_baseline([3, 1], 2).tolist() == [[0.75, 0.25]] * 2


def test_scores_by_slice_add_up_to_the_whole():
    splits, rng = load_data("reviews"), np.random.default_rng(0)
    rows = splits["validation"].select(range(100))
    rows = rows.add_column("slice", ["a"] * 30 + ["b"] * 70)
    model = rng.dirichlet([1, 1], len(rows))
    found = baselines(splits, rows, model)
    best = found["baselines"][found["best_baseline"]]
    slices = found["slices"]
    assert {name: s["n"] for name, s in slices.items()} == {"a": 30, "b": 70}
    for kind, whole in ("baseline", best["accuracy"]), ("model_gain", best["model_gain"]):
        parts = sum(s["n"] * s[kind]["value"] for s in slices.values())
        assert parts / 100 == pytest.approx(whole["value"])


def test_the_gain_is_paired():
    "Two models that differ in few rows: each alone is known poorly, their difference well."
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    worse = np.where(rng.random(400) < 0.3, 1 - labels, labels)
    # a tenth of the mistakes mended
    better = np.where(np.cumsum(worse != labels) % 10 == 0, labels, worse)
    gain, own = (
        model_gain(labels, np.eye(2)[better], np.eye(2)[worse]),
        score(labels, np.eye(2)[better])["accuracy"],
    )
    assert gain["low"] > 0
    assert gain["value"] == pytest.approx(np.mean(better == labels) - np.mean(worse == labels))
    assert own["low"] < np.mean(
        worse == labels
    ), "the two intervals overlap, and yet the better one is better"
    nothing = model_gain(labels, np.eye(2)[worse], np.eye(2)[worse])
    assert nothing["value"] == 0 and 0 < nothing["high"] < 0.02
    assert nothing["low"] == pytest.approx(-nothing["high"])


def test_the_test_part_has_one_door():
    splits, recipe = load_data("reviews"), {}
    name, rows = open_test(splits, recipe)
    assert name == "test"
    written = {"split": "test", "fingerprint": fingerprint(rows), "rows": len(rows)}
    assert {k: recipe["opened"][0][k] for k in written} == written
    open_test(splits, recipe)
    assert len(recipe["opened"]) == 2, "each opening is written down"
    with pytest.raises(InputError, match="have changed"):
        open_test(splits, {"fingerprints": {"test": "0" * 16}})
    splits.pop("test")
    assert open_test(splits, {})[0] == "validation"


def test_worst_first():
    rows = table(["a", "b", "c"], [0, 1, 0], ["n", "p"])
    found = worst(rows, np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]]), 2)
    assert found["text"].tolist() == ["b", "c"]
    assert found["probability of the truth"].tolist() == [0.2, 0.4]
    assert found["answer"].tolist() == ["n", "p"]


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_pictures_have_labels_for_any_number_of_classes(classes):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 60)
    p = rng.dirichlet(np.ones(classes), 60)
    names = [f"class number {i} with a long name" for i in range(classes)]
    confusion = plot_confusion(y, p.argmax(-1), names)
    for fig in (confusion, plot_roc(y, p, names), plot_reliability(y, p)):
        ax = fig.axes[0]
        assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title()
