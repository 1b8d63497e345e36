"""Every score equal to its reference on random answers: ties, classes that never occur, one row,
all wrong."""
import math
import random

import numpy as np
import pytest
import sklearn.metrics as reference
import torch
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, chi2, norm

from course_lib.behaviour import CHANGES, by_group, denied, flip_rates, typo
from course_lib.comparison import (
    mcnemar, mcnemar_p, paired_difference, rows_needed
)
from course_lib.evaluation import (
    accuracy, accuracy_gain, auc_interval, bootstrap_interval, drawn_tables,
    expected_calibration_error, f1_interval, macro_f1, newcombe_interval, roc_auc, score, table_f1,
    wilson_interval
)
from course_lib.metrics import (
    average_precision, averaged, balanced_accuracy, brier_score, calibration_by_chance,
    class_report, coverage, fit_temperature, log_loss, perplexity, precision_recall_curve
)
from course_lib.runs import compare_verdict

CLASSES = 4
answers = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40
).map(lambda rows: tuple(np.array(rows).T))
scored = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40).map(
    lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 5)
)
quick = settings(max_examples=150, deadline=None)


@quick
@given(answers)
def test_reports_equal_scikit_learn(rows):
    labels, predictions = rows
    ours = class_report(labels, predictions, list("abcd"))
    theirs = reference.precision_recall_fscore_support(
        labels, predictions, labels=range(CLASSES), zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "support"), theirs):
        np.testing.assert_allclose(ours[name], values)
    for name in ("precision", "recall"):
        assert (ours[f"{name}_low"] <= ours[name] + 1e-9).all()
        assert (ours[name] <= ours[f"{name}_high"] + 1e-9).all()
    for average in ("micro", "macro", "weighted"):
        np.testing.assert_allclose(
            list(averaged(labels, predictions, average).values()),
            reference.precision_recall_fscore_support(
                labels, predictions, average=average, zero_division=0
            )[:3],
        )
    assert math.isclose(averaged(labels, predictions, "micro")["f1"], accuracy(labels, predictions))
    assert math.isclose(
        averaged(labels, predictions)["f1"], macro_f1(labels, predictions), abs_tol=1e-12
    )
    assert math.isclose(
        balanced_accuracy(labels, predictions),
        reference.recall_score(
            labels, predictions, labels=np.unique(labels), average="macro", zero_division=0
        ),
    )


@quick
@given(scored)
def test_curves_equal_scikit_learn(rows):
    positive, scores = rows
    if not positive.any():
        with pytest.raises(ValueError, match="no positive row"): average_precision(positive, scores)
        return
    assert math.isclose(
        average_precision(positive, scores), reference.average_precision_score(positive, scores),
        abs_tol=1e-12,
    )
    precision, recall = precision_recall_curve(positive, scores)
    assert recall[-1] == 1
    assert (np.diff(recall) >= 0).all()
    assert math.isclose(precision[-1], positive.mean())
    two = np.stack([1 - scores, scores], 1)
    if positive.all(): assert math.isnan(roc_auc(positive.astype(int), two))
    else:
        assert math.isclose(
            roc_auc(positive.astype(int), two), reference.roc_auc_score(positive, scores),
            abs_tol=1e-12,
        )


@quick
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 30))
def test_probability_scores_equal_their_references(seed, classes, n):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)
    assert math.isclose(
        log_loss(labels, probabilities),
        reference.log_loss(labels, probabilities, labels=range(classes)), rel_tol=1e-6,
    )
    by_torch = torch.nn.functional.nll_loss(
        torch.tensor(probabilities).log(), torch.tensor(labels)
    ).item()
    assert math.isclose(perplexity(labels, probabilities), math.exp(by_torch), rel_tol=1e-6)
    theirs = reference.brier_score_loss(
        labels, probabilities if classes > 2 else probabilities[:, 1], labels=range(classes)
    )
    assert math.isclose(brier_score(labels, probabilities), theirs, rel_tol=1e-9)


