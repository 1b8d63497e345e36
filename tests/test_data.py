"""Reading, complaining, splitting."""
import json
import math
import random
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from strategies import ENDINGS, raw_tables, read_any

from course_lib.data import audit, fingerprint, load_data, near_duplicates, split, text_key
from course_lib.errors import InputError
from course_lib.files import shipped
from course_lib.synthetic import DIRT, bayes_optimum, bayes_rule, make_dirty, synthetic_reviews
from course_lib.tables import read_hub, read_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from data_card import counting, fill, repetition, tables

ROWS = [{"text": "A joy, from start to end", "label": "pos"},
        {"text": 'He said "no"\ntwice', "label": "neg"},
        {"text": "NA", "label": "pos"}, {"text": "007", "label": "neg"}]


def write(folder, name, rows=ROWS):
    path, frame = folder / name, pd.DataFrame(rows)
    if name.endswith(".csv"): frame.to_csv(path, index=False)
    elif name.endswith(".tsv"): frame.to_csv(path, index=False, sep="\t")
    elif name.endswith(".json"): path.write_text(json.dumps(rows))
    elif name.endswith(".jsonl"): frame.to_json(path, orient="records", lines=True)
    elif name.endswith(".parquet"): frame.to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_every_format_gives_the_same(tmp_path, name):
    table = read_table(write(tmp_path, name))
    assert table["text"][:] == [r["text"] for r in ROWS]
    assert table.features["label"].names == ["neg", "pos"] and table["label"][:] == [1, 0, 1, 0]


@pytest.mark.parametrize("raw", [
    b"\xef\xbb\xbftext,label\nA,x\nB,y\n", b"text,label\r\nA,x\r\nB,y\r\n",
    b"text,label\rA,x\rB,y\r",
    b"text,label\nA,x\n\nB,y", b"id,Text,LABEL\n1,A,x\n2,B,y\n"])
def test_accepted_in_silence(tmp_path, raw):
    (tmp_path / "a.csv").write_bytes(raw)
    assert read_table(tmp_path / "a.csv")["text"][:] == ["A", "B"]


@pytest.mark.parametrize("values, names", [
    ([1, 0, 1], ["0", "1"]), (["4", "1", "10"], ["1", "4", "10"]),
    ([True, False, True], ["false", "true"]), ([1.0, 2.0, 1.0], ["1", "2"]),
    (["b", "a", "c"], ["a", "b", "c"])])
def test_labels_of_all_kinds(tmp_path, values, names):
    rows = [{"text": f"t{i}", "label": v} for i, v in enumerate(values)]
    assert read_table(write(tmp_path, "a.jsonl", rows)).features["label"].names == names


def test_parquet_keeps_class_names(tmp_path):
    features = Features(text=Value("string"), label=ClassLabel(names=["bad", "fine"]))
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert [table.features["label"].int2str(i) for i in table["label"]] == ["fine", "bad"]


def big(label):
    "A table of 400 rows of ham and spam and one with another label."
    rows = [f"text {i},{'ham' if i % 2 else 'spam'}" for i in range(400)]
    return "\n".join(["text,label", *rows, f"more,{label}", ""]).encode()


