"""Exercises: every solution passes, every wrong answer is found out, no solution reaches a learner, and the grader survives what is handed in.

That all solutions pass and all wrong answers are rejected for the right reason is shown by the chapters themselves, which run
both; here we look that none of them lacks a part, and at what is made from them.
"""
import json
import re
import shutil
import sys

import nbformat
import pytest
from conftest import ROOT, run_course

from course_lib import exercises
from course_lib.cli import main
from course_lib.data import InputError
from course_lib.exercises import BEGIN, END, answers, build, check, find_exercises, grade, grade_folder, key, reject, source_of, student

CHAPTERS = {p.stem: nbformat.read(p, as_version=4) for p in sorted((ROOT / "nbs").glob("*.ipynb"))}
WITH = {name: notebook for name, notebook in CHAPTERS.items() if find_exercises(notebook)}


def solutions(notebook): return [(e, re.findall(rf"(?ms)^ *{BEGIN}\n(.*?)^ *{END}", source_of(notebook["cells"][e["solution"]]))) for e in find_exercises(notebook)]


def test_each_chapter_of_part_one_has_three():
    for chapter in ("01_data", "02_tokens", "03_models", "04_optim", "05_training", "06_evaluation", "07_tuning", "08_trainer", "09_prompting"):
        found = find_exercises(WITH[chapter])
        assert [e["exercise"] for e in found] == [f"{int(chapter[:2])}.{i}" for i in (1, 2, 3)] and [e["points"] for e in found] == [1, 2, 3]
        for e in found:
            task = source_of(WITH[chapter]["cells"][e["task"]])
            assert task.startswith(f"### Exercise {e['exercise']} · ") and "<summary>Hint" in task, task[:60]


@pytest.mark.parametrize("name", WITH)
def test_the_stored_run_has_full_points_and_rejections(name):
    "What the chapter's cells said when they were run; the chapters' own test compares it with what they say now."
    for e in find_exercises(WITH[name]):
        checked, wrong = (WITH[name]["cells"][e[k]] for k in ("check", "wrong"))
        assert exercises.points_of(checked) == (e["points"], [])
        rejected = re.findall(r"(?m)^✗ ", "".join(o.get("text", "") for o in wrong["outputs"]))
        assert len(rejected) == len(re.findall(r"(?m)^reject\(", source_of(wrong))) >= 2


@pytest.mark.parametrize("name", WITH)
def test_no_solution_reaches_a_learner(name):
    made = student(WITH[name], name)
    text = json.dumps(made, ensure_ascii=False)
    assert "BEGIN SOLUTION" not in text and "END SOLUTION" not in text and not re.search(r"(?m)^reject\(", "\n".join(source_of(c) for c in made["cells"]))
    sources = [re.sub(r"\s+", " ", source_of(c)) for c in made["cells"]]
    outputs = [json.dumps(c.get("outputs", [])) for c in made["cells"]]
    whole = "\n".join(source_of(c) for c in WITH[name]["cells"])
    for e, parts in solutions(WITH[name]):
        given = whole.replace("".join(parts), "")                 # a line that the task itself shows is no secret
        for line in [l.strip() for part in parts for l in part.splitlines() if len(l.strip()) > 25 and l.strip() not in given]:
            assert not any(re.sub(r"\s+", " ", line) in s for s in sources), f"{e['exercise']}: {line}"
            assert not any(line in o for o in outputs)
    ids = {c["id"]: c for c in made["cells"]}
    for e in find_exercises(WITH[name]):
        stub, checked = (ids[WITH[name]["cells"][e[k]]["id"]] for k in ("solution", "check"))
        assert stub["outputs"] == checked["outputs"] == [] and stub["execution_count"] is None
        assert stub["metadata"]["course"] == {"exercise": e["exercise"]} and "nbgrader" not in stub["metadata"]      # nbgrader would clear the whole cell, signature and all
        assert checked["metadata"]["nbgrader"] == {"schema_version": 3, "task": False, "cell_type": "code", "grade": True, "solution": False, "locked": True,
                                                                                                  "grade_id": f"check-{e['exercise'].replace('.', '-')}", "points": e["points"]}
    nbformat.validate(nbformat.from_dict(made))
    assert nbformat.validate(nbformat.from_dict(answers(WITH[name], name))) is None and "SOLUTION" not in "".join(source_of(c) for c in answers(WITH[name], name)["cells"] if c["cell_type"] == "code" and "BEGIN, END" not in source_of(c))