def test_defined_values_at_the_edges():
    one = np.array([0])
    assert log_loss(one, np.array([[0.0, 1.0]])) == math.inf
    assert brier_score(one, np.array([[0.0, 1.0]])) == 1
    with pytest.raises(ValueError, match="macro"): averaged(one, one, "mean")
    assert class_report(one, one, ["a", "b"]).loc["b"].tolist()[:4] == [0, 0, 0, 0]


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_intervals_keep_their_word(n):
    """Between 93 and 97 of 100 samples have the truth in their 95 % interval; the bounds leave room
    for the luck of 600 samples."""
    population = np.array([[0.40, 0.10], [0.06, 0.44]])
    f1 = float(np.mean(2 * population.diagonal() / (population.sum(0) + population.sum(1))))
    wilson = coverage(
        lambda y, p: wilson_interval(int((y == p).sum()), n), population, 0.84, n, 600
    )
    bootstrap = coverage(
        lambda y, p: bootstrap_interval(macro_f1, y, p, resamples=200), population, f1, n, 600
    )
    assert 0.92 < wilson < 0.985 and 0.92 < bootstrap < 0.975


def test_schoolbook_interval_would_fail_that_test():
    easy = np.array([[0.49, 0.01], [0.01, 0.49]])

    def normal(y, p):
        share = accuracy(y, p)
        half = 1.96 * (share * (1 - share) / 50) ** 0.5
        return share - half, share + half

    assert coverage(normal, easy, 0.98, 50, 600) < 0.8


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 4))
def test_temperature_is_found_again(seed, temperature):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    labels = (rng.random((3000, 1)) > chances.cumsum(-1)).sum(-1).clip(0, 2)
    assert abs(math.log(fit_temperature(labels, logits * temperature) / temperature)) < 0.25


@quick
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 100))
def test_mcnemar(b, c, both):
    first = np.r_[np.ones(b, bool), np.zeros(c, bool), np.ones(both + 1, bool)]
    second = np.r_[np.zeros(b, bool), np.ones(c, bool), np.ones(both + 1, bool)]
    found, turned = mcnemar(first, second), mcnemar(second, first)
    assert (found["only_first"], found["only_second"]) == (b, c)
    for name in ("p_value", "mid_p"):
        assert math.isclose(found[name], turned[name])
        assert 0 < found[name] <= 1 + 1e-12
    if b + c: assert math.isclose(found["p_value"], binomtest(b, b + c).pvalue, rel_tol=1e-9)
    split = math.comb(b + c, b) / 2 ** (b + c)
    assert math.isclose(found["mid_p"], found["p_value"] - (split if b != c else 0), abs_tol=1e-12)
    approximation = chi2.sf((abs(b - c) - 1) ** 2 / max(b + c, 1), 1)
    if b == c: assert found["p_value"] == 1
    elif b + c > 50: assert abs(found["p_value"] - approximation) < 0.03


def test_paired_difference():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    first = np.where(rng.random(400) < 0.9, labels, 1 - labels)
    second = np.where(rng.random(400) < 0.8, labels, 1 - labels)
    found = paired_difference(accuracy, labels, first, second)
    assert found["low"] < found["value"] < found["high"]
    assert math.isclose(found["value"], accuracy(labels, first) - accuracy(labels, second))
    same = paired_difference(macro_f1, labels, first, first)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_mid_p_of_a_published_table():
    """Bentur et al. 2009, as in Fagerland et al. 2013: exact 0.070, mid-p 0.039."""
    exact, mid_p = mcnemar_p(1, 7)
    assert math.isclose(exact, 18 / 256) and math.isclose(mid_p, 10 / 256)


