"""Files and arguments as strangers have them: what the command line answers, case by case.

A row is the name of a file with its content, further arguments, the exit code, and parts of what is
said. Where a message advises something, the row after it follows the advice and is done. No row
needs a model.
"""
import datetime
import io
import json
import os
import re
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from course_lib.cli import main

PLAIN = [(f"room {i} was {'cold' if i % 2 else 'warm'}", "no" if i % 2 else "yes")
         for i in range(20)]
ROWS = [{"text": t, "label": y} for t, y in PLAIN]


def lines(rows=PLAIN, delimiter=",", header="text,label", end="\n"):
    first = [header.replace(",", delimiter)] if header else []
    return end.join([*first, *(delimiter.join(row) for row in rows), ""])


def labelled(*labels): return lines([(PLAIN[i][0], labels[i % len(labels)]) for i in range(20)])
def more(*rows): return lines([*PLAIN, *rows])
def as_lines(rows): return "\n".join(json.dumps(row) for row in rows)


def parquet(**columns):
    "Twenty rows, with the columns given in place of the usual ones."
    usual = {"text": [t for t, _ in PLAIN], "label": [y for _, y in PLAIN]}
    buffer = io.BytesIO()
    pq.write_table(pa.table({**usual, **columns}), buffer)
    return buffer.getvalue()