BAD = {
    "empty.csv": (b"", ["is empty"]),
    "header.csv": (b"text,label\n", ["no rows"]),
    "latin.csv": ("text,label\nA,x\ncafé,y\n".encode("latin-1"),
                  ["latin.csv:3", "0xE9", "encoding=cp1252"]),
    "utf16.csv": ("text,label\nA,x\n".encode("utf-16"), ["UTF-16", "CSV UTF-8"]),
    "sheet.csv": (b"PK\x03\x04xxxx", ["Excel"]),
    "page.csv": (b"<!DOCTYPE html><p>", ["web page"]),
    "lfs.csv": (b"version https://git-lfs.github.com/spec/v1\noid", ["git-lfs"]),
    "zero.csv": (b"text,label\nA\0,x\n", ["zero byte"]),
    "semicolon.csv": (b"text;label\nA;x\nB;y\n", ["only one column", "delimiter=';'"]),
    "short.csv": (b"text,label\nA,x\nB\n", ["short.csv:3", "1 fields, the header has 2"]),
    "long.csv": (b"text,label\nhi, there,x\nB,y\n", ["long.csv:2", "3 fields", "quotes"]),
    "quote.csv": (b'text,label\nA,x\n"B,y\nC,x\n', ["quote.csv:3", "never closed"]),
    "columns.csv": (b"a,b\nA,x\nB,y\n", ["no text column", "'a', 'b'", "text=NAME"]),
    "nolabel.csv": (b"text,b\nA,x\nB,y\n", ["no label column", "label=NAME"]),
    "one.csv": (b"text,label\nA,x\nB,x\n", ["'x'", "at least two classes"]),
    "blank.csv": (b"text,label\nA,x\n  ,y\nC,y\n", ["blank.csv:3", "'text'", "no text"]),
    "unlabelled.csv": (b"text,label\nA,x\nB,\nC,y\n", ["unlabelled.csv:3", "'label'", "no label"]),
    "case.csv": (big("Spam"), ["'Spam'", "'spam'", "case.csv:402"]),
    "typo.csv": (big("hamm"), ["'hamm'", "too few", "misspelling"]),
    "cut.jsonl": (b'{"text": "A", "label": "x"}\n{"text": "B", "la', ["cut.jsonl:2", "not JSON"]),
    "list.jsonl": (b'{"text": "A", "label": "x"}\n["B", "y"]\n', ["list.jsonl:2", "object"]),
    "two.jsonl": (b'{"text": "A", "label": "x"} {"text": "B", "label": "y"}\n',
                  ["two.jsonl:1", "not JSON"]),
    "cut.json": (b'[{"text": "A", "label": "x"},', ["cut.json:1", "not JSON"]),
    "half.jsonl": (b'{"text": "\\ud800", "label": "x"}\n', ["surrogate"]),
    "number.jsonl": (b'{"text": 5, "label": "x"}\n{"text": "B", "label": "y"}\n',
                     ["number.jsonl:1", "no text"]),
    "missing.jsonl": (b'{"text": "A", "label": "x"}\n{"text": "B"}\n',
                      ["missing.jsonl:2", "no label"]),
    "cut.parquet": (b"PAR1 and not much more", ["not a whole Parquet file"]),
}


@pytest.mark.parametrize("name", BAD)
def test_one_clear_line(tmp_path, name):
    raw, words = BAD[name]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError) as e: load_data(str(tmp_path / name))
    message = str(e.value)
    assert all(w in message for w in words), message
    assert "\n" not in message and len(message) < 600 and " --" not in message


def test_a_truncated_parquet_file(tmp_path):
    path = write(tmp_path, "a.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a whole Parquet file"): read_table(path)


def test_all_problems_are_collected(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + ",x\n" * 30)
    with pytest.raises(InputError) as e: read_table(tmp_path / "a.csv")
    assert len(e.value.problems) == 20 and "19 more" in str(e.value)


def test_labels_can_be_declared(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nA,ham\nB, Spam\nC,spam\n")
    assert read_table(tmp_path / "a.csv", labels=["spam", "ham"])["label"][:] == [1, 0, 0]
    with pytest.raises(InputError, match="a.csv:2.*not known.*spam, eggs"):
        read_table(tmp_path / "a.csv", labels=["spam", "eggs"])
    both = [{"text": "a", "label": "us"}, {"text": "b", "label": "US"}]
    assert read_table(write(tmp_path, "b.csv", both), labels=["us", "US"])["label"][:] == [0, 1]


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=150, deadline=None)
@given(raw=raw_tables)
def test_any_bytes_give_a_data_set_or_one_clear_error(tmp_path_factory, ending, raw):
    read_any(tmp_path_factory.mktemp("any"), (ending, raw))


short_texts = st.text("ab ", min_size=1, max_size=4).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(short_texts, st.integers(0, 1)), min_size=40, max_size=80),
       seed=st.integers(0, 9))
def test_split_properties(rows, seed):
    features = Features(text=Value("string"), label=ClassLabel(names=["n", "p"]))
    columns = {"text": [t for t, _ in rows], "label": [l for _, l in rows]}
    table = Dataset.from_dict(columns, features=features)
    try: parts = split(table, seed)
    except InputError as e:
        assert "different texts" in str(e)
        return
    assert sum(map(len, parts.values())) == len(rows)
    keys = {k: {text_key(t) for t in p["text"]} for k, p in parts.items()}
    assert not (keys["train"] & keys["test"] or keys["train"] & keys["validation"])
    assert not keys["validation"] & keys["test"]
    again = split(table, seed)
    assert all(fingerprint(p) == fingerprint(again[k]) for k, p in parts.items())


