"Tables as people have them: what is read, what is refused, and that the advice then helps."
import datetime
import html
import json
import re
from collections import Counter
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from course_lib.cli import main
from course_lib.data import load_data, load_to_audit
from course_lib.errors import InputError, held_notes
from course_lib.recipe import Recipe, check_inputs
from course_lib.tables import (
    guess_header, label_names, label_value, one_spelling, read_delimited, read_rows, read_table)


def write(folder, name, content):
    path = folder / name
    if isinstance(content, bytes): path.write_bytes(content)
    elif isinstance(content, str): path.write_text(content, encoding="utf-8")
    else: path.write_text(json.dumps(content), encoding="utf-8")
    return path


def lines(rows, delimiter=",", header="text,label"):
    first = [header.replace(",", delimiter)] if header else []
    return "\n".join([*first, *(delimiter.join(row) for row in rows), ""])


PLAIN = [(f"room {i} was {'cold' if i % 2 else 'warm'}", "no" if i % 2 else "yes")
         for i in range(20)]
ROWS = [{"text": text, "label": label} for text, label in PLAIN]
NOTED = re.compile("is read from")


def names_and_counts(table):
    names = table.features["label"].names
    return dict(Counter(names[i] for i in table["label"]))


def annotated(text, label, cancelled=False):
    result = [{"type": "choices", "value": {"choices": [label]}}]
    return {"id": 1, "data": {"text": text}, "annotations": [
        {"was_cancelled": cancelled, "result": result}]}


def asked(text, label):
    return {"messages": [{"role": "system", "content": "yes or no"},
                         {"role": "user", "content": text},
                         {"role": "assistant", "content": label}]}


def picked(text, label):
    options = [{"id": "yes", "text": "Yes"}, {"id": "no", "text": "No"}]
    return {"text": text, "options": options, "accept": [label], "answer": "accept"}


def as_lines(rows): return "\n".join(json.dumps(row) for row in rows)


