"""SQuAD files and tables of questions: all usual forms are read, and no bad file gets through."""
import itertools
import json

import pandas as pd
import pytest
from conftest import run_course
from datasets import Dataset, DatasetDict

from course_lib import squad as reader
from course_lib.errors import InputError
from course_lib.squad import (
    marked, marked_html, read_more_questions, read_pairs, read_question_splits, read_questions)

RECIPE = {"data": "questions", "validation": None, "test": None, "seed": 0, "text": None,
          "label": None, "encoding": None, "delimiter": None}


def squad(*questions, context="Zoë rang 🔔 at nine; Åse slept.", **article):
    return {"version": "1.1", "data": [{"title": "Bells", "paragraphs": [
        {"context": context, "qas": list(questions)}], **article}]}


def asked(answers=({"text": "Åse", "answer_start": 20},), **more):
    return {"id": "q1", "question": "Who slept?", "answers": list(answers), **more}


def at(start, text="Åse"): return squad(asked([{"text": text, "answer_start": start}]))


FLAT = {"question": "Who slept?", "context": "Zoë rang; Åse slept."}
PLACE = "file, article 1, paragraph 1, question 1 – "
BAD = {
    "bytes": (at(24), PLACE + "answer_start 24 counts bytes – count characters: it is at 20"),
    "UTF-16": (at(21), PLACE + "answer_start 21 counts UTF-16 units – count characters: "
                               "it is at 20"),
    "from one": (squad(asked([{"text": "old", "answer_start": 1}]), context="old Moe"),
                 "answer_start 1 counts from 1 – count characters: it is at 0"),
    "elsewhere": (at(3), PLACE + "the answer 'Åse' is not at 3 – it is at 20"),
    "not there": (at(20, "Moe"), "the answer 'Moe' is not in its context – copy it from there"),
    "other capitals": (at(20, "åse"), "there with other capitals or white space; copy it"),
    "other form": (at(20, "A\u030ase"), "in another Unicode form; normalise both to NFC"),
    "beyond the end": (at(400), "is not at 400 – it is at 20"),
    "negative": (at(-10), "is not at -10 – it is at 20"),
    "a start as text": (at("20"), "answer_start '20' is not a whole number – it is at 20"),
    "true is no number": (at(True), "answer_start 'True' is not a whole number"),
    "an empty answer": (at(20, " "), "an answer is empty – fill it in"),
    "no text": (squad(asked([{"answer_start": 20}])), "an answer is empty"),
    "an empty question": (squad(asked(question=" ")),
                          PLACE + "column 'question' – no text in this row: ' '"),
    "no question": (squad({"id": "1", "answers": []}), "column 'question' – no text in this row"),
    "no context": (squad(asked(), context=None), "column 'context' – no text in this row: 'None'"),
    "half a character": (squad(asked(question="Wh\ud800?")), "half of a character"),
    "no answers": (squad({"id": "1", "question": "Who?"}),
                   "its answers can't be read: 'None' – write"),
    "answers of another kind": (squad({"id": "1", "question": "Who?", "answers": 7}),
                                "its answers can't be read: '7'"),
    "an answer though impossible": (squad(asked(is_impossible=True)),
                                    "is_impossible, but it has an answer – remove one"),
    "none though possible": (squad(asked([], is_impossible=False)),
                             "has no answer and isn't marked is_impossible"),
    "twice the same id": (squad(asked(), asked(question="Who else?")),
                          "file, article 1, paragraph 1, question 2 – its id 'q1' is also that of "
                          "file, article 1, paragraph 1, question 1 – give each its own"),
    "another part": (squad(asked(), part="dev"), "its part is 'dev' – it can be train, validation"),
    "data is no list": ({"data": {"title": "x"}}, "file – has no list 'data' – a SQuAD file is"),
    "no paragraphs": ({"data": [{"title": "x"}]}, "file, article 1 – has no list 'paragraphs'"),
    "no qas": ({"data": [{"paragraphs": [{"context": "x"}]}]},
               "file, article 1, paragraph 1 – has no list 'qas'"),
    "an article that is none": ({"data": [7]}, "file, data 1 – is not an object – take it out"),
    "no questions": ({"data": []}, "file – holds no questions – give a file with some"),
    "cut off": ('{"data": [\n{"title": "x", "para', "file:2 – not JSON"),
    "a table without context": ([{"question": "Who?", "answers": []}],
                                "file – no column 'context' – the columns are 'question'"),
    "no answers in a table": ([{**FLAT}], "file – no column 'answers'"),
    "which of two": ([{**FLAT, "context": "Åse and Åse", "answers": "Åse"}],
                     "is in its context at 0, 8 – say which one by answer_start"),
    "lists of unequal length": ([{**FLAT, "answers": {"text": ["Åse"], "answer_start": []}}],
                                "file, item 1 – its answers can't be read"),
    "a row that is none": ([FLAT | {"answers": []}, 7], "item 2 – int where an object"),
    "an empty file": ("", "is empty"),
    "half a character in a title": (squad(asked(), title="B\ud800"), "half of a character"),
    "half a character in an id": (squad(asked(id="\ud800")), "half of a character"),
    "an unknown mark": (squad(asked(is_impossible="perhaps")), PLACE + "is_impossible is 'perhaps' "
                        "– write true or false"),
    "another object": ('{"version": 1,\n"questions": []}', "file – is one object without 'data' – "
                       "a SQuAD file is data, paragraphs, qas; a table is a list of objects"),
    "an answer that was forgotten": ([{**FLAT, "answers": " "}], "file, item 1 – has no answer and "
                                     "isn't marked is_impossible – add the answer, or write true"),
    "a list that became text": ([{**FLAT, "answers": "{'text': ['Åse'], 'answer_start': [10]}"}],
                                "it looks like a list; save the table as JSON Lines or Parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_place_and_advice(tmp_path, name):
    content, words = BAD[name]
    path = tmp_path / "bad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(InputError) as refused: read_questions(path)
    said = str(refused.value).replace(str(path), "file")
    assert words in said, said
    assert all(" – " in problem for problem in refused.value.problems)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_only_twenty_problems_are_told(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(squad(*(asked(id=str(i), question="") for i in range(50)))))
    with pytest.raises(InputError) as refused: read_questions(path)
    assert len(refused.value.problems) == 20


def test_a_bad_file_leaves_no_folder(tmp_path):
    path, out = tmp_path / "bad.json", tmp_path / "run"
    path.write_text(json.dumps(at(24)))
    done = run_course("fine-tune", "--task", "question-answering", "--data", path, "--model",
                      "tiny-bert", "--out", out)
    assert done.returncode == 2 and "counts bytes" in done.stderr and not out.exists()


HUB = {"text": ["Åse"], "answer_start": [10]}
WAYS = {"hub.jsonl": HUB, "objects.jsonl": [{"text": "Åse", "answer_start": 10}],
        "texts.json": ["Åse"], "one.jsonl": "Åse"}


@pytest.mark.parametrize("name", WAYS)
def test_tables_in_their_ways(tmp_path, name):
    row = json.dumps({**FLAT, "id": 7, "answers": WAYS[name]}, ensure_ascii=False)
    text = f"[{row}]" if name.endswith(".json") else f"{row}\n"
    (tmp_path / name).write_text(text)
    (found,) = read_questions(tmp_path / name)
    assert found["answers"] == ["Åse"] and found["starts"] == [10] and found["id"] == "7"
    assert found["text"] == "Who slept?\tZoë rang; Åse slept."


def test_a_csv_parquet_and_other_names(tmp_path):
    table = pd.DataFrame([{"Q": "Who slept?", "T": "Zoë rang; Åse slept.", "A": "Åse"}])
    table.to_csv(tmp_path / "t.csv", index=False)
    table.assign(A=[["Åse"]]).to_parquet(tmp_path / "t.parquet")
    for path in (tmp_path / "t.csv", tmp_path / "t.parquet"):
        (row,) = read_questions(path, text="Q, T", label="A")
        assert row["answers"] == ["Åse"] and row["starts"] == [10]
    with pytest.raises(InputError, match="names 1 columns – give the question's and the context's"):
        read_questions(tmp_path / "t.csv", text="Q", label="A")


def test_squad_1_and_2(tmp_path):
    both = squad(asked(), asked([], id="q2", is_impossible=True, plausible_answers=[7]))
    (tmp_path / "two.json").write_text(json.dumps(both))
    rows = read_questions(tmp_path / "two.json")
    assert rows["answers"][:] == [["Åse"], []] and rows["title"][:] == ["Bells"] * 2
    name, again = read_more_questions(RECIPE, str(tmp_path / "two.json"), [])
    assert name == "two.json" and again.to_list() == rows.to_list()


def test_the_shipped_questions():
    splits = read_question_splits(RECIPE)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 345, "validation": 73, "test": 72}
    titles = [set(part["title"]) for part in splits.values()]
    assert not any(a & b for a, b in itertools.combinations(titles, 2))
    for part in splits.values():
        for row in part:
            for text, start in zip(row["answers"], row["starts"]):
                assert row["context"][start:start + len(text)] == text


@pytest.mark.parametrize("titled", [True, False])
def test_no_article_and_no_context_on_two_sides(tmp_path, titled):
    texts = [f"Text number {i // 3} is about {'abcdefghij'[i // 3 % 10]}." for i in range(120)]
    rows = [{"question": f"What is it, {i}?", "context": text, "answers": [],
             **({"title": f"t{i // 6}"} if titled else {})} for i, text in enumerate(texts)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    first, second = (read_question_splits({**RECIPE, "data": str(path), "seed": 3})
                     for _ in range(2))
    groups = [set(part["title" if titled else "context"]) for part in first.values()]
    assert len(groups) == 3 and not any(a & b for a, b in itertools.combinations(groups, 2))
    assert sum(map(len, first.values())) == 120 and first["test"]["id"] == second["test"]["id"]
    apart = read_question_splits({**RECIPE, "data": str(path), "validation": str(path)})
    assert set(apart) == {"train", "validation"} and len(apart["train"]) == 120


def test_a_data_set_of_the_hub(monkeypatch):
    part = Dataset.from_list([{**FLAT, "id": "a", "title": "t", "answers": HUB},
                              {**FLAT, "id": "b", "title": "t",
                               "answers": {"text": [], "answer_start": []}}])
    monkeypatch.setattr(reader, "ask_hub", lambda name: DatasetDict(train=part, validation=part))
    splits = read_question_splits({**RECIPE, "data": "somebody/squad_v2"})
    assert set(splits) == {"train", "validation"} and splits["train"]["starts"][:] == [[10], []]
    assert read_more_questions(RECIPE, "somebody/squad_v2", [])[0] == "validation"


# what is read and shown beside files

@pytest.mark.parametrize("text", ["no tab", "\tonly a context", "only a question\t ", "A\n B."])
def test_a_text_must_be_a_question_and_a_context(text):
    words = "text 1 – is not a question, a tab and a context: .* – write both"
    with pytest.raises(InputError, match=words): read_pairs([text])


def test_marks():
    assert marked("old Åse rang", 4, 7) == "old 【Åse】 rang" and marked("x", 0, 0) == "x"
    assert marked("old Åse", 4, 7, ("[", "]")) == "old [Åse]"
    assert marked_html("<i> & Åse", 6, 9) == "&lt;i&gt; &amp; <mark>Åse</mark>"
    assert marked_html("<i>", 0, 0) == "&lt;i&gt;"


# what nobody thinks of

def complaint(path) -> str:
    "What the reader says of a file."
    with pytest.raises(InputError) as refused: read_questions(path)
    return "\n".join(refused.value.problems)


def test_what_a_message_asks_for_in_a_table_can_be_written(tmp_path):
    "A place and a mark for no answer, each in a column, as in a SQuAD file."
    path, row = tmp_path / "t.csv", "Who?,Åse and Åse,"
    path.write_text(f"question,context,answers\n{row}Åse\n{row}\n")
    said = complaint(path)
    assert ":2 – the answer 'Åse' is in its context at 0, 8 – say which one by answer_start" in said
    assert ":3 – has no answer and isn't marked is_impossible" in said
    path.write_text("question,context,answers,answer_start,is_impossible\n"
                    f"{row}Åse,8,False\n{row},,TRUE\n")
    rows = read_questions(path)
    assert rows["starts"][:] == [[8], []] and rows["answers"][:] == [["Åse"], []]
    path.write_text(f"question,context,answers,answer_start\n{row}Åse,9\n")
    assert "answer_start 9 counts bytes – count characters: it is at 8" in complaint(path)
    path.write_text(f"question,context,answers,answer_start\n{row}Åse,8.0\n")
    assert "answer_start '8.0' is not a whole number – it is at 0, 8" in complaint(path)


def test_rows_that_lack_a_column_that_others_have(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, [FLAT, {**FLAT, "answers": ["Åse"]}])))
    assert complaint(path).startswith(f"{path}:1 – its answers can't be read: 'None' – write")


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_byte_order_marks_and_scripts(tmp_path, start, end):
    texts = ["ჩემი სახლი, ძველი", "北京市东城区", "بيت قديم في المدينة", "at 🔔 nine", "one\r\ntwo"]
    answers = ["სახლი", "东城", "قديم", "nine", "two"]
    rows = [{"id": i, "question": "?", "context": text, "answers": [answer]}
            for i, (text, answer) in enumerate(zip(texts, answers))]
    path = tmp_path / "t.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes((start + end.join(lines) + end).encode())
    found = read_questions(path)
    assert found["id"][:] == list("01234") and found["answers"][:] == [[a] for a in answers]
    for row, answer in zip(found, answers):
        assert row["context"][row["starts"][0]:][:len(answer)] == answer


def written(tmp_path, rows):
    "A recipe with a file of these rows."
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return {**RECIPE, "data": str(path)}


def test_parts_for_some_rows_only(tmp_path):
    rows = [{**FLAT, "id": f"q{i}", "answers": [], "part": part}
            for i, part in enumerate(["train", "", "test"])]
    with pytest.raises(InputError, match="question 'q1' has no part, others have – give each"):
        read_question_splits(written(tmp_path, rows))
    for row in rows: row["part"] = "test"
    with pytest.raises(InputError, match="t.jsonl – has no part to train on – give it one"):
        read_question_splits(written(tmp_path, rows))


@pytest.mark.parametrize("articles", [1, 2])
def test_too_few_articles_to_cut(tmp_path, articles):
    rows = [{**FLAT, "id": i, "title": f"t{i % articles}", "answers": []} for i in range(9)]
    for i, row in enumerate(rows): row["context"] += f" Text {i}."
    recipe = written(tmp_path, rows)
    words = f"t.jsonl – {articles} articles?, too few to cut .* – add some, or pass validation=FILE"
    with pytest.raises(InputError, match=words): read_question_splits(recipe)
    assert len(read_question_splits({**recipe, "validation": recipe["data"]})["train"]) == 9