def test_ways_of_giving_splits(tmp_path):
    rows = [{"text": f"text {i}", "label": "x" if i % 2 else "y"} for i in range(40)]
    a, b = str(write(tmp_path, "a.csv", rows)), str(write(tmp_path, "b.csv", rows[:10]))
    def sizes(**kw): return {k: len(v) for k, v in load_data(a, **kw).items()}
    assert sizes() == {"train": 28, "validation": 6, "test": 6}
    assert sizes(validation=b) == {"train": 40, "validation": 10}
    assert sizes(test=b) == {"train": 34, "validation": 6, "test": 10}
    write(tmp_path, "c.csv", [{"text": "new", "label": "z"}])
    with pytest.raises(InputError, match="c.csv:2.*'z' is not known"):
        load_data(a, validation=str(tmp_path / "c.csv"))


def test_hub_format_from_a_local_folder(tmp_path):
    for name, n in ("train", 40), ("test", 10):
        rows = [{"sentence": f"{name} {i}", "label": i % 2} for i in range(n)]
        write(tmp_path, f"{name}.csv", rows)
    splits = read_hub(str(tmp_path))
    assert {k: len(v) for k, v in splits.items()} == {"train": 40, "test": 10}
    assert splits["test"].features["label"].names == ["0", "1"]


def test_a_hub_that_does_not_answer():
    with pytest.raises(InputError, match="neither a file here nor a data set"):
        load_data("nobody/no-such-data")


def test_a_folder_or_nothing(tmp_path):
    for name, words in (tmp_path, "is a folder"), (tmp_path / "gone.csv", "no such file"):
        with pytest.raises(InputError, match=words): load_data(str(name))


def test_shipped_reviews():
    reviews = pd.read_csv(shipped("reviews.csv"))
    assert list(reviews.columns) == ["id", "text", "label", "slice"]
    assert len(reviews) >= 2400 and reviews["id"].is_unique
    counts = reviews.groupby(["slice", "label"]).size().unstack()
    assert (counts["negative"] == counts["positive"]).all()
    assert set(counts.index) == set("plain negation contrast comparison sarcasm mixed typo".split())
    assert reviews["slice"].value_counts().min() >= 150
    accuracy = counting(reviews["text"], reviews["label"]).mean()
    assert accuracy < 0.85, "counting words is enough to read these reviews"


def test_fresh_reviews_are_opened_by_one_page():
    fresh = pd.read_csv(shipped("fresh_reviews.csv"))
    assert list(fresh.columns) == ["id", "text", "label", "slice"] and fresh["id"].is_unique
    counts = fresh.groupby(["slice", "label"]).size().unstack()
    assert len(fresh) == 600 and (counts["negative"] == counts["positive"]).all()
    assert set(counts.index) == set(pd.read_csv(shipped("reviews.csv"))["slice"])
    assert counts.min(axis=None) >= 36
    root = Path(__file__).parents[1]
    files = [*root.glob("nbs/*.ipynb"), *root.glob("course_lib/*.py"), *root.glob("scripts/*.py")]
    named = {p.name for p in files if "fresh_reviews" in p.read_text(encoding="utf-8")}
    assert named == {"07_fresh.ipynb", "fresh.py", "data_card.py"}
    named = {p.name for p in files if "contrast_reviews" in p.read_text(encoding="utf-8")}
    assert named == {"07_fresh.ipynb", "fresh.py", "data_card.py"}


def test_pairs_of_the_contrast_set_hold_the_same_words():
    table = pd.read_csv(shipped("contrast_reviews.csv"))
    assert list(table.columns) == ["id", "text", "label", "slice", "pair"] and table["id"].is_unique
    assert len(table) == 300 and table["text"].map(text_key).is_unique
    words = table["text"].map(lambda t: tuple(sorted(re.findall(r"\w+", text_key(t)))))
    for _, pair in table.assign(words=words).groupby("pair"):
        assert len(pair) == 2 and pair["words"].nunique() == 1, pair["text"].tolist()
        assert set(pair["label"]) == {"negative", "positive"} and pair["slice"].nunique() == 1
    assert table["slice"].value_counts().min() >= 70