@pytest.mark.parametrize("name", WITH)
def test_a_stub_raises_one_error_and_is_not_done(name, capsys):
    for c in student(WITH[name], name)["cells"]:
        if "exercise" not in c["metadata"].get("course", {}): continue
        space = {}
        exec(compile("from __future__ import annotations\n" + source_of(c), name, "exec"), space)
        stub = [v for k, v in space.items() if callable(v)][-1]
        needed = stub.__code__.co_argcount - len(stub.__defaults__ or ())
        with pytest.raises(NotImplementedError): stub(*[None] * needed)

        def anything(answer):
            "Whatever."
            return answer(*[None] * needed)
        assert check("0", stub, anything, points=3) == 0 and "not done yet" in capsys.readouterr().out


def holds_two(f):
    """It gives two.
    Add one and one."""
    return f() == 2


def test_check_and_reject(capsys):
    assert check("1", lambda: 2, holds_two, points=2) == 2 and capsys.readouterr().out == "✓ It gives two.\n"
    assert check("1", lambda: 3, holds_two, points=2) == 0 and "✗ It gives two. Add one and one." in capsys.readouterr().out
    assert check("1", lambda: 1 / 0, holds_two) == 0 and "ZeroDivisionError" in capsys.readouterr().out
    assert check("1", lambda: sys.exit(3), holds_two) == 0 and "SystemExit" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="was accepted"): reject("right after all", lambda: 2, holds_two)
    def undone(): raise NotImplementedError
    with pytest.raises(AssertionError, match="was not written"): reject("nothing", undone, holds_two)


# A small chapter of its own, so that grading takes seconds

def code(id, source): return {"cell_type": "code", "id": id, "metadata": {}, "source": source, "outputs": [], "execution_count": None}


SMALL = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}, "cells": [
    {"cell_type": "markdown", "id": "t1", "metadata": {}, "source": "### Exercise 1"}, code("s1", f"def two():\n    {BEGIN}\n    return 1 + 1\n    {END}"),
    code("c1", 'def is_two(f):\n    "It is two."\n    return f() == 2\n\ncheck("9.1", two, is_two, points=2)'), code("w1", 'reject("a", int, is_two)\nreject("b", str, is_two)'),
    {"cell_type": "markdown", "id": "t2", "metadata": {}, "source": "### Exercise 2"}, code("s2", f"def three():\n    {BEGIN}\n    return 3\n    {END}"),
    code("c2", 'def is_three(f):\n    "It is three."\n    return f() == 3\n\ndef is_odd(f):\n    "It is odd."\n    return f() % 2 == 1\n\ncheck("9.2", three, is_three, is_odd, points=2)'), code("w2", 'reject("a", int, is_three)\nreject("b", lambda: 2, is_odd)')]}


@pytest.fixture
def hand_in(tmp_path, monkeypatch):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters/small.ipynb").write_text(json.dumps(SMALL))
    monkeypatch.setattr(exercises, "chapters", lambda: tmp_path / "chapters")
    def submit(change=None, seconds=30, name="work.ipynb"):
        work = student(SMALL, "small")
        cells = {c["id"]: c for c in work["cells"]}
        if change: change(work, cells)
        for c in work["cells"]: c["source"] = source_of(c).splitlines(keepends=True)       # as Jupyter saves it
        (tmp_path / name).write_text(json.dumps(work))
        return grade(tmp_path / name, seconds)
    return submit