BY_COLUMN = {"text": [t for t, _ in PLAIN], "label": [y for _, y in PLAIN]}
NUMBERED = {c: {str(i): v for i, v in enumerate(values)} for c, values in BY_COLUMN.items()}
FORMS = {
    "sep.csv": "sep=;\n" + lines(PLAIN, ";"), "sep_comma.csv": "sep=,\r\n" + lines(PLAIN),
    "tabs.tsv": lines(PLAIN, "\t"), "blank_first.csv": "\n\n" + lines(PLAIN),
    "empty_columns.csv": lines([(*row, "", "") for row in PLAIN], header="text,label,,"),
    "columns.json": BY_COLUMN, "numbered.json": NUMBERED,
    "index.json": {str(i): row for i, row in enumerate(ROWS)},
    "split.json": {"columns": ["text", "label"], "index": list(range(20)), "data": PLAIN},
    "table.json": {"schema": {"fields": [{"name": "text"}], "version": "1"}, "data": ROWS},
    "below.json": {"version": 2, "rows": ROWS, "tags": ["a"]},
    "lines.json": as_lines(ROWS), "list.jsonl": ROWS,
    "one_label.jsonl": as_lines([{**row, "label": [row["label"]]} for row in ROWS]),
    "studio.json": [annotated(*row) for row in PLAIN],
    "doccano.jsonl": as_lines([{"id": i, "text": t, "label": [y], "Comments": []}
                               for i, (t, y) in enumerate(PLAIN)]),
    "doccano_old.jsonl": as_lines([{"text": t, "annotations": [{"label": y, "user": 1}]}
                                   for t, y in PLAIN]),
    "messages.jsonl": as_lines([asked(*row) for row in PLAIN]),
    "prodigy.jsonl": as_lines([picked(*row) for row in PLAIN]),
    "fast.txt": "".join(f"__label__{y} {t}\n" for t, y in PLAIN),
    "fast.csv": "".join(f"{t} __label__{y}\n" if i else f"__label__{y} {t}\n"
                        for i, (t, y) in enumerate(PLAIN)),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_table_in_another_form_is_the_same_table(tmp_path, name):
    with held_notes() as notes: table = read_table(write(tmp_path, name, FORMS[name]))
    assert table["text"][:] == [t for t, _ in PLAIN]
    assert table.features["label"].names == ["no", "yes"]
    assert names_and_counts(table) == {"no": 10, "yes": 10}
    assert len(notes) == 1 and NOTED.search(notes[0])


def test_a_field_of_any_length(tmp_path):
    long = "the item was heard. " * 10_000
    table = read_table(write(tmp_path, "a.csv", lines([(long, "yes"), *PLAIN])))
    assert len(table) == 21 and table[0]["text"] == long.strip()


@pytest.mark.parametrize("text, kept", [
    ('"Wait" she said', '"Wait" she said'), ('"Wait"', '"Wait"'), ('she said "wait"',) * 2,
    ('"Wait', '"Wait'), ("it is 5\" wide",) * 2])
def test_quotes_in_a_file_with_tabs(tmp_path, text, kept):
    path = write(tmp_path, "a.tsv", lines([(text, "yes"), *PLAIN], "\t"))
    assert read_table(path)[0]["text"] == kept


def test_quoted_fields_in_a_file_with_tabs(tmp_path):
    rows = [{"text": 'He said "no"\ntwice', "label": "no"}, *ROWS, {"text": "a\tb", "label": "yes"}]
    for k, quoting in enumerate((0, 1)): # as needed, and everywhere
        pd.DataFrame(rows).to_csv(tmp_path / f"{k}.tsv", sep="\t", index=False, quoting=quoting)
        table = read_table(tmp_path / f"{k}.tsv")
        assert table["text"][:] == [row["text"] for row in rows]


def swallowing(at, to):
    "A file in which a quote that opens a text is closed some rows later."
    rows = [list(row) for row in PLAIN]
    rows[at][0] = '"' + rows[at][0]
    rows[to][0] += '"'
    return lines(rows)


@pytest.mark.parametrize("at, to", [(3, 4), (3, 9), (0, 18)])
def test_a_quote_that_is_closed_late(tmp_path, at, to):
    path = write(tmp_path, "a.csv", swallowing(at, to))
    with pytest.raises(InputError) as e: read_table(path)
    assert f"a.csv:{at + 2} – a quote" in str(e.value) and f"up to line {to + 2} " in str(e.value)
    mended = path.read_text().replace('"', "") # as the message says
    assert len(read_table(write(tmp_path, "b.csv", mended))) == 20


def test_a_text_of_two_lines_behind_an_id_is_one_text(tmp_path):
    path = write(tmp_path, "a.csv", 'id,text,label\n7,"one line\nand another",no\n8,short,yes\n')
    assert read_table(path)["text"][:] == ["one line\nand another", "short"]
    two = 'id,text\n101,"good, and cheap"\n103,"first line\nsecond line"\n104,- not bad\n'
    assert len(read_rows(write(tmp_path, "b.csv", two))) == 3


def test_texts_over_several_lines_are_texts(tmp_path):
    letter = '"Dear Sir,\nI was cold, and\nso was she."'
    rows = [*PLAIN, (letter, "no"), ('"one\n\ntwo, three"', "no")]
    table = read_table(write(tmp_path, "a.csv", lines(rows)))
    assert len(table) == 22 and table[20]["text"].count("\n") == 2


TWICE = {
    "a.csv": "text,label,text\na,x,1\nb,y,2\n", "b.tsv": "text\tlabel\tlabel\na\tx\ty\n",
    "c.jsonl": '{"text": "a", "label": "x", "label": "y"}\n{"text": "b", "label": "y"}\n',
    "d.json": '[{"text": "a", "text": "b", "label": "x"}]',
}


@pytest.mark.parametrize("name", TWICE)
def test_two_columns_of_one_name(tmp_path, name):
    with pytest.raises(InputError, match="'(text|label)' is there twice"):
        read_table(write(tmp_path, name, TWICE[name]))


def test_two_columns_of_one_name_in_parquet(tmp_path):
    columns = [pa.array(["a", "b"]), pa.array(["x", "y"]), pa.array(["1", "2"])]
    pq.write_table(pa.table(columns, names=["text", "label", "text"]), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="'text' is there twice"):
        read_table(tmp_path / "a.parquet")


def test_columns_of_parquet_that_nobody_asked_for(tmp_path):
    extra = pa.array([[("k", 1)], []], type=pa.map_(pa.string(), pa.int64()))
    nested = pa.array([{"a": [{"b": 1}]}, None])
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"], "m": extra, "n": nested})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet")["text"][:] == ["a", "b"]