@pytest.mark.parametrize("difference, disagreement", [(0.02, 0.1), (0.05, 0.2), (0.1, 0.15)])
def test_the_planned_number_of_rows_finds_the_difference(difference, disagreement):
    rng, n = np.random.default_rng(0), rows_needed(difference, disagreement)
    one, other = (disagreement + difference) / 2, (disagreement - difference) / 2

    def powers(rows, by=(one, other)):
        x, y, _ = rng.multinomial(rows, [*by, 1 - disagreement], size=20_000).T
        return [np.mean(p < 0.05) for p in mcnemar_p(x, y)]

    exact, mid_p = powers(n)
    assert 0.79 < mid_p < 0.85 and 0.75 < exact < 0.79
    assert powers(n + math.ceil(2 / difference))[0] > 0.79
    assert powers(n, (disagreement / 2, disagreement / 2))[1] < 0.055
    with pytest.raises(ValueError): rows_needed(0.2, 0.1)


def right_answers(only_first, only_second, n):
    row = np.arange(n)
    return row >= only_second, (row < only_second) | (row >= only_first + only_second)


def score_distance(b, c, n, d):
    """Tango's statistic at a difference d; the share of the second alone by brute force."""
    low, high = max(0.0, -d), (1 - d) / 2      # neither share below 0, both together at most 1

    def cost(q):
        shares = np.maximum([q + d, q, 1 - d - 2 * q], 1e-300)
        return -np.dot([b, c, n - b - c], np.log(shares))

    q = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return abs(b - c - n * d) / math.sqrt(n * (2 * q + d * (1 - d)))


@pytest.mark.parametrize("b, c, n", [(1, 7, 21), (40, 20, 160), (0, 0, 90), (2, 0, 90), (0, 9, 9),
                                     (5, 0, 5), (3, 3, 40)])
def test_an_accuracy_gain_ends_where_the_score_statistic_is_1_96(b, c, n):
    found, low, high = accuracy_gain(*right_answers(b, c, n))
    assert math.isclose(found, (b - c) / n) and low <= found <= high and low < high
    for end in (low, high):
        if abs(end) < 1: assert math.isclose(score_distance(b, c, n, end), 1.96, abs_tol=2e-3)
    turned = accuracy_gain(*right_answers(c, b, n))
    np.testing.assert_allclose(turned, (-found, -high, -low), atol=1e-9)
    if (b, c) == (1, 7):      # Fagerland et al. 2014, table V
        np.testing.assert_allclose((low, high), (-0.517, -0.026), atol=5e-4)


@pytest.mark.parametrize("psi, d, n", [(0.02, 0.02, 90), (0.05, 0.03, 90), (0.2, 0.1, 200)])
def test_an_accuracy_gain_keeps_its_word(psi, d, n):
    better = (psi + d) / 2
    world = np.array([[0.1, psi - better], [better, 0.9 - psi]])
    held = coverage(lambda y, p: accuracy_gain(y == 1, p == 1)[1:], world, d, n, 1000)
    assert held > 0.925


def two_columns(scores):
    return np.stack([-scores, scores], 1)


@pytest.mark.parametrize("truth, n, share", [(0.98, 50, 0.5), (0.98, 120, 0.1), (0.8, 100, 0.5)])
def test_an_interval_of_the_area_keeps_its_word(truth, n, share):
    rng, held = np.random.default_rng(0), 0
    labels = (np.arange(n) < share * n).astype(int)
    for _ in range(600):
        scores = rng.normal(labels * math.sqrt(2) * norm.ppf(truth))
        low, high = auc_interval(labels, two_columns(scores))
        other_way = auc_interval(1 - labels, two_columns(scores))
        np.testing.assert_allclose(other_way, (1 - high, 1 - low), atol=1e-9)
        held += low <= truth <= high
    assert held / 600 > 0.93


def test_an_interval_of_the_area_at_the_edges():
    labels = np.repeat([1, 0], 20)
    low, high = auc_interval(labels, two_columns(labels))
    assert 0.85 < low < 0.92 and high == 1
    low, high = auc_interval(labels, two_columns(np.zeros(40)))      # all tied
    assert math.isclose(low, 1 - high, abs_tol=1e-9) and 0.3 < low < 0.35
    assert all(map(math.isnan, auc_interval(np.ones(9, int), two_columns(np.arange(9.0)))))


