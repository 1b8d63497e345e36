"Fairness: swapped persons, corrected p-values, rates by group, and what mends them."
import itertools

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from fairlearn.metrics import (
    demographic_parity_difference, equal_opportunity_difference, equalized_odds_difference)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from course_lib.fairness import (
    FEATURES, OPENINGS, OTHER, PAIRS, PEOPLE, RECORDS, ROLES, TEMPLATES, WAYS, balance_weights,
    counterfactuals, drawn_anew, fair_thresholds, group_rates, holm, mention, over_seeds,
    permutation_p, rate_gaps, score_gaps, swapped, with_swapped)
from course_lib.records import recorded

REFERENCES = (demographic_parity_difference, equal_opportunity_difference,
              equalized_odds_difference)


def rows_of(n=200, positive=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < positive).astype(int).tolist()
    return Dataset.from_dict({"text": [f"It was film {i}." for i in range(n)], "label": labels})


def test_counterfactuals_differ_in_the_person_alone():
    table = counterfactuals()
    assert not table["text"].str.contains(r"[{}]").any() and table["text"].is_unique
    assert (table["text"].str[0] == table["text"].str[0].str.upper()).all()
    for attribute, groups in PEOPLE.items():
        assert {len(people) for people in groups.values()} == {len(ROLES)}
        for own in table[table["attribute"] == attribute].groupby(["phrase", "template"]):
            template = TEMPLATES[own[1]["template"].iloc[0]]
            before, after = template.split("{}")
            for text, group in zip(own[1]["text"], own[1]["group"]):
                person = groups[group][own[1]["phrase"].iloc[0]]
                assert text.lower() == f"{before}{person}{after}".lower()
    sizes = table.groupby("attribute")["group"].nunique()
    assert sizes["gender"] == 2 and sizes["religion"] == 4


def test_a_gap_is_that_of_persons_against_the_others():
    table = counterfactuals()
    rng = np.random.default_rng(0)
    table["score"] = rng.normal(size=len(table))
    found = score_gaps(table).set_index(["attribute", "group"])
    own = table[table["attribute"] == "religion"]
    means = own.groupby(["group", "phrase"])["score"].mean().unstack()
    others = means.drop("Muslim").mean()
    gaps, listed = means.loc["Muslim"] - others, found.loc[("religion", "Muslim")]
    assert np.isclose(listed["gap"], gaps.mean())
    assert np.isclose(listed["p"], ttest_1samp(gaps, 0).pvalue)
    assert ("gender", "women") in found.index and ("gender", "men") not in found.index
    table.loc[table["group"] == "women", "score"] -= 5
    moved = score_gaps(table).set_index(["attribute", "group"])
    assert np.isclose(moved.loc[("gender", "women"), "gap"],
                      found.loc[("gender", "women"), "gap"] - 5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_bonferroni_on_every_set(p):
    p, worst = np.array(p), np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for own in map(list, itertools.combinations(range(len(p)), size)):
            worst[own] = np.maximum(worst[own], min(1, size * p[own].min()))
    assert np.allclose(holm(p), worst)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 5), st.integers(0, 99))
def test_rates_are_those_of_fairlearn(groups, seed):
    rng = np.random.default_rng(seed)
    labels, answers = rng.integers(0, 2, (2, 120))
    group = rng.integers(0, groups, 120)
    theirs = [f(labels, answers, sensitive_features=group) for f in REFERENCES]
    assert np.allclose(list(rate_gaps(labels, answers, group).values()), theirs)
    assert group_rates(labels, answers, group)["n"].sum() == 120


def test_a_planted_gap_is_found_and_none_is_not():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, (2, 400))
    right = rng.random(400) < 0.9
    fair = np.where(right, labels, 1 - labels)
    unfair = np.where((groups == 1) & (rng.random(400) < 0.3), 1, fair)
    assert permutation_p(labels, fair, groups) > 0.05
    assert permutation_p(labels, unfair, groups) < 0.01
    assert permutation_p(labels, unfair, groups) == permutation_p(labels, unfair, groups)
    assert permutation_p(labels, unfair, groups + 7) == permutation_p(labels, unfair, groups)


