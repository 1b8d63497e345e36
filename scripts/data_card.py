"""Fill the tables of `data/README.md`: rows, classes, lengths, repetition, what word counts score.

    python scripts/data_card.py

Every number in the data card stands between two markers and is computed here; a test runs this and
fails if the card is out of date.
"""
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from course_lib.data import fingerprint, load_data, near_duplicates, text_key, word_runs

DATA = Path(__file__).resolve().parents[1] / "data"


def lengths(texts) -> dict:
    "Length statistics in words."
    n = pd.Series([len(t.split()) for t in texts])
    return {"median words": int(n.median()), "shortest": int(n.min()), "longest": int(n.max())}


def repetition(texts) -> dict:
    """How far texts share wording: unique runs of four words, and the most rows that share a run
    of eight."""
    four, eight = Counter(), Counter()
    for t in texts:
        four.update(word_runs(t, 4))
        eight.update({run for run in word_runs(t, 8) if run.count(" ") == 7})
    unique = sum(v == 1 for v in four.values()) / len(four)
    return {"4-grams that are unique": f"{unique:.1%}",
            "rows that share an 8-word run, at most": max(eight.values()),
            "texts twice": len(texts) - len({text_key(t) for t in texts})}


def counting(texts, labels, words=None) -> np.ndarray:
    """For each row whether a bag of words, or of the given words only, gets it right in five-fold
    cross-validation."""
    model = make_pipeline(TfidfVectorizer(vocabulary=words), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_predict(model, texts, labels, cv=folds) == np.array(labels)


def by_group(frame: pd.DataFrame, group: str, label: str) -> str:
    "A Markdown table: each group's rows, classes, lengths and what a bag of words gets right."
    frame = frame.assign(right=counting(frame["text"], frame[label]))
    rows = {}
    for name, part in [*frame.groupby(group), ("all", frame)]:
        classes = {} if label == group else part[label].value_counts().sort_index().to_dict()
        rows[name] = {"rows": len(part), **classes, **lengths(part["text"]),
                      "TF-IDF right": f"{part['right'].mean():.1%}"}
    return markdown(rows, group)


def pairs(frame: pd.DataFrame) -> str:
    "A Markdown table: the pairs of each slice and their lengths."
    rows = {name: {"pairs": part["pair"].nunique(), "texts": len(part), **lengths(part["text"])}
            for name, part in [*frame.groupby("slice"), ("all", frame)]}
    return markdown(rows, "slice")


def markdown(rows: dict, corner: str) -> str: # rows: name -> {column: value}
    "A Markdown table."
    frame = pd.DataFrame.from_dict(rows, orient="index")
    lines = [[corner, *frame.columns], ["---"] * (len(frame.columns) + 1)]
    lines += [[name, *row] for name, row in zip(frame.index, frame.astype(object).values)]
    return "\n".join("| " + " | ".join(shown(v) for v in line) + " |" for line in lines)


def shown(value) -> str: return "" if isinstance(value, float) and np.isnan(value) else str(value)


def splits(name: str, **columns) -> str:
    "The fixed splits of a shipped table: rows and fingerprints."
    parts = load_data(name, **columns)
    rows = {k: {"rows": len(v), "fingerprint": f"`{fingerprint(v)}`"} for k, v in parts.items()}
    return (f"{markdown(rows, 'part')}\n\nNear copies (half or more of the runs of three words in "
            f"common) within and across the parts: {len(near_duplicates(parts))}.")


def tables() -> dict:
    "Marker -> what belongs there."
    reviews = pd.read_csv(DATA / "reviews.csv")
    news = pd.read_json(DATA / "news.jsonl", lines=True)
    news["text"] = news["headline"] + " " + news["lead"]
    unlabelled = (DATA / "unlabelled_reviews.txt").read_text(encoding="utf-8").splitlines()
    fresh = pd.read_csv(DATA / "fresh_reviews.csv")
    contrast = pd.read_csv(DATA / "contrast_reviews.csv")
    files = {"reviews.csv": list(reviews["text"]), "fresh_reviews.csv": list(fresh["text"]),
             "contrast_reviews.csv": list(contrast["text"]),
             "unlabelled_reviews.txt": unlabelled,
             "news.jsonl": list(news["text"])}
    facts = {name: {"texts": len(texts), **lengths(texts), **repetition(texts)}
             for name, texts in files.items()}
    small_words = counting(reviews["text"], reviews["label"], sorted(ENGLISH_STOP_WORDS)).mean()
    within = {kind: counting(part["text"], part["label"]).mean()
              for kind, part in reviews.groupby("slice")}
    first = counting(news["text"].str.split().str[0], news["topic"]).mean()
    return {"reviews": by_group(reviews, "slice", "label") + "\n\nFrom function words alone "
                       f"(scikit-learn's English stop words): {small_words:.1%} right. Trained and "
                       f"tested within one slice: plain {within['plain']:.1%}, negation "
                       f"{within['negation']:.1%} right.",
            "fresh": by_group(fresh, "slice", "label"),
            "contrast": pairs(contrast),
            "news": by_group(news, "topic", "topic") + "\n\nFrom the first word of the headline "
                    f"alone: {first:.1%} right.",
            "reviews splits": splits("reviews"),
            "news splits": splits("news", text="headline,lead"),
            "all": markdown(facts, "file")}


def fill(card: str, found: dict) -> str:
    "The card with its tables replaced; raises ValueError if a marker is missing."
    for name, table in found.items():
        place = rf"(?s)(<!-- {name} -->\n).*?(<!-- end -->)"
        card, n = re.subn(place, lambda m: m[1] + table + "\n" + m[2], card)
        if n != 1: raise ValueError(f"the marker {name!r} stands {n} times in the card")
    return card


if __name__ == "__main__":
    path = DATA / "README.md"
    path.write_text(fill(path.read_text(encoding="utf-8"), tables()), encoding="utf-8")