@pytest.mark.parametrize("raw, words", [
    (bytes(range(256)) * 20, "is binary, not text"),
    (b"\x89PNG\r\n\x1a\n\0\0\xff\xfe", "is binary"),
    (b"\x80\x04\x95\x10\x00\x00\x00", "is binary"), (b"%PDF-1.7\n\xe2\xe3", "is a PDF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel file"),
    ("text,label\n味道很好吃的东西真不错,好\n".encode("gb18030"), "gb18030"),
    ("текст,label\nочень хороший фильм,да\n".encode("cp1251"), "cp1251"),
    ("text,label\nun café,x\n".encode("cp1252"), "looks like Windows-1252")])
def test_what_kind_of_file_it_is(tmp_path, raw, words):
    with pytest.raises(InputError, match=words) as e: read_table(write(tmp_path, "a.csv", raw))
    assert ("Windows-1252" in str(e.value)) == ("Windows-1252" in words)


@pytest.mark.parametrize("value, name", [
    (1, "1"), (1.0, "1"), ("1.0", "1"), ("1", "1"), ("-2.00", "-2"), (1.5, "1.5"), ("1.5", "1.5"),
    (True, "true"), (Decimal("2.0"), "2"), (datetime.date(2024, 5, 1), "2024-05-01"),
    (datetime.datetime(2024, 5, 1), "2024-05-01"), (["a"], "a"), ([1.0], "1"), (["a", "a"], "a"),
    (["a", "b"], None), ([], None), ({}, None), (None, None), ("  ", None), (float("nan"), None),
    ("v1.0", "v1.0"), ("x" * 300, None)])
def test_labels(value, name):
    assert label_value(value) == name


def test_several_labels_are_named(tmp_path):
    rows = [*ROWS, {"text": "both", "label": ["yes", "no"]}]
    with pytest.raises(InputError, match=r"2 labels in this row: \['yes', 'no'\] – leave one"):
        read_table(write(tmp_path, "a.json", rows))


@pytest.mark.parametrize("first, second", [
    ("1", "1.0"), ("1.0", 1), (1.0, "1"), ("é", "e\u0301"), ("ＡＢ", "AB"), ("a\u200bb", "ab"),
    ("Spam", "spam")])
def test_a_label_of_the_test_file_is_one_of_the_run(tmp_path, first, second):
    rows = [{"text": f"text {i}", "label": first if i % 2 else "other"} for i in range(20)]
    train = write(tmp_path, "a.json", rows)
    test = write(tmp_path, "b.json", [{"text": "new", "label": second}])
    splits = load_data(str(train), test=str(test))
    names = splits["train"].features["label"].names
    assert splits["test"].features["label"].names == names
    assert names[splits["test"][0]["label"]] != "other"


def test_spellings_that_look_the_same_are_one_label():
    kept = {"café": "café", "cafe\u0301": "café", "ｓｐａｍ": "spam", "spam": "spam",
            "sp\u200bam": "spam", "ham": "ham"}
    counts = Counter({value: 5 if value in kept.values() else 1 for value in kept})
    with held_notes() as notes: same = one_spelling(counts, "a.csv")
    assert same == kept
    assert len(notes) == 3 and all("look the same" in n for n in notes)