def test_no_positive_row_in_a_group_is_no_gap_of_its_own():
    labels = np.array([1, 1, 0, 0, 0, 0])
    groups = np.array([0, 0, 0, 1, 1, 1])
    assert 0 < permutation_p(labels, np.array([1, 0, 0, 1, 0, 0]), groups, draws=19) <= 1


@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_the_planted_skew_is_as_large_as_stated(share):
    rows = mention(rows_of(2000), share)
    labels, groups = np.array(rows["label"]), np.array(rows["group"])
    for label, wanted in (1, share), (0, 1 - share):
        own = groups[labels == label]
        assert abs(own.mean() - wanted) <= 4 * np.sqrt(share * (1 - share) / len(own))
    for text, group in zip(rows["text"], groups):
        words = set(text.split(".")[0].split())
        assert words & {pair[group] for pair in PAIRS} and text.endswith(".")
        assert not words & {pair[1 - group] for pair in PAIRS}


def test_swapping_twice_changes_nothing_and_once_only_the_person():
    rows = mention(rows_of(300), 0.7)
    other = swapped(rows)
    assert swapped(other)[:] == rows[:] and rows.features == FEATURES
    for one, two in zip(rows["text"], other["text"]):
        pairs = [(a, b) for a, b in zip(one.split(), two.split()) if a != b]
        assert len(pairs) == 1 and OTHER[pairs[0][0].strip(".")] == pairs[0][1].strip(".")
    assert all(a != b for a, b in zip(rows["group"], other["group"]))


def test_every_opening_names_one_person_and_ends_there():
    assert all(opening.count("{}") == 1 and opening.count(".") == 1 for opening in OPENINGS)
    assert len(OTHER) == 2 * len(PAIRS)


def test_remedies_make_group_and_label_independent():
    rows = mention(rows_of(1000, positive=0.3), 0.8)
    both = with_swapped(rows)
    labels, groups = np.array(both["label"]), np.array(both["group"])
    assert len(both) == 2 * len(rows)
    assert groups[labels == 1].mean() == groups[labels == 0].mean() == 0.5
    labels, groups = np.array(rows["label"]), np.array(rows["group"])
    weights = balance_weights(labels, groups)
    shares = pd.DataFrame({"y": labels, "g": groups, "w": weights}).pivot_table(
        "w", "y", "g", "sum").to_numpy() / len(labels)
    assert np.allclose(shares, np.outer(shares.sum(1), shares.sum(0)))
    assert np.isclose(weights.mean(), 1) and (weights > 0).all()
    drawn = drawn_anew(rows)
    labels, groups = np.array(drawn["label"]), np.array(drawn["group"])
    assert len(drawn) == len(rows)
    assert abs(groups[labels == 1].mean() - groups[labels == 0].mean()) < 0.15


def test_thresholds_give_every_group_the_same_rate():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, (2, 4000))
    scores = 2 * labels - 1 + 1.5 * groups + rng.normal(size=4000)
    before = rate_gaps(labels, (scores > 0).astype(int), groups)
    cuts = fair_thresholds(scores, labels, groups)
    after = rate_gaps(labels, (scores > np.vectorize(cuts.get)(groups)).astype(int), groups)
    assert before["equal_opportunity"] > 0.1 and after["equal_opportunity"] < 0.01
    assert cuts[1] > cuts[0]


def test_the_record_is_that_of_the_code():
    runs = recorded("fairness")
    assert runs[["way", "seed"]].to_dict("records") == RECORDS["fairness"][1]
    assert set(runs["way"]) == set(WAYS) and runs["accuracy"].between(0.5, 1).all()
    summary = over_seeds(runs)
    wide = runs.pivot(index="seed", columns="way", values="gap")
    difference = wide["swapped too"] - wide["skewed"]
    ends = ttest_1samp(difference, 0).confidence_interval()
    row = summary.loc[("gap", "swapped too")]
    assert np.allclose(row[["difference", "low", "high"]].astype(float),
                       [difference.mean(), ends.low, ends.high])
    assert row["high"] < 0 and row["mean"] < 0.25 * summary.loc[("gap", "skewed"), "mean"]