DAYS = [datetime.date(2024, 1, 1 + i % 2) for i in range(20)]
GOOD, BAD = 0, 2
TABLES = [ # (file, content, arguments, exit code, parts of what is said)
    # encodings
    ("bom.csv", b"\xef\xbb\xbf" + lines().encode(), "", GOOD, "'text'"),
    ("utf16le.csv", lines().encode("utf-16"), "", BAD, "is UTF-16|save it as CSV UTF-8"),
    ("utf16saved.csv", lines(), "", GOOD, "'text'"),
    ("utf16given.csv", lines().encode("utf-16"), "--encoding utf-16", GOOD, "'text'"),
    ("utf16be.csv", b"\xfe\xff" + lines().encode("utf-16-be"), "", BAD, "is UTF-16"),
    ("latin.csv", more(("un café", "yes")).encode("cp1252"), "", BAD, ":22|0xE9|--encoding cp1252"),
    ("latin1252.csv", more(("un café", "yes")).encode("cp1252"), "--encoding cp1252", GOOD, ""),
    ("mixed.csv", (more().encode() + "été,yes\n".encode() + "été,no\n".encode("cp1252")), "", BAD,
     ":23|not UTF-8"),
    ("cyrillic.csv", "text,label\nочень хороший фильм,да\n".encode("cp1251"), "", BAD, "cp1251"),
    ("cyrillic1251.csv", lines([(f"фильм {i}", "да" if i % 2 else "нет") for i in range(20)])
     .encode("cp1251"), "--encoding cp1251", GOOD, "да"),
    ("chinese.csv", "text,label\n味道很好吃的东西真不错,好\n".encode("gb18030"), "", BAD,
     "gb18030"),
    ("chinese18030.csv", lines([(f"味道很好{i}", "好" if i % 2 else "坏") for i in range(20)])
     .encode("gb18030"), "--encoding gb18030", GOOD, "characters"),
    ("japanese.csv", lines([(f"とても良い{i}", "良" if i % 2 else "悪") for i in range(20)])
     .encode("shift_jis"), "--encoding shift_jis", GOOD, "characters"),
    ("noname.csv", lines(), "--encoding utf-9", BAD, "no encoding is called 'utf-9'|try utf-8"),
    ("named.csv", lines(), "--encoding utf-8", GOOD, ""),
    ("bytes.csv", lines(), "--encoding hex", BAD, "no encoding is called 'hex'"),
    ("wrong.csv", more(("un café", "yes")), "--encoding ascii", BAD,
     "0xC3 is not ascii|--encoding"),
    ("right.csv", more(("un café", "yes")), "--encoding utf-8", GOOD, ""),
    ("zero.csv", lines().replace("room 3", "room\0 3"), "", BAD, ":5|zero byte"),
    # other kinds of files
    ("excel.csv", b"PK\x03\x04xxxx", "", BAD, "an Excel or zip file|save it as CSV UTF-8"),
    ("excel.xlsx", b"PK\x03\x04xxxx", "", BAD, "an Excel or zip file"),
    ("old.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "", BAD, "an old Excel file"),
    ("paper.csv", b"%PDF-1.7\n", "", BAD, "is a PDF"),
    ("packed.csv", b"\x1f\x8b\x08\0", "", BAD, "gzip-compressed|unpack it first"),
    ("page.csv", "<!DOCTYPE html><p>", "", BAD, "a web page, not data"),
    ("page.json", "<html><p>", "", BAD, "a web page, not data"),
    ("pointer.csv", "version https://git-lfs.github.com/spec/v1\noid x\n", "", BAD, "git lfs pull"),
    ("parquet.csv", parquet(), "", BAD, "is Parquet|ending .parquet"),
    ("renamed.parquet", parquet(), "", GOOD, "'text'"),
    ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\xff\xfe", "", BAD, "is binary, not text"),
    ("empty.csv", b"", "", BAD, "is empty|put something in"),
    ("filled.csv", lines(), "", GOOD, ""),
    ("spaces.csv", " \n\n ", "", BAD, "is empty"),
    ("bomonly.csv", b"\xef\xbb\xbf", "", BAD, "is empty"),
    ("empty.json", "", "", BAD, "is empty"), ("empty.parquet", b"", "", BAD, "is empty"),
    # line ends, delimiters, headers
    ("cr.csv", lines(end="\r"), "", GOOD, ""), ("crlf.csv", lines(end="\r\n"), "", GOOD, ""),
    ("noend.csv", lines().rstrip(), "", GOOD, ""), ("blanks.csv", "\n\n" + lines(), "", GOOD, ""),
    ("semicolon.csv", lines(delimiter=";"), "", BAD, "only one column|--delimiter ';'"),
    ("semicolons.csv", lines(delimiter=";"), "--delimiter ;", GOOD, ""),
    ("tabs.csv", lines(delimiter="\t"), "", BAD, "separated by '\\t'|--delimiter '\\t'"),
    ("tab.csv", lines(delimiter="\t"), "--delimiter \\t", GOOD, ""),
    ("bars.csv", lines(delimiter="|"), "", BAD, "--delimiter '|'"),
    ("bar.csv", lines(delimiter="|"), "--delimiter |", GOOD, ""),
    ("commas.tsv", lines(), "", BAD, "separated by ','|--delimiter ','"),
    ("comma.tsv", lines(), "--delimiter ,", GOOD, ""),
    ("two.csv", lines(delimiter="::"), "--delimiter ::", BAD, "can't be used|give one character"),
    ("one.csv", lines(delimiter=":"), "--delimiter :", GOOD, ""),
    ("quote.csv", lines(), '--delimiter "', BAD, "can't be used"),
    ("sep.csv", "sep=;\n" + lines(delimiter=";"), "", GOOD, ""),
    ("bare.csv", lines(header=None), "", BAD, "no text column|--header text,label"),
    ("baretold.csv", lines(header=None), "--header text,label", GOOD, ""),
    ("three.csv", lines(), "--header a,b,c", BAD, "2 fields, the header has 3"),
    ("named.json", json.dumps(ROWS), "--header text,label", BAD, "names its columns itself"),
    ("itself.json", json.dumps(ROWS), "", GOOD, ""),
    ("headeronly.csv", "text,label\n", "", BAD, "has no rows"),
    ("twice.csv", "text,label,text\na,x,1\nb,y,2\n", "", BAD, "'text' is there twice|rename"),
    ("once.csv", lines([(*row, "1") for row in PLAIN], header="text,label,text2"), "", GOOD, ""),
    ("capitals.csv", lines(header="TEXT,Label"), "", GOOD, "'TEXT'"),
    ("padded.csv", lines(header=" text , label "), "", GOOD, ""),
    ("unnamed.csv", lines([(*row, "", "") for row in PLAIN], header="text,label,,"), "", GOOD, ""),
    ("german.csv", lines(header="Satz,Klasse"), "", BAD, "no text column|--text NAME"),
    ("deutsch.csv", lines(header="Satz,Klasse"), "--text Satz --label Klasse", GOOD, "'Satz'"),
    ("review.csv", lines(header="review,stars"), "", BAD, "no label column|--label NAME"),
    ("stars.csv", lines(header="review,stars"), "--label stars", GOOD, "'stars'"),
    ("nocolumn.csv", lines(), "--text body", BAD, "no column 'body'|the columns are"),
    ("column.csv", lines(), "--text text", GOOD, ""),
    ("nolabel.csv", lines(), "--label kind", BAD, "no column 'kind'"),
    ("joined.csv", lines([("a", *row) for row in PLAIN], header="title,text,label"),
     "--text title,text", GOOD, "'title', 'text'"),
    # ragged rows and quotes (audit goes on without them)
    ("long.csv", more(("a", "b", "yes")), "", GOOD, "3 fields, the header has 2|put quotes"),
    ("quoted.csv", more(('"a, b"', "yes")), "", GOOD, ""),
    ("short.csv", more(("a",)), "", GOOD, "1 fields, the header has 2|fill in"),
    ("allshort.csv", "text,label\na\nb\n", "", BAD, "fields, the header has 2"),
    ("inside.csv", 'text,label\n"Wait" she said,yes\n', "", BAD, "a quote inside|double those"),
    ("doubled.csv", more(('"""Wait"" she said"', "yes")), "", GOOD, ""),
    ("open.csv", 'text,label\n"a,no\nb,yes\n', "", BAD, ":2|never closed|lines 2 to 3"),
    ("closed.csv", more(('"a"', "no")), "", GOOD, ""),
    ("words.tsv", lines([('"Wait" she said', "no"), *PLAIN], "\t"), "", GOOD, ""),
    ("lines.csv", more(('"one\ntwo"', "no")), "", GOOD, ""),
    ("huge.csv", more(("word " * 50_000, "no")), "", GOOD, "unusual length"),
    ("many.csv", lines([(*row, *"x" * 500) for row in PLAIN],
                       header="text,label," + ",".join(f"c{i}" for i in range(500))), "", GOOD, ""),
    # texts
    ("blank.csv", more(("  ", "yes")), "", GOOD, "no text in this row|fill it in"),
    ("allblank.csv", "text,label\n,x\n,y\n", "", BAD, "no text in this row"),
    ("nothing.csv", more(("NA", "yes"), ("null", "no"), ("None", "no")), "", GOOD, ""),
    ("hidden.csv", more(("a\u200b\u202eb\u00ad", "yes")), "", GOOD, ""),
    ("emoji.csv", more(("👩‍👩‍👧", "yes"), ("🙂", "no")), "", GOOD, ""),
    ("control.csv", more(("a\x07b", "yes")), "", GOOD, "encoding damage"),
    ("mojibake.csv", more(("cafÃ© is good.", "yes")), "", GOOD, "encoding damage"),
    ("markup.csv", more(("<b>good</b>", "yes")), "", GOOD, "markup"),
    ("arabic.csv", lines([(f"كان الفيلم رائعا {i}", "جيد" if i % 2 else "سيئ") for i in range(20)]),
     "", GOOD, "جيد"),
    ("thai.csv", lines([(f"อร่อยมาก{i}", "a" if i % 2 else "b") for i in range(20)]), "", GOOD,
     "characters"),
    ("hindi.csv", lines([(f"फिल्म अच्छी थी {i}।", "a" if i % 2 else "b") for i in range(20)]), "",
     GOOD,
     "words"),
    ("copies.csv", more(*PLAIN[:4]), "", GOOD, "copy"),
    ("contrary.csv", more((PLAIN[0][0], "no")), "", GOOD, "two labels"),
    # labels
    ("single.csv", labelled("x"), "", GOOD, "every row has the label 'x'|at least two classes"),
    ("numbers.csv", labelled("1", "0"), "", GOOD, ""),
    ("points.csv", labelled("1.0", "0.0"), "", GOOD, ""),
    ("truth.csv", labelled("True", "False"), "", GOOD, "True"),
    ("negative.csv", labelled("-1", "1"), "", GOOD, "-1"),
    ("case.csv", labelled("Spam", "spam", "ham"), "", GOOD, "looks like"),
    ("width.csv", labelled("ｓｐａｍ", "spam", "ham"), "", GOOD, "look the same"),
    ("composed.csv", labelled("é", "e\u0301", "b"), "", GOOD, "look the same"),
    ("zerowidth.csv", labelled("a\u200b", "a", "b"), "", GOOD, "look the same"),
    ("emojis.csv", labelled("👍", "👎"), "", GOOD, "👍"),
    ("unlabelled.csv", more(("good", "")), "", GOOD, "no label in this row|fill it in"),
    ("alone.csv", more(("good", "other")), "", GOOD, "'other'|too few"),
    ("scores.csv", lines([(f"t{i}", f"{i}.5") for i in range(60)]), "", GOOD,
     "scores, not classes"),
    ("different.csv", lines([(f"t{i}", f"l{i}") for i in range(1001)]), "", GOOD,
     "1001 different labels|is this the label column?"),
    ("longlabel.csv", more(("good", "x" * 300)), "", GOOD, "no label in this row"),
    ("spacelabel.csv", labelled(" yes ", "no"), "", GOOD, "yes"),
    # JSON
    ("list.json", json.dumps(ROWS), "", GOOD, ""), ("lines.json", as_lines(ROWS), "", GOOD, ""),
    ("list.jsonl", json.dumps(ROWS), "", GOOD, ""),
    ("lines.ndjson", as_lines(ROWS), "", GOOD, ""),
    ("columns.json", json.dumps({k: [r[k] for r in ROWS] for k in ("text", "label")}), "", GOOD,
     ""),
    ("below.json", json.dumps({"version": 2, "rows": ROWS}), "", GOOD, ""),
    ("cut.json", json.dumps(ROWS)[:-20], "", BAD, "not JSON|a list of objects"),
    ("cut.jsonl", as_lines(ROWS)[:-9], "", GOOD, ":20|not JSON"),
    ("scalar.json", "5", "", BAD, "an object with columns is expected|5"),
    ("word.json", '"text"', "", BAD, "object with columns"),
    ("null.json", "null", "", BAD, "object"),
    ("emptylist.json", "[]", "", BAD, "has no rows"),
    ("emptyobject.json", "{}", "", BAD, "has no columns"),
    ("emptyobjects.jsonl", "{}\n{}\n", "", BAD, "has no columns"),
    ("lists.json", "[[1, 2], [3, 4]]", "", BAD, "list where an object"),
    ("listinlist.jsonl", as_lines(ROWS) + '\n["a", "b"]', "", GOOD, ":21|list where an object"),
    ("keytwice.jsonl", '{"text": "a", "label": "x", "label": "y"}', "", BAD,
     "'label' is there twice"),
    ("comment.json", "// rows\n" + json.dumps(ROWS), "", BAD, "not JSON"),
    ("single.json", "[{'text': 'a'}]", "", BAD, "not JSON"),
    ("deep.json", "[" * 100_000, "", BAD, "not JSON"), ("nan.json", "[NaN]", "", BAD, "object"),
    ("number.jsonl", as_lines([*ROWS, {"text": 5, "label": "yes"}]), "", GOOD,
     "no text in this row"),
    ("missing.jsonl", as_lines([*ROWS, {"text": "b"}]), "", GOOD, "no label in this row"),
    ("several.jsonl", as_lines([*ROWS, {"text": "b", "label": ["yes", "no"]}]), "", GOOD,
     "2 labels in this row|leave one"),
    ("onelabel.jsonl", as_lines([{**r, "label": [r["label"]]} for r in ROWS]), "", GOOD, ""),
    ("nested.jsonl", as_lines([{**r, "text": {"en": r["text"]}} for r in ROWS]), "", BAD,
     "no text"),
    ("surrogate.jsonl", as_lines([*ROWS, {"text": "\ud800", "label": "no"}]), "", GOOD,
     "surrogate"),
    ("bom.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode(), "", GOOD, ""),
    ("boolean.json", json.dumps([{**r, "label": r["label"] == "no"} for r in ROWS]), "", GOOD,
     "true"),
    ("fast.txt", "".join(f"__label__{y} {t}\n" for t, y in PLAIN), "", GOOD, ""),
    # Parquet
    ("plain.parquet", parquet(), "", GOOD, ""),
    ("cut.parquet", parquet()[:-20], "", BAD, "not a whole Parquet file|get it again"),
    ("notone.parquet", b"PAR1 and not much more", "", BAD, "not a whole Parquet file"),
    ("text.parquet", lines(), "", BAD, "not a whole Parquet file"),
    ("dates.parquet", parquet(label=DAYS), "", GOOD, "2024-01-01"),
    ("times.parquet", parquet(label=pa.array([datetime.datetime(2024, 1, 1 + i % 2)
                                              for i in range(20)])), "", GOOD, "2024-01-02"),
    ("decimals.parquet", parquet(label=[Decimal(f"{i % 2}.0") for i in range(20)]), "", GOOD, ""),
    ("bytes.parquet", parquet(text=[t.encode() for t, _ in PLAIN]), "", BAD, "no text in this row"),
    ("category.parquet", parquet(label=pa.array([y for _, y in PLAIN]).dictionary_encode()), "",
     GOOD, "yes"),
    ("floats.parquet", parquet(label=[float(i % 2) for i in range(20)]), "", GOOD, ""),
    ("nested.parquet", parquet(extra=[{"a": [{"b": i}]} for i in range(20)]), "", GOOD, ""),
    ("lists.parquet", parquet(label=[[y] for _, y in PLAIN]), "", GOOD, "yes"),
    ("nulls.parquet", parquet(label=pa.array([None, *[y for _, y in PLAIN[1:]]])), "", GOOD,
     "no label in this row"),
    ("header.parquet", parquet(), "--header text,label", BAD, "names its columns itself"),
]
ARGUMENTS = [ # (arguments, exit code, parts of what is said)
    ("audit --data gone.csv", BAD, "no such file"), ("audit --data a.csv", GOOD, "train"),
    ("audit --data .", BAD, "is a folder|.txt files for each class"),
    ("audit --data classes", GOOD, "train"), ("audit --data link.csv", GOOD, "train"),
    ("audit --data loose.csv", BAD, "no such file"),
    ("audit --data circle.csv", BAD, "can't be read"),
    ("audit --data", BAD, "requires an argument|course audit --help"),
    ("audit", BAD, "Missing option '--data'"), ("audit --dat a.csv", BAD, "No such option|--data"),
    ("audit --data a.csv more", BAD, "unexpected extra argument"),
    ("audit --data a.csv --out a.csv --force", BAD, "is read here"),
    ("audit --data a.csv --out old.html", BAD, "there already|--force"),
    ("audit --data a.csv --out old.html --force", GOOD, "page"),
    ("audit --data a.csv --out classes", BAD, "is a folder|the name of a file"),
    ("audit --data a.csv --out /proc/x/y.html", BAD, "can't be written"),
    (f"audit --data a.csv --out {'x' * 300}", BAD, "shorter name"),
    (f"audit --data {'x' * 5000}.csv", BAD, "can't be read"),
    ("audit --data a.csv --json", GOOD, '"splits"'), ("adit --data a.csv", BAD, "No such command"),
    ("fine-tune --data a.csv --device gpu", BAD, "can't be used here|cpu, cuda or mps"),
    ("fine-tune --data a.csv --epochs 0", BAD, "--epochs 0|not between 1"),
    ("fine-tune --data a.csv --epochs many", BAD, "--epochs|a valid integer"),
    ("fine-tune --data a.csv --learning-rate nan", BAD, "--learning-rate nan"),
    ("fine-tune --data a.csv --learning-rate 20", BAD, "not between 0 and 10"),
    ("fine-tune --data a.csv --max-length 1", BAD, "not between 2"),
    ("fine-tune --data a.csv --dropout 1", BAD, "not between 0 and 0.9"),
    ("fine-tune --data a.csv --lora-rank 0", BAD, "not between 1"),
    ("fine-tune --data a.csv --labels a", BAD, "two or more different names"),
    ("fine-tune --data a.csv --labels a,a", BAD, "two or more different names"),
    ("fine-tune --data a.csv --task dance", BAD, "is not known|text-classification"),
    ("fine-tune --data a.csv --lr-scheduler-type steep", BAD, "it can be linear"),
    ("fine-tune --data a.csv --class-weight heavy", BAD, "it can be balanced"),
    ("fine-tune --data a.csv --resume --force", BAD, "contradict each other"),
    ("fine-tune --data a.csv --out a.csv", BAD, "is a file"),
    ("fine-tune --data a.csv --out .", BAD, "lies in it and would be lost|--out FOLDER"),
    ("fine-tune --data a.csv --validation gone.csv", BAD, "no such file"),
    ("run --preset huge", BAD, "is not known|tiny"),
    ("evaluate gone --data a.csv", BAD, "no run folder"),
    ("predict gone hello", BAD, "no run folder"), ("predict cut hello", BAD, "no model yet"),
    ("compare cut gone --data a.csv", BAD, "no model yet|resume it first"),
    ("export gone --onnx", BAD, "no run folder"), ("watch gone --data a.csv", BAD, "no run folder"),
    ("grade gone.ipynb", BAD, "no such file"), ("grade a.csv", BAD, "can't be read as a notebook"),
    ("pretrain --corpus gone.txt --family gpt2", BAD, "no such file"),
    ("build novels", BAD, "is no version|it can be student"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with a table, links, a folder for each class, an old page, a run that was cut off."
    (tmp_path / "a.csv").write_text(lines())
    (tmp_path / "old.html").write_text("old")
    for i, (text, label) in enumerate(PLAIN):
        (tmp_path / "classes" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "classes" / label / f"{i}.txt").write_text(text)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/recipe.json").write_text("{}")
    for name, target in ("link.csv", "a.csv"), ("loose.csv", "gone"), ("circle.csv", "circle.csv"):
        os.symlink(target, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def course(arguments):
    "Exit code, and all that was said."
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code, said.getvalue()


def check(arguments, code, parts):
    ended, said = course(arguments)
    assert ended == code and all(part in said for part in parts.split("|")), said
    if code == BAD: assert said.count("\n") == 1 and said.startswith("course: ")


@pytest.mark.parametrize("name, content, more, code, parts", TABLES, ids=[row[0] for row in TABLES])
def test_a_table(tmp_path, name, content, more, code, parts):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    check(["audit", "--data", str(path), *more.split(" ") * bool(more)], code, parts)


ADVICE = r"""--(encoding|delimiter|header|text|label) ('[^']*'|[^\s,;]+(?:,[^\s,;]+)*)"""
ADVISED = [row for row in TABLES if row[3] == BAD and "--" in row[4]]
NAMES = {"cyrillic.csv": ["cp1251"], "chinese.csv": ["gb18030"], "wrong.csv": ["utf-8"],
         "bare.csv": ["'room 0 was warm'", "yes"], "german.csv": ["Satz", "Klasse"],
         "review.csv": ["stars"]} # what a reader puts in for NAME, in this order


def follow(said: str, arguments: list, names: list) -> list: # arguments
    "What somebody would type who does what the message says first."
    option, value = re.findall(ADVICE, said)[0]
    if "leave it out" in said:
        at = arguments.index(f"--{option}")
        return arguments[:at] + arguments[at + 2:]
    if value == "NAME": value = names.pop(0)
    kept = arguments[:arguments.index(f"--{option}")] if f"--{option}" in arguments else arguments
    return [*kept, f"--{option}", value.strip("'")]


@pytest.mark.parametrize("name, content, more, code, parts", ADVISED, ids=[r[0] for r in ADVISED])
def test_what_a_message_advises_works(tmp_path, name, content, more, code, parts):
    path, names = tmp_path / name, list(NAMES.get(name, []))
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    arguments, heard = ["audit", "--data", str(path), *more.split(" ") * bool(more)], set()
    code, said = course(arguments)
    while code == BAD:
        assert said not in heard, said
        heard.add(said)
        arguments = follow(said, arguments, names)
        code, said = course(arguments)
    assert code == GOOD and heard


@pytest.mark.parametrize("line, code, parts", ARGUMENTS, ids=[row[0][:60] for row in ARGUMENTS])
def test_a_command(place, line, code, parts):
    check(line.split(), code, parts)


def test_the_table_is_large_and_has_no_row_twice():
    assert len({(name, content, more) for name, content, more, _, _ in TABLES}) >= 120
    assert len({row[0] for row in TABLES}) + len({row[0] for row in ARGUMENTS}) >= 150
    assert len({row[0] for row in TABLES}) == len(TABLES)