def three_classes(rng, n, shares, apart):
    labels = rng.choice(len(shares), size=n, p=shares)
    scores = np.exp(rng.normal(apart * np.eye(len(shares))[labels]))
    return labels, scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.45, 0.45, 0.1), (1 / 6,) * 6])
@pytest.mark.parametrize("apart", [1, 2.2, 3.2])
def test_an_interval_of_the_mean_area_keeps_its_word(shares, apart):
    rng = np.random.default_rng(0)
    truth = roc_auc(*three_classes(rng, 200_000, shares, apart))
    ends = np.array([auc_interval(*three_classes(rng, 80, shares, apart)) for _ in range(250)])
    assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) > 0.89
    assert ((0 <= ends) & (ends <= 1)).all()


def test_two_columns_of_probabilities_hold_one_area():
    """A third class that never occurs adds nothing: squared and added, the same area twice is that
    area."""
    labels, probabilities = three_classes(np.random.default_rng(0), 60, (0.5, 0.5), 1)
    never = np.c_[probabilities, np.zeros(60)]
    np.testing.assert_allclose(auc_interval(labels, never), auc_interval(labels, probabilities))
    area, n = roc_auc(labels, probabilities), int(labels.sum())
    assert auc_interval(labels, probabilities) == pytest.approx(newcombe_interval(area, n, 60 - n))


@quick
@given(answers)
def test_f1_of_a_table_and_its_interval(rows):
    labels, predictions = rows
    low, high = f1_interval(labels, predictions)
    if len(np.unique(np.r_[labels, predictions])) == 1: assert (low, high) == (0, 1)
    assert 0 <= low < high <= 1
    assert low - 1e-12 <= macro_f1(labels, predictions) <= high + 1e-12
    # classes that never occur, between or above, change nothing
    assert (low, high) == f1_interval(2 * labels + 1, 2 * predictions + 1)


def test_many_classes_are_drawn_in_parts():
    """Sixty classes have more cells than are held at once; the draws are the same in parts."""
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 60, (2, 900))
    counts = np.zeros((60, 60), int)
    np.add.at(counts, (labels, predictions), 1)
    whole = table_f1(drawn_tables(counts, 1000, 0))
    low, high = np.quantile(whole, [0.025, 0.975])
    value = macro_f1(labels, predictions)
    assert f1_interval(labels, predictions) == (min(low, value), max(high, value))


def test_tables_are_drawn_around_the_counts():
    counts = np.array([[30, 4, 1], [2, 40, 3], [0, 1, 19]])
    tables = drawn_tables(counts, draws=20_000)
    added = counts + np.full((3, 3), 1 / 6) + np.eye(3) / 3
    np.testing.assert_allclose(tables.mean(0), added / added.sum(), atol=1e-3)
    np.testing.assert_allclose(tables.sum((1, 2)), 1)
    labels, predictions = (np.repeat(x, counts.ravel()) for x in np.indices((3, 3)).reshape(2, 9))
    assert math.isclose(table_f1(counts), macro_f1(labels, predictions))


RARE = np.array([[0.07, 0.03], [0.045, 0.855]])
FIVE = (0.8 * np.eye(5) + 0.05 * (1 - np.eye(5))) / 5


@pytest.mark.parametrize("world, n", [(RARE, 30), (RARE, 120), (FIVE, 100),
                                      (np.array([[0.49, 0.01], [0.01, 0.49]]), 60)])
def test_an_interval_of_macro_f1_keeps_its_word(world, n):
    held = coverage(f1_interval, world, float(table_f1(world)), n, 1000)
    assert 0.9 < held < 0.985


def reported_f1(labels, predictions):
    found = score(labels, np.eye(2)[predictions])["macro_f1"]
    return found["low"], found["high"]