def fill(work, cells):
    for c in key(SMALL, "small")["cells"]:
        if c["id"] in cells: cells[c["id"]]["source"] = source_of(c)


def fill_and(source, at="s2"):
    def change(work, cells):
        fill(work, cells); cells[at]["source"] = source
    return change


def insert(cell, at=0): return lambda work, cells: (fill(work, cells), work["cells"].insert(at, cell))
def drop(*ids): return lambda work, cells: (fill(work, cells), work.update(cells=[c for c in work["cells"] if c["id"] not in ids]))
def by_id(found): return {e["exercise"]: e["points"] for e in found["exercises"]}


def test_the_key_gives_full_marks(hand_in):
    assert hand_in(fill) | {"notebook": ""} == {"notebook": "", "chapter": "small", "points": 4, "of": 4, "problems": [], "exercises": [{"exercise": f"9.{i}", "points": 2.0, "reasons": [], "of": 2} for i in (1, 2)]}


def test_stubs_give_none(hand_in):
    found = hand_in()
    assert found["points"] == 0 and found["exercises"][0]["reasons"] == ["Exercise 9.1 is not done yet."] and found["problems"] == []


@pytest.mark.parametrize("change, points, said", [
    (fill_and("def three(): return 5"), {"9.1": 2, "9.2": 1}, "✗ It is three."),
    (fill_and("while True: pass"), {"9.1": 2, "9.2": 0}, "stopped after 8 s"),
    (fill_and("def three():\n    while True: pass"), {"9.1": 2, "9.2": 0}, "stopped after 8 s"),
    (fill_and("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"), {"9.1": 2, "9.2": 0}, "could not be stopped"),
    (fill_and("while True: print('x' * 1000)"), {"9.1": 2, "9.2": 0}, "stopped after 8 s"),
    (fill_and("import no_such_module"), {"9.1": 2, "9.2": 0}, "No module named"),
    (fill_and("import sys; sys.exit(1)"), {"9.1": 2, "9.2": 0}, "SystemExit"),
    (fill_and("def three(): raise SystemExit"), {"9.1": 2, "9.2": 0}, "SystemExit"),
    (fill_and("import os; os._exit(1)"), {"9.1": 2, "9.2": 0}, "ended the kernel"),
    (fill_and("def three(:"), {"9.1": 2, "9.2": 0}, "SyntaxError"),
    (insert(code("x", "import os; os._exit(1)")), {"9.1": 0, "9.2": 0}, "was not run"),
    (insert(code("x", "1 / 0")), {"9.1": 2, "9.2": 2}, "ZeroDivisionError"),
    (drop("s2"), {"9.1": 2, "9.2": 0}, "name 'three' is not defined"),
    (drop("c1", "c2"), {"9.1": 2, "9.2": 2}, ""),
    (drop("s1", "s2", "c1", "c2", "t1", "t2"), {"9.1": 0, "9.2": 0}, "name 'two' is not defined"),
    (lambda work, cells: (fill(work, cells), work.pop("metadata"), work.pop("nbformat_minor"), [c.update(metadata=None) for c in work["cells"]], work.update(metadata={"course": {"chapter": "small"}})), {"9.1": 2, "9.2": 2}, ""),
    (lambda work, cells: cells["c1"].update(source="2.0"), {"9.1": 0, "9.2": 0}, "not done yet"),
    (lambda work, cells: cells["s1"].update(source="def check(*a, **k): return 2.0\ndef two(): return 7"), {"9.1": 0, "9.2": 0}, "✗ It is two."),
], ids=lambda v: v if isinstance(v, str) else None)
def test_what_learners_hand_in(hand_in, change, points, said):
    found = hand_in(change, seconds=8)
    assert by_id(found) == points and found["points"] == sum(points.values())
    assert said in " ".join(found["problems"] + [r for e in found["exercises"] for r in e["reasons"]])