def test_blind_labels_cover_both_files_of_reviews_and_the_pairs():
    blind = pd.read_csv(shipped("blind_labels.csv"))
    assert set(blind["label"]) == {"negative", "positive"} and set(blind["sure"]) == {"yes", "no"}
    read = {reader: set(rows["id"]) for reader, rows in blind.groupby("reader")}
    assert read["a"] == read["b"] and len(read["a"]) == 302
    assert read["c"] == set(pd.read_csv(shipped("contrast_reviews.csv"))["id"])
    for name in ("reviews", "fresh_reviews"):
        ids = set(pd.read_csv(shipped(f"{name}.csv"))["id"])
        assert len(ids & read["a"]) >= 150


def test_the_list_of_openings_is_complete():
    table = pd.read_csv(shipped("openings.csv"))
    prints = {"reviews": fingerprint(load_data("reviews")["test"]),
              "news": fingerprint(load_data("news", text="headline,lead")["test"]),
              **{name: fingerprint(read_table(shipped(f"{name}.csv")))
                 for name in ("fresh_reviews", "contrast_reviews")}}
    assert (table["fingerprint"] == table["data"].map(prints)).all()
    pages = {p.stem: p.read_text(encoding="utf-8")
             for p in (Path(__file__).parents[1] / "nbs").glob("*.ipynb")}
    opens = re.compile(r'open_test\(splits, (recipe|opened)|fine_tune\(Recipe\((\*\*|model|epochs)')
    found = {name for name, text in pages.items() if opens.search(text)}
    assert len(found) >= 6 and set(table["page"]) <= set(pages)
    assert found <= {*table["page"], "13_answers"}, "add the page to data/openings.csv"


def test_shipped_news_and_unlabelled_reviews():
    news = load_data("news", text="headline,lead")
    assert news["train"].features["label"].names == ["entertainment", "politics", "sports"]
    assert (audit(news)["also in train"] == 0).all()
    items = pd.read_json(shipped("news.jsonl"), lines=True)
    assert list(items.columns) == ["id", "headline", "lead", "topic"] and items["id"].is_unique
    assert set(items["topic"].value_counts()) == {270}
    assert len(unlabelled_reviews()) == len({text_key(t) for t in unlabelled_reviews()}) >= 800


def unlabelled_reviews():
    return shipped("unlabelled_reviews.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name, columns", [("reviews", {}), ("news", {"text": "headline,lead"})])
def test_no_near_copies_in_the_shipped_data(name, columns):
    parts = dict(load_data(name, **columns))
    if name == "reviews":
        parts["unlabelled"] = Dataset.from_dict({"text": unlabelled_reviews()})
        parts["fresh"] = Dataset.from_dict({"text": shipped_texts("fresh_reviews")})
    pairs = near_duplicates(parts)
    assert pairs.empty, pairs.head().to_string()


def shipped_texts(name):
    if name.endswith("reviews"): return list(pd.read_csv(shipped(f"{name}.csv"))["text"])
    if name == "unlabelled": return unlabelled_reviews()
    news = pd.read_json(shipped("news.jsonl"), lines=True)
    return list(news["headline"] + " " + news["lead"])


MOST_SHARED = "rows that share an 8-word run, at most"


@pytest.mark.parametrize("name", ["reviews", "fresh_reviews", "unlabelled", "news"])
def test_no_template_in_the_shipped_data(name):
    found = repetition(shipped_texts(name))
    assert float(found["4-grams that are unique"].rstrip("%")) >= 90
    assert found[MOST_SHARED] <= 2 and found["texts twice"] == 0
    assert repetition(["a b c d e f g h i"] * 3)[MOST_SHARED] == 3 # the measure can fail


def test_the_data_card_is_up_to_date():
    card = shipped("README.md").read_text(encoding="utf-8")
    assert fill(card, tables()) == card, "run: python scripts/data_card.py"


def test_near_duplicates_are_found_within_and_across():
    words = [f"w{i}" for i in range(400)]
    rng = random.Random(0)
    texts = [" ".join(rng.sample(words, 15)) for _ in range(40)]
    changed = [t.split() for t in texts[:10]]
    for t in changed: t[7] = "other"
    a = Dataset.from_dict({"text": texts + [texts[39].upper() + "!"]})
    b = Dataset.from_dict({"text": [" ".join(t) for t in changed]})
    pairs = near_duplicates({"a": a, "b": b})
    found = set(map(tuple, pairs[["split_a", "row_a", "split_b", "row_b"]].values))
    assert found == {("a", 39, "a", 40), *(("a", i, "b", i) for i in range(10))}
    assert pairs["similarity"].iloc[0] == 1.0
    assert pairs["similarity"].iloc[1:].between(0.5, 0.8).all()
    short = near_duplicates({"a": Dataset.from_dict({"text": ["yes", "Yes.", "no"]})})
    assert short[["row_a", "row_b"]].values.tolist() == [[0, 1]]


