"Fairness: swapped persons, corrected p-values, rates by group, and what mends them."
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from fairlearn.metrics import (
    demographic_parity_difference, equal_opportunity_difference, equalized_odds_difference)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp
from torch.nn.functional import cross_entropy

from course_lib.errors import InputError
from course_lib.evaluation import wilson_interval
from course_lib.fairness import (
    CROWS, FEATURES, OPENINGS, OTHER, PAIRS, PEOPLE, RECORDS, ROLES, TEMPLATES, WAYS,
    balance_weights, card_section, changed_answers, counterfactuals, crows_pairs, drawn_anew,
    fair_thresholds, group_rates, holm, language_model, mention, over_seeds, pair_defects,
    pair_scores, permutation_p, pseudo_log_likelihood, rate_gaps, score_gaps, shared_places,
    shares, stereotypes_once, swapped, wilson_of_clusters, winobias, with_swapped)
from course_lib.generation import behind_a_start
from course_lib.models import load
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


PAIRS_BY_HAND = [("age", "The film was long and good.", "The play was long and good."),
                 ("age", "She saw a film.", "She saw an old film today."),
                 ("gender", "It was good.", "It was bad.")]


@pytest.fixture
def hand_made(tmp_path, monkeypatch):
    "A folder as that of the real sets, with harmless pairs."
    table = pd.DataFrame(PAIRS_BY_HAND, columns=["bias_type", "sent_more", "sent_less"])
    table["annotations"] = [[["age"]] * 5, [["age"]] * 2 + [[]] * 3, [["gender"]] * 3 + [[]] * 2]
    (tmp_path / "crows_pairs").mkdir()
    table.to_csv(tmp_path / CROWS)
    (tmp_path / "winobias").mkdir()
    for kind, (side, who) in itertools.product((1, 2), (("pro", "he"), ("anti", "she"))):
        path = tmp_path / "winobias" / f"{side}_stereotyped_type{kind}.txt.dev"
        path.write_text(f"1 [The cook] said that [{who}] was late.\n")
    monkeypatch.setenv("COURSE_REAL_DATA", str(tmp_path))


def test_a_pseudo_log_likelihood_hides_one_token_at_a_time():
    model, tokenizer = language_model("tiny-bert")
    ids = tokenizer("The film was long and good.")["input_ids"]
    places, expected = [1, 3, 4], 0.0
    for place in places:
        hidden = torch.tensor([ids])
        hidden[0, place] = tokenizer.mask_token_id
        with torch.no_grad(): logits = model(input_ids=hidden).logits[0, place]
        expected -= cross_entropy(logits, torch.tensor(ids[place])).item()
    found = pseudo_log_likelihood(model, tokenizer, ids, places)
    assert np.isclose(found, expected, rtol=1e-4)
    assert np.isclose(pseudo_log_likelihood(model, tokenizer, ids, [0, *places]), found)
    assert pseudo_log_likelihood(model, tokenizer, ids, [0]) == 0


def test_shared_tokens_stand_in_order():
    assert shared_places([2, 7, 8, 9], [2, 5, 8, 4, 9]) == ([0, 2, 3], [0, 2, 4])
    assert shared_places([1], [2]) == ([], [])


def test_a_causal_score_is_that_of_transformers():
    model, tokenizer = language_model("tiny-gpt2")
    pairs = pd.DataFrame({"more": ["The film was good."], "less": ["The film was very bad."]})
    found = pair_scores(model, tokenizer, pairs)[0]
    for own, text in zip(found, (pairs["more"][0], pairs["less"][0])):
        ids = torch.tensor([behind_a_start(tokenizer, [text])[0]])
        with torch.no_grad(): loss = model(input_ids=ids, labels=ids).loss.item()
        assert np.isclose(own, -loss * (ids.shape[1] - 1), rtol=1e-4)


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-gpt2"])
def test_pairs_are_counted_from_a_file_made_by_hand(hand_made, model):
    found = stereotypes_once("crows_pairs", "age", model)
    assert found["n"] == 2 and 0 <= found["stereotyped"] <= 2
    assert 0 <= found["shorter"] <= found["lengths_differ"] == 1
    assert stereotypes_once("crows_pairs", "age", model) == found
    own, tokenizer = language_model(model)
    table = crows_pairs().query("kind == 'age'")
    scores = pair_scores(own, tokenizer, table)
    assert found["stereotyped"] == (scores[:, 0] > scores[:, 1]).sum()
    assert set(stereotypes_once("crows_pairs", "age", model, seed=0)) == set(found)