def test_files_that_are_no_submissions(hand_in, tmp_path):
    for name, content, why in [("a.ipynb", "{", "can't be read"), ("b.ipynb", "[]", "no notebook"), ("c.ipynb", '{"cells": [3]}', "no notebook"), ("f.ipynb", '{"cells": [{"cell_type": "code", "source": [1]}]}', "no notebook"), ("g.ipynb", '{"cells": [{"cell_type": "code", "source": null}]}', "no notebook"), ("d.ipynb", '{"cells": []}', "not from a chapter"), ("h.ipynb", '{"cells": [], "metadata": [1]}', "not from a chapter"), ("i.ipynb", '{"cells": [], "metadata": {"course": 3}}', "not from a chapter"),
                               ("e.ipynb", '{"cells": [], "metadata": {"course": {"chapter": "../../etc/passwd"}}}', "not from a chapter")]:
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=why): grade(tmp_path / name)
    with pytest.raises(InputError, match="can't be read"): grade(tmp_path / "none.ipynb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no notebooks"): grade_folder(tmp_path / "empty")
    hand_in(fill, name="z.ipynb")
    table = grade_folder(tmp_path, progress=False).set_index("notebook")
    assert table.loc["z.ipynb", "points"] == 4 and table.loc["z.ipynb", "9.2"] == 2 and "can't be read" in table.loc["a.ipynb", "problems"] and len(table) == 10


def test_build_and_grade_from_the_command_line(tmp_path, capsys):
    def course(*arguments):
        with pytest.raises(SystemExit) as end: main([str(a) for a in arguments])
        return end.value.code
    for version, n in (("student", len(CHAPTERS)), ("answers", len(CHAPTERS)), ("key", len(WITH))):
        assert course("build", version, "--out", tmp_path / version) == 0
        assert f"{n} notebooks" in capsys.readouterr().out and len(list((tmp_path / version).glob("*.ipynb"))) == n
    assert course("build", "student", "--out", tmp_path / "student") == 0, "making them again is no mistake"
    assert course("build", "teacher") == course("build", "student", "--out", ROOT / "data") == course("build", "student", "--out", ROOT / "nbs") == course("build", "student", "--out", ROOT / "README.md/student") == 2
    work = json.loads((tmp_path / "student/04_optim.ipynb").read_text())
    own = {c["id"]: c for c in json.loads((tmp_path / "key/04_optim.ipynb").read_text())["cells"]}
    wanted = [c for c in work["cells"] if c["id"] in own or "import" in source_of(c) and "#| export" not in source_of(c) or source_of(c).startswith("def ") or source_of(c).startswith("#| export\nimport")]
    for c in wanted: c["source"] = source_of(own[c["id"]]) if c["id"] in own else source_of(c)
    (tmp_path / "mine.ipynb").write_text(json.dumps({**work, "cells": [c for c in wanted if c["cell_type"] == "markdown" or "import" in source_of(c) or c["id"] in own]}))
    found = json.loads(run_course("grade", tmp_path / "mine.ipynb", "--json").stdout)
    assert found["points"] == found["of"] == 6, found
    assert course("grade", tmp_path / "nothing.ipynb") == 2


def test_grades_in_the_terminal(hand_in, tmp_path, capsys):
    hand_in(fill_and("def three(): return 5"))
    (tmp_path / "all").mkdir(); shutil.copy(tmp_path / "work.ipynb", tmp_path / "all/work.ipynb")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"): main(["grade", str(tmp_path / "work.ipynb")])
    said = capsys.readouterr().out
    assert said.startswith("work.ipynb: 3 of 4 points") and "9.2: 1 of 2\n    ✗ It is three." in said
    with pytest.raises(SystemExit, match="0"): main(["grade", str(tmp_path / "all")])
    assert capsys.readouterr().out.splitlines() == ["notebook,chapter,points,of,9.1,9.2,problems", "work.ipynb,small,3.0,4,2.0,1.0,"]