@pytest.mark.parametrize("rare, common", [
    ("relevant", "irrelevant"), ("hamm", "ham"), ("A101", "A100"), ("likely", "unlikely")])
def test_a_rare_class_with_a_name_like_anothers(rare, common):
    counts = Counter({common: 1500, "third": 900, rare: 10})
    with held_notes() as notes: names = label_names(counts, {}, "a.csv")
    assert set(names) == {common, "third", rare}
    assert len(notes) <= 1 and all(repr(rare) in n for n in notes)


@pytest.mark.parametrize("values", [
    [f"{i / 20:.2f}" for i in range(101)], [i / 100 for i in range(101)],
    [f"{i / 10:.1f}".replace(".", ",") for i in range(101)]])
def test_scores_are_no_classes(tmp_path, values):
    rows = [{"text": f"text {i}", "label": values[i % len(values)]} for i in range(300)]
    with pytest.raises(InputError, match="different numbers .* scores, not classes"):
        read_table(write(tmp_path, "a.json", rows))


def test_half_stars_are_classes(tmp_path):
    rows = [{"text": f"text {i}", "label": f"{i % 10 / 2:.1f}"} for i in range(300)]
    names = read_table(write(tmp_path, "a.json", rows)).features["label"].names
    assert names[:2] == ["0", "1"] and len(names) == 10 and "4.5" in names


def test_what_its_annotators_rejected_does_not_count(tmp_path):
    rows = [{"text": t, "label": "spam" if i % 2 else "ham", "answer": "accept"}
            for i, (t, _) in enumerate(PLAIN)]
    rows += [{"text": "wrong", "label": "spam", "answer": "reject"},
             {"text": "unclear", "label": "ham", "answer": "ignore"}]
    with held_notes() as notes: table = read_table(write(tmp_path, "a.jsonl", as_lines(rows)))
    assert len(table) == 20 and "2 rows that their annotator rejected" in notes[0]
    cancelled = [annotated(*row) for row in PLAIN] + [annotated("skipped", "yes", True)]
    assert len(read_table(write(tmp_path, "b.json", cancelled))) == 20
    answers = [{"text": t, "answer": "reject" if y == "no" else "accept"} for t, y in PLAIN]
    table = read_table(write(tmp_path, "c.json", answers), label="answer")
    assert names_and_counts(table) == {"accept": 10, "reject": 10}


@pytest.fixture
def folders(tmp_path):
    for text, label in PLAIN:
        (tmp_path / "films" / label).mkdir(parents=True, exist_ok=True)
        write(tmp_path / "films" / label, f"{text}.txt", text)
    write(tmp_path / "films", "urls.lst", "not a text")
    return tmp_path / "films"


def test_a_folder_for_each_class(folders, monkeypatch):
    assert names_and_counts(read_table(folders)) == {"no": 10, "yes": 10}
    monkeypatch.chdir(folders.parent)
    recipe = Recipe(data="films", validation="films")
    check_inputs(recipe)
    assert recipe.data == recipe.validation == str(folders)
    assert len(load_data("films")["train"]) == 12
    with pytest.raises(InputError, match="a folder with a folder of .txt files for each class"):
        check_inputs(Recipe(data="."))


def test_names_for_columns_without_a_header(tmp_path):
    path = write(tmp_path, "a.tsv", lines(PLAIN, "\t", header=None))
    with pytest.raises(InputError, match="no text column found"): read_table(path)
    assert len(read_table(path, header="text,label")) == 20
    assert len(read_table(path, header="film, verdict", text="film", label="verdict")) == 20
    with pytest.raises(InputError, match="2 fields, the header has 3"):
        read_table(path, header="a,b,c")
    with pytest.raises(InputError, match="is there twice"): read_table(path, header="a,a")
    with pytest.raises(InputError, match="names its columns itself"):
        read_table(write(tmp_path, "a.json", ROWS), header="text,label")
    assert guess_header(["0", "a dull little film"]) == "label,text"
    assert guess_header(["a"]) == "text"


