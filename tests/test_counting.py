"""Counters of words: what they count, in which languages, and how the best one is chosen."""
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from sklearn.naive_bayes import MultinomialNB

from course_lib.counting import (
    COUNTERS, count_words, counted_in, counters, describe_counter, mark_denied, shares_of,
    tfidf_baseline, without_spaces, words_of)
from course_lib.data import load_data
from course_lib.runs import score_classes, verdict


def table(texts, labels, names=("bad", "good")):
    features = Features(text=Value("string"), label=ClassLabel(names=list(names)))
    return Dataset.from_dict({"text": texts, "label": labels}, features=features)


@pytest.mark.parametrize("text, marked", [
    ("It isn't dull.", ["dull"]), ("It isn’t dull, lovely", ["dull"]),
    ("NOT once slow!", ["once", "slow"]),
    ("without a good line; a bore", ["a", "good", "line"]), ("lovely", []), ("", []),
    ("never say never again", ["say", "never", "again"])])
def test_what_is_denied(text, marked):
    assert [w.removeprefix("not_") for w in mark_denied(text) if w.startswith("not_")] == marked
    assert [w.removeprefix("not_") for w in mark_denied(text)] == words_of(text)


def test_naive_bayes_is_scikit_learns_on_what_we_count():
    splits = load_data("reviews")
    train, texts = splits["train"].select(range(300)), splits["validation"]["text"][:50]
    (counter,) = counters(train["text"][:])["naive_bayes_negation"]
    shares = shares_of(counter, train, texts)
    vectors = counter[0]
    counted, new = vectors.transform(train["text"][:]), vectors.transform(texts)
    theirs = MultinomialNB().fit(counted, train["label"][:]).predict_proba(new)
    assert np.allclose(shares, theirs)
    assert any(name.startswith("not_") for name in vectors.get_feature_names_out())


def test_the_best_is_chosen_on_validation_alone():
    splits = load_data("reviews")
    answers, shares = count_words(splits["train"], splits["validation"], ["lovely", "awful"])
    assert set(answers) == set(shares) == set(COUNTERS)
    assert all(p.shape == (2, 2) and np.allclose(p.sum(1), 1) for p in answers.values())
    fewer, same = count_words(splits["train"], splits["validation"], ["awful"])
    assert same == shares
    assert all(np.allclose(fewer[name][0], answers[name][1]) for name in answers)


@pytest.mark.parametrize("good, bad", [("这部电影非常精彩好看", "这部电影非常无聊难看"),
                                       ("とても素晴らしい映画でした", "とても退屈な映画でした"),
                                       ("ภาพยนตร์เรื่องนี้ดีมาก", "ภาพยนตร์เรื่องนี้น่าเบื่อ")])
def test_characters_are_counted_where_a_script_has_no_spaces(good, bad):
    texts = [f"{kind}{chr(0x4e00 + i)}" for i in range(20) for kind in (good, bad)]
    rows = table(texts, [1, 0] * 20)
    assert without_spaces(texts)
    _, shares = count_words(rows, rows, [good])
    assert min(shares.values()) == 1


def test_a_verdict_says_what_was_counted():
    good, bad = "这部电影非常精彩好看", "这部电影非常无聊难看"
    texts = [f"{kind}{chr(0x4e00 + i)}" for i in range(20) for kind in (good, bad)]
    rows = table(texts, [1, 0] * 20)
    logits = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    splits = DatasetDict(train=rows, validation=rows)
    metrics = score_classes(rows, logits, splits, {"classes": {"bad": 20, "good": 20}})
    said = verdict(metrics)
    assert metrics["counted"] == "characters" and "word" not in said
    assert "the best of the character counters" in said and "on TF-IDF of runs of 1 to 3" in said
    older = verdict({k: v for k, v in metrics.items() if k != "counted"})
    assert "word counters (logistic regression on TF-IDF of words and word pairs;" in older


@pytest.mark.parametrize("text, counted", [
    ("A film", "words"), ("这部电影", "characters"), ("Нескучный фильм", "both"), ("", "words")])
def test_what_is_counted(text, counted):
    assert counted_in([text]) == counted
    for name, said in COUNTERS.items():
        told = describe_counter(name, counted)
        assert (told == said) == (counted == "words")
        assert ("word" in told) == (counted != "characters")


def test_a_class_that_never_occurs_and_texts_of_signs():
    signs = table(["🙂", "🙁", "!!"], [1, 0, 0], ["sad", "glad", "never seen"])
    for shares in (tfidf_baseline(signs, ["🙂", "?"]),
                   *count_words(signs, signs, ["🙂", "?"])[0].values()):
        assert shares.shape == (2, 3) and (shares[:, 2] == 0).all()
        assert shares[0, 1] > shares[1, 1] and np.allclose(shares.sum(1), 1)