@pytest.mark.parametrize("sentences, agreement, noise", [
    (1, 0.8, 0.0), (3, 0.8, 0.0), (3, 0.7, 0.2), (5, 0.9, 0.05), (3, 1.0, 0.1)])
def test_the_best_score_on_synthetic_reviews(sentences, agreement, noise):
    rows = synthetic_reviews(8000, 3, sentences, agreement, 0.4, noise)
    best = bayes_optimum(sentences, agreement, noise)
    right = sum(bayes_rule(t) == y for t, y in zip(rows["text"], rows["label"]))
    low, high = binomtest(right, 8000).proportion_ci(0.999)
    assert low <= best["accuracy"] <= high
    entropy = -sum(x * math.log(x) for x in (noise, 1 - noise) if x)
    assert entropy - 1e-9 <= best["loss"] <= math.log(2)
    if agreement == 1: assert best["loss"] == pytest.approx(entropy)


def test_synthetic_arguments():
    with pytest.raises(ValueError, match="tie"): synthetic_reviews(3, sentences=2)
    assert not any("not" in t.split() for t in synthetic_reviews(200, negated=0)["text"])


@pytest.mark.parametrize("seed", range(3))
def test_dirt_is_what_it_says(seed):
    clean = load_data("reviews")["test"]
    dirty = make_dirty(clean, seed, 0.02)
    assert set(dirty["planted"]) == {"", *DIRT}
    assert len(set(dirty["planted"].value_counts().drop(""))) == 1
    names = clean.features["label"].names
    by_text = {t: names[y] for t, y in zip(clean["text"], clean["label"])}
    right = [by_text.get(text) == label for text, label in zip(dirty["text"], dirty["label"])]
    dirty = dirty.assign(right=right).set_index("planted")
    assert not dirty.loc["wrong label", "right"].any()
    assert dirty.loc[["", "copy"], "right"].all()
    assert (dirty.loc["empty", "text"].str.strip() == "").all()
    assert dirty.loc["markup", "text"].str.contains("<").all()


def test_real_data_spoiled_and_checked(real_data):
    clean = read_table(real_data / "rotten_tomatoes" / "validation.csv")
    dirty = make_dirty(clean, 0, 0.02)
    rows = dirty[dirty["planted"] != "empty"].reset_index(drop=True)
    pairs = near_duplicates({"a": Dataset.from_dict({"text": rows["text"].tolist()})})
    assert set(rows.index[rows["planted"] == "copy"]) <= set(pairs["row_b"])


def test_real_rotten_tomatoes(real_data):
    folder = real_data / "rotten_tomatoes"
    splits = load_data(str(folder / "train.csv"), str(folder / "validation.csv"))
    assert {k: len(v) for k, v in splits.items()} == {"train": 8530, "validation": 1066}
    assert splits["train"].features["label"].names == ["0", "1"]
    assert sum(splits["train"]["label"]) == 4265
    assert len(splits["train"]) == len(pd.read_csv(folder / "train.csv"))


def test_real_ag_news(real_data):
    splits = load_data(str(real_data / "ag_news" / "train.csv"), text="title,description")
    assert splits["train"].features["label"].names == ["0", "1", "2", "3"]
    assert "\n" in splits["train"][0]["text"]
    table = audit(splits)
    shares = table[["0", "1", "2", "3"]]
    assert (shares - shares.loc["train"]).abs().max().max() < 0.01
    assert (table["also in train"] == 0).all()


def test_rows_without_labels_are_split_by_their_groups():
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(40)], "n": list(range(40))})
    groups = [i // 4 for i in range(40)]
    parts = split(rows, 0, groups=groups)
    sides = [{groups[n] for n in part["n"]} for part in parts.values()]
    assert list(parts) == ["train", "validation", "test"]
    assert parts["train"].features == rows.features
    assert sum(map(len, sides)) == 10 and sum(map(len, parts.values())) == 40
    with pytest.raises(InputError, match="the rows – only 2 different groups"):
        split(rows, 0, groups=[i % 2 for i in range(40)])