ADVICE = re.compile(r"(encoding|delimiter|header|labels)=('[^']*'|[^\s;]+)")
HELPED = {
    "latin.csv": lines([("un café", "yes"), *PLAIN]).encode("cp1252"),
    "semicolon.csv": lines(PLAIN, ";"), "tabs.csv": lines(PLAIN, "\t"),
    "bar.csv": lines(PLAIN, "|"), "bare.csv": lines(PLAIN, header=None),
    "bare.tsv": lines([row[::-1] for row in PLAIN], "\t", header=None),
    "ids.csv": lines([(str(i), *row) for i, row in enumerate(PLAIN)], header=None),
    "case.csv": lines([*PLAIN, ("more", "Yes")]),
}


@pytest.mark.parametrize("name", HELPED)
def test_advice_that_is_followed_helps(tmp_path, name):
    path = write(tmp_path, name, HELPED[name])
    with pytest.raises(InputError) as e: read_table(path)
    option, value = ADVICE.search(str(e.value)).groups()
    value = value.strip("'")
    if option == "labels": value = value.split(",")
    assert names_and_counts(read_table(path, **{option: value})).keys() == {"no", "yes"}


def test_quotes_as_the_advice_has_them(tmp_path):
    broken = lines([('"Wait" she said', "yes"), *PLAIN])
    with pytest.raises(InputError, match="a quote inside a text .* double those inside"):
        read_table(write(tmp_path, "a.csv", broken))
    mended = broken.replace('"Wait" she said', '"""Wait"" she said"')
    assert read_table(write(tmp_path, "b.csv", mended))[0]["text"] == '"Wait" she said'


AUDITED = {
    "two.csv": (lines([("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")]), 4, ["too few"]),
    "one_class.csv": (lines([(t, "x") for t, _ in PLAIN]), 20, ["every row has the label 'x'"]),
    "empty.csv": (lines([*PLAIN, ("  ", "yes"), ("no label", "")]), 20, ["no text", "no label"]),
    "misfit.csv": (lines([*PLAIN, ("a, b", "yes")]), 20, ["3 fields, the header has 2"]),
    "case.csv": (lines([*PLAIN, *[(f"{t}!", "Yes") for t, _ in PLAIN]]), 40, ["looks like"]),
    "scores.csv": (lines([(f"t{i}", f"{i}.5") for i in range(60)]), 60, ["scores, not classes"]),
    "json.jsonl": (as_lines(ROWS) + '\n{"text": "cut', 20, ["not JSON"]),
    "late.csv": (swallowing(3, 9), 14, ["closed late"]),
}


@pytest.mark.parametrize("name", AUDITED)
def test_an_audit_reports_what_training_would_refuse(tmp_path, name, capfd):
    content, rows, words = AUDITED[name]
    path = write(tmp_path, name, content)
    with pytest.raises(InputError): load_data(str(path))
    options = dict.fromkeys(("text", "label", "encoding", "delimiter", "header"))
    splits, problems = load_to_audit(str(path), **options)
    assert sum(map(len, splits.values())) == rows
    assert all(any(word in p for p in problems) for word in words), problems
    with pytest.raises(SystemExit) as end:
        main(["audit", "--data", str(path), "--out", str(tmp_path / "page.html")])
    out, error = capfd.readouterr()
    assert end.value.code == 0 and "training would stop at" in out and words[0] in out
    page = html.unescape((tmp_path / "page.html").read_text())
    assert "Warning" not in error and words[0] in page


