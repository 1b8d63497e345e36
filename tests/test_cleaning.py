"""Repairs mend what is broken and nothing else; groups stay on one side; the audit finds what was
planted, and a page can't be attacked by its data."""
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings, strategies as st

from course_lib.cleaning import (REPAIRS, clean, data_report, doubt_labels, drop_punctuation,
                                 expand_contractions, find_defects, language, near_groups,
                                 repair_encoding)
from course_lib.data import near_duplicates, split, text_key, together
from course_lib.errors import InputError
from course_lib.tables import read_table

ROWS = Features(text=Value("string"), label=ClassLabel(names=["neg", "pos"]))
quick = settings(max_examples=200, deadline=None)
letters = st.text(st.characters(codec="cp1252", exclude_categories=("Cc",)), max_size=60)


def table(texts, labels=None):
    labels = labels or [i % 2 for i in range(len(texts))]
    return Dataset.from_dict({"text": texts, "label": labels}, features=ROWS)


@quick
@given(letters)
def test_encoding_is_repaired(text):
    for codec in ("cp1252", "latin-1"):
        try: spoilt = text.encode().decode(codec)
        except UnicodeDecodeError: continue              # that byte has no letter in Windows-1252
        if repair_encoding(text) == text: assert repair_encoding(spoilt) == text


FOREIGN = ["naïve café", "Straße – 5 €", "日本語", "Очень", "“so”…", "😀", "ßß", "Ångström"]


@quick
@given(st.text(st.characters(max_codepoint=127)) | st.sampled_from(FOREIGN))
def test_text_in_order_is_left_alone(text): assert repair_encoding(text) == text


@quick
@given(st.text(max_size=80))
def test_repairs_take_any_text(text):
    for step in [*REPAIRS.values(), expand_contractions, drop_punctuation]:
        assert isinstance(step(text), str)
    squeezed = REPAIRS["squeeze"](text)
    assert REPAIRS["squeeze"](squeezed) == squeezed
    assert language(text) is None or isinstance(language(text), str)


SOME = ["good film", "Good  film", "bad film", "<br>", "fine &amp; long", "ok"]
LABELLED = st.tuples(st.sampled_from(SOME), st.integers(0, 1))


@quick
@given(st.lists(LABELLED, min_size=1, max_size=12))
def test_clean_leaves_each_text_once_with_one_label(rows):
    given_labels = {}
    for text, y in rows: given_labels.setdefault(text_key(text), set()).add(y)
    possible = [k for k, ys in given_labels.items() if len(ys) == 1 and k != "<br>"]
    if not possible:
        with pytest.raises(InputError, match="no row is left"): clean(table(*map(list, zip(*rows))))
        return
    cleaned, report = clean(table(*map(list, zip(*rows))))
    assert len(cleaned) == len(possible) == len({text_key(t) for t in cleaned["text"]})
    assert report["taken out"].sum() == len(rows) - len(cleaned)


ROW_AND_GROUP = st.tuples(st.integers(0, 9), st.none() | st.integers(0, 5))


@quick
@given(st.lists(ROW_AND_GROUP, min_size=1, max_size=30))
def test_what_belongs_together(rows):
    texts, groups = [f"text {t}" for t, _ in rows], [g for _, g in rows]
    found = together(texts, groups)
    assert sorted(i for part in found for i in part) == list(range(len(rows)))
    place = {i: k for k, part in enumerate(found) for i in part}
    for i, (t, g) in enumerate(rows):
        for j, (u, h) in enumerate(rows):
            if t == u or (g is not None and g == h): assert place[i] == place[j]
    def linked(a, b): return a[0] == b[0] or (a[1] is not None and a[1] == b[1])
    links = {frozenset((i, j)) for j in range(len(rows)) for i in range(j)
             if linked(rows[i], rows[j])}
    assert len(found) >= len(rows) - len(links)          # and nothing is joined without a reason