def bootstrapped_f1(labels, predictions):
    return bootstrap_interval(macro_f1, labels, predictions, resamples=200)


RARE_AND_CLEAR = np.array([[0.05, 0.002], [0.002, 0.946]])


@pytest.mark.parametrize("world, n, at_most", [(RARE, 30, 0.9), (RARE_AND_CLEAR, 60, 0.4),
                                               (RARE_AND_CLEAR, 120, 0.55)])
def test_a_report_keeps_its_word_on_a_rare_class_where_the_bootstrap_does_not(world, n, at_most):
    truth = float(table_f1(world))
    reported = coverage(reported_f1, world, truth, n, 400)
    bootstrapped = coverage(bootstrapped_f1, world, truth, n, 400)
    assert bootstrapped < at_most
    assert 0.89 < reported < 0.98
    assert abs(reported - 0.95) < abs(bootstrapped - 0.95)


def test_calibration_by_chance():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 300)
    mean, high = calibration_by_chance(probabilities)
    drawn = []
    for _ in range(200):
        labels = (rng.random((300, 1)) > probabilities.cumsum(1)).sum(1)
        drawn.append(expected_calibration_error(labels, probabilities))
    assert abs(np.mean(drawn) - mean) < 0.003 and abs(np.quantile(drawn, 0.95) - high) < 0.008
    assert calibration_by_chance(probabilities) == (mean, high)
    assert calibration_by_chance(np.eye(3)[[0, 1, 2]]) == (0, 0)      # sure and right: no luck


def test_groups():
    table = by_group(
        np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), ["x", "x", "y", "y", "z"]
    )
    assert list(table.index) == ["z", "x", "y"]
    assert table["accuracy"].tolist() == [0, 0.5, 1]
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()


@quick
@given(st.text(max_size=60), st.integers(0, 99))
def test_changes_take_any_text(text, seed):
    for change, expected in CHANGES.values():
        pair = change(text, random.Random(seed))
        assert expected in ("same", "other")
        assert pair is None or [type(p) for p in pair] == [str, str]
    pair = typo(text, random.Random(seed))
    assert pair is None or (
        pair[0] == text and sorted(pair[0]) == sorted(pair[1]) and pair[0] != pair[1]
    )


def test_flip_rates_of_models_that_are_known():
    texts = ["The plot is thin.", "I liked it.", "Good."]
    never = flip_rates(lambda t: np.tile([0.9, 0.1], (len(t), 1)), texts)
    assert (never["flips"] == 0).all() and never.loc["typo", "n"] == 2 and (never["high"] > 0).all()
    reads_not = flip_rates(
        lambda t: np.array([[0.0, 1.0] if "not" in x else [1.0, 0.0] for x in t]), texts
    )
    assert reads_not.loc["denied", "rate"] == 1 and reads_not.loc["typo", "rate"] == 0
    assert denied("I liked it.", random.Random(0))[1] == "It is not true that I liked it."
    assert denied("Good. It is thin.", random.Random(0)) is None


@pytest.mark.parametrize("n", (7, 10, 33, 400))
@pytest.mark.parametrize("first, second", ((1, 0), (3, 0), (0, 3), (5, 0), (2, 1), (0, 0)))
def test_a_verdict_for_any_counts(n, first, second):
    """Also when every row that differs speaks for the same run, where the difference in float
    arithmetic can exceed the disagreement."""
    # both right but for the last row
    a, b = np.arange(n) < n - 1, np.arange(n) < n - 1
    b[:first], a[first:first + second] = False, False
    low, high = np.percentile(
        [(a ^ b)[np.random.default_rng(i).integers(n, size=n)].mean() for i in range(200)],
        [2.5, 97.5],
    )
    difference = {"accuracy": {"value": a.mean() - b.mean(), "low": low, "high": high}}
    verdict = compare_verdict({"n": n, **mcnemar(a, b), "difference": difference})
    assert ("same number" in verdict) == (first == second) and verdict.endswith(".")