def test_an_audit_of_nothing(tmp_path):
    for content in ("text,label\n,x\n,y\n", "text,label\n"):
        path = write(tmp_path, "a.csv", content)
        with pytest.raises(InputError): load_to_audit(str(path), text=None)


def test_notes_on_the_parts(tmp_path, capfd):
    rare = [(f"text {i}", "spam" if i % 100 == 0 else "ham") for i in range(1000)]
    path = str(write(tmp_path, "a.csv", lines(rare)))
    few = str(write(tmp_path, "b.csv", lines(rare[:5] + [("new", "ham")])))
    with held_notes() as notes: load_data(path, validation=path, test=few)
    assert any("validation part is the training data itself" in n for n in notes)
    assert any("test part has 5 of its 6 rows in training" in n for n in notes)
    assert any("99.0% of the training rows are of class 'ham'" in n for n in notes)
    with pytest.raises(SystemExit): main(["audit", "--data", path, "--json"])
    out, error = capfd.readouterr()
    assert error.count("note: ") == error.count("\n") == 2 and json.loads(out)["problems"] == []


def test_nothing_is_said_before_a_refusal(tmp_path):
    good = write(tmp_path, "a.csv", lines(PLAIN))
    bad = write(tmp_path, "b.csv", lines([("a", "z")]))
    with held_notes() as notes, pytest.raises(InputError): load_data(str(good), test=str(bad))
    assert notes == []


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_other_tasks_read_the_same_rows(tmp_path, name):
    content = {"a.csv": lines(PLAIN), "a.tsv": lines(PLAIN, "\t"), "a.json": BY_COLUMN,
               "a.jsonl": as_lines(ROWS)}[name]
    assert [row for _, row in read_rows(write(tmp_path, name, content))] == ROWS


def test_labels_that_are_allowed_are_found_as_they_are_written(tmp_path):
    rows = [{"text": f"text {i}", "label": float(i % 2)} for i in range(20)]
    table = read_table(write(tmp_path, "a.json", rows), labels=["0.0", "1.0"])
    names = table.features["label"].names
    assert names == ["0.0", "1.0"] # as an older run has them


def test_a_run_says_what_it_cut_and_what_it_always_answers(tmp_path, capfd):
    rows = [(f"item {i} was read. " * 200, "spam" if i % 15 == 0 else "ham") for i in range(60)]
    path, out = write(tmp_path, "a.csv", lines(rows)), tmp_path / "run"
    with pytest.raises(SystemExit) as end:
        main(["fine-tune", "--data", str(path), "--out", str(out), "--max-length", "2048",
              "--epochs", "1"])
    shown, error = capfd.readouterr()
    assert end.value.code == 0, error
    recipe = json.loads((out / "recipe.json").read_text())
    assert recipe["max_length"] == 256 and "2048" not in (out / "README.md").read_text()
    assert "max_length is 256, not 2048" in error
    assert re.search(r"(\d+) of \1 texts are longer than 256 tokens and are cut, more than", error)
    assert "the text is read from 'text', the label from 'label'" in error
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["only_answer"] == "ham" and "answers 'ham' to every row" in shown
    assert "answers 'ham' to every row" in (out / "README.md").read_text()
    with pytest.raises(SystemExit): main(["predict", str(out), "item 3 " * 300])
    assert "1 of 1 texts are longer than 256 tokens" in capfd.readouterr().err
    with pytest.raises(SystemExit): main(["evaluate", str(out), "--data", str(path)])
    said = capfd.readouterr().err
    assert "were trained on" in said and said.count("is read from") == 1


@pytest.mark.parametrize("sign", ["；", "\ud800", "\u2028"])
def test_a_sep_line_may_name_any_character(sign):
    raw = f"sep={sign}\ntext{sign}label\nGood{sign}yes\n".encode("utf-8", "surrogatepass")
    assert read_delimited(raw, "a.csv") == [("a.csv:3", {"text": "Good", "label": "yes"})]
