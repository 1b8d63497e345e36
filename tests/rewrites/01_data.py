"""Other right answers to the exercises of chapter 1."""
import re
import string
import unicodedata
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pandas as pd

from course_lib.data import text_key


def e1_1_pandas(dataset):
    labels = pd.Series(dataset["label"][:])
    return {name: (labels == i).mean() for i, name in enumerate(dataset.features["label"].names)}


def e1_1_bincount(dataset):
    names = dataset.features["label"].names
    counts = np.bincount(dataset["label"][:], minlength=len(names))
    return dict(zip(names, counts / counts.sum()))


def e1_1_loop(dataset):
    feature = dataset.features["label"]
    shares = dict.fromkeys(feature.names, 0.0)
    for row in dataset: shares[feature.int2str(row["label"])] += 1 / dataset.num_rows
    return shares


def e1_1_filter(dataset):
    names = dataset.features["label"].names
    return {name: len(dataset.filter(lambda row, k=k: row["label"] == k)) / len(dataset)
            for k, name in enumerate(names)}


def e1_1_float32(dataset):
    names = dataset.features["label"].names
    rows = np.eye(len(names), dtype=np.float32)[dataset["label"][:]]
    return {name: rows[:, i].mean() for i, name in enumerate(names)}


def e1_1_fractions(dataset):
    labels = list(dataset["label"])
    return {name: float(Fraction(labels.count(i), len(labels)))
            for i, name in enumerate(dataset.features["label"].names)}


def e1_2_by_character(text):
    return text_key("".join(c for c in text if c.isalnum() or c.isspace()))


def e1_2_after_the_key(text):
    return " ".join(re.sub(r"[^\w\s]|_", "", text_key(text)).split())


def e1_2_in_two_steps(text):
    without = re.sub(r"[^\w\s]", "", text).replace("_", "")
    return " ".join(without.casefold().split())


def e1_2_words(text):
    words = ["".join(filter(str.isalnum, word)) for word in text.split()]
    return text_key(" ".join(words))


def e1_2_found(text):
    return text_key("".join(re.findall(r"[^\W_]|\s", text)))


def e1_2_categories(text):
    kept = [c for c in text if unicodedata.category(c)[0] in "LN" or c.isspace()]
    return text_key("".join(kept))


def e1_2_one_by_one(text):
    for mark in set(text) | set(string.punctuation):
        if not (mark.isalnum() or mark.isspace()): text = text.replace(mark, "")
    return text_key(text)


def e1_3_pandas(texts, dates, share=0.2):
    table = pd.DataFrame({"key": map(text_key, texts), "date": dates})
    table = table.sort_values("date", kind="stable")
    cut = len(table) - round(share * len(table))
    train, test = table[:cut], table[cut:]
    return train.index, test.index[~test["key"].isin(train["key"])]


def e1_3_sorted(texts, dates, share=0.2):
    order = sorted(range(len(dates)), key=dates.__getitem__)
    n = round(len(texts) * share)
    train, test = order[:len(order) - n], order[len(order) - n:]
    known = [text_key(texts[i]) for i in train]
    return train, [i for i in test if text_key(texts[i]) not in known]


def e1_3_arrays(texts, dates, share=0.2):
    order = np.argsort(np.array(dates), kind="stable")
    tested = int(np.round(share * len(order)))
    train, test = np.split(order, [len(order) - tested])
    keys = np.array([text_key(t) for t in texts])
    return train, test[~np.isin(keys[test], keys[train])]


def e1_3_loop(texts, dates, share=0.2):
    rows = sorted(zip(dates, range(len(texts))))
    size, train, test, seen = len(rows) - int(share * len(rows) + 0.5), [], [], set()
    for _, i in rows:
        key = text_key(texts[i])
        if len(train) < size:
            train.append(i)
            seen.add(key)
        elif key not in seen: test.append(i)
    return train, test


def e1_3_newest_first(texts, dates, share=0.2):
    newest = sorted(range(len(texts)), key=lambda i: (dates[i], i), reverse=True)
    n = round(share * len(texts))
    where = defaultdict(list)
    for place, i in enumerate(newest): where[text_key(texts[i])].append(place)
    test = [i for i in newest[:n] if max(where[text_key(texts[i])]) < n]
    return tuple(sorted(newest[n:])), tuple(sorted(test))