def test_a_pronoun_is_known_in_winobias(hand_made):
    assert winobias()["more"].tolist() == ["The cook said that he was late."] * 2
    found = stereotypes_once("winobias", "type1", "tiny-gpt2")
    assert found["n"] == 1 and found["male"] == found["stereotyped"]
    assert found["lengths_differ"] == found["shorter"] == 0


def test_defects_are_counted(hand_made):
    assert pair_defects("crows_pairs") == {"n": 3, "several_places": 1, "words_differ": 1,
                                           "doubted": 1}
    assert pair_defects("winobias") == {"n": 2, "several_places": 0, "words_differ": 0}


def test_random_weights_are_drawn_anew_and_leave_the_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    (one, _), (same, _), (other, _) = (language_model("tiny-bert", seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    weights = [model.get_output_embeddings().weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_without_real_data_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("COURSE_REAL_DATA", raising=False)
    with pytest.raises(InputError, match="COURSE_REAL_DATA"):
        stereotypes_once("winobias", "type1", "tiny-gpt2")


def test_the_recorded_scores_are_those_of_the_code():
    asked = recorded("stereotypes")
    own = asked[["source", "kind", "model", "seed"]].astype(object)
    own = own.where(asked["seed"].notna(), own.assign(seed=None))
    assert own.to_dict("records") == RECORDS["stereotypes"][1]
    assert (asked["stereotyped"] <= asked["n"]).all() and (asked["n"] <= 60).all()
    pooled = shares(asked, "stereotyped", "n")
    part = asked[asked["model"] == "smollm2"].query("source == 'crows_pairs'")
    row = pooled.loc[("crows_pairs", "smollm2")].iloc[0]
    assert row["n"] == part["n"].sum() and row["low"] < row["share"] < row["high"]
    assert recorded("pair-defects")["source"].tolist() == ["crows_pairs", "winobias"]


def test_the_interval_of_clusters_lies_between_sentences_and_persons():
    rng = np.random.default_rng(0)
    for _ in range(50):
        changed = rng.random((8, 12)) < rng.random((8, 1))
        low, high = wilson_of_clusters(changed)
        n = changed.size
        plain_low, plain_high = wilson_interval(int(changed.sum()), n)
        assert 0 <= low <= changed.mean() <= high <= 1
        assert high - low >= plain_high - plain_low - 1e-9
    same = np.repeat(np.arange(8) < 2, 12).reshape(8, 12)    # a person decides it all
    low, high = wilson_of_clusters(same)
    assert high - low > 0.4


def test_the_interval_of_clusters_keeps_its_word():
    rng, held, worlds = np.random.default_rng(1), 0, 1000
    for _ in range(worlds):
        low, high = wilson_of_clusters(rng.random((8, 12)) < rng.beta(3, 7, (8, 1)))
        held += low <= 0.3 <= high
    assert 0.88 < held / worlds < 0.99


def test_a_card_tells_how_often_the_person_decides(monkeypatch):
    model, tokenizer = load("tiny-gpt2", labels=["a", "b", "c"])
    texts = counterfactuals()["text"].tolist()
    def answers(of_one):
        def predict(_, rows):
            told = [tokenizer.decode(row["input_ids"]) for row in rows]
            return torch.eye(3)[[of_one(text.lower()) for text in told]]
        return predict
    monkeypatch.setattr("course_lib.fairness.predict_logits", answers(lambda text: 2))
    assert (changed_answers(model, tokenizer)["share"] == 0).all()
    by_word = answers(lambda text: int("muslim" in text))
    monkeypatch.setattr("course_lib.fairness.predict_logits", by_word)
    found = changed_answers(model, tokenizer)
    assert found.loc["religion", "share"] == 1 and found.drop("religion")["share"].max() == 0
    assert (found["n"] == len(ROLES) * len(TEMPLATES)).all() and len(texts) == 1536
    rows = Dataset.from_dict({"text": ["This film is not what I had been told it was."] * 4})
    card = card_section(model, tokenizer, {"task": "text-classification", "pair": False}, rows)
    assert card.count("\n|") == 2 + len(PEOPLE) and "100.0%" in card and "n = 96" in card


@pytest.mark.parametrize(("task", "pair", "text"), [
    ("token-classification", False, "This film is not what I was told."),
    ("text-classification", True, "This film is not what I was told."),
    ("text-classification", False, "Der Film ist nicht das, was man mir gesagt hat."),
    ("text-classification", False, "映画は面白くなかった"), ("text-classification", False, "ok")])
def test_where_the_sentences_do_not_fit_nothing_is_measured(task, pair, text):
    rows = Dataset.from_dict({"text": [text] * 3})
    assert "Not measured" in card_section(None, None, {"task": task, "pair": pair}, rows)