@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_on_one_side(seed):
    rng = np.random.default_rng(seed)
    authors = rng.zipf(1.6, 400).clip(max=60).tolist()
    texts, labels = [f"text number {i}" for i in range(400)], rng.integers(2, size=400).tolist()
    data = table(texts, labels).add_column("row", list(range(400)))
    parts = split(data, seed, groups=authors)
    sides = [{authors[i] for i in part["row"]} for part in parts.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(len(p) for p in parts.values()) == 400
    with pytest.raises(InputError, match="only 1 different groups"):
        split(data, seed, groups=["one"] * 400)


def test_near_groups_join_through_others():
    words = [f"w{i}" for i in range(30)]
    # the first shares most runs with the second, the second with the third
    chain = [" ".join(words[k:k + 20]) for k in (0, 4, 8)]
    other = "something else entirely, without a common word"
    assert len(set(near_groups(table([*chain, other])))) == 2
    pairs = near_duplicates({"all": table(chain)})
    assert pairs[["row_a", "row_b"]].values.tolist() == [[0, 1], [1, 2]], pairs


def test_every_defect_is_found():
    slow = "It is slow, and the end is a shame."
    texts = ["A fine film with the heart of a comedy."] * 2 + [
        slow, slow, "SHOUTING IS NOT AN ARGUMENT AT ALL.", "Good &amp; bad.",
        "See www.example.org now.", "slow\x97and long.", "No!!!!!", "It stops in the",
        "Der Film ist lang und nicht von dieser Welt.", "Yes.",
        "A fine film with the heart of a small comedy."]
    found = find_defects(table(texts, [0, 0, 0, 1] + [0, 1] * 4 + [1]))
    by_row = found.groupby("row")["defect"].agg(set).to_dict()
    planted = {1: "copy", 2: "two labels", 3: "two labels", 4: "capitals",
               5: "markup", 6: "link", 7: "encoding damage", 8: "repeated signs",
               9: "no end mark", 10: "other language", 11: "unusual length", 12: "near copy"}
    for row, defect in planted.items():
        assert defect in by_row[row], (row, defect)
    assert 0 not in by_row


def test_doubt_needs_rows_and_finds_turned_labels():
    with pytest.raises(InputError, match="fewer than 5 rows"):
        doubt_labels(table(["a b", "c d", "e f"]))
    texts = [f"{'good' if i % 2 else 'bad'} film number {i}" for i in range(200)]
    labels = [i % 2 for i in range(200)]
    labels[10], labels[31] = 1, 0
    assert set(np.argsort(doubt_labels(table(texts, labels)))[:2]) == {10, 31}


def test_a_page_for_small_tables_and_many_classes():
    small = split(table([f"text {i}" for i in range(12)]))
    counts, page = data_report(small, "small")
    assert "Labels to look at again" in page and page.count("<table") == 4
    names = [f"class {i}" for i in range(12)]
    features = Features(text=Value("string"), label=ClassLabel(names=names))
    texts, labels = [f"word{i} is a text." for i in range(96)], [i % 12 for i in range(96)]
    many = Dataset.from_dict({"text": texts, "label": labels}, features=features)
    assert "12 classes" in data_report(split(many), "many")[1]


def test_languages_of_real_sentences(real_data):
    for name in ("en", "de"):
        path = real_data / f"multi30k_en_de/val.{name}"
        told = [language(line) for line in path.read_text(encoding="utf-8").splitlines()]
        known = [t for t in told if t]
        assert len(known) > 0.3 * len(told) and known.count(name) > 0.99 * len(known)


def test_real_reviews_hold_real_damage(real_data):
    rows = read_table(real_data / "rotten_tomatoes/train.csv")
    found = find_defects(rows)
    assert (found["defect"] == "encoding damage").sum() > 20
    assert (found["defect"] == "other language").sum() > 20
    cleaned, _ = clean(rows)
    assert "encoding damage" not in set(find_defects(cleaned)["defect"])
