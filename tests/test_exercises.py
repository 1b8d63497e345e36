"""Exercises: every solution passes, every wrong answer is found out, no solution reaches a learner,
and the grader survives what is handed in.

That all solutions pass and all wrong answers are rejected for the right reason is shown by the
chapters themselves, which run both; here we look that none of them lacks a part, and at what is
made from them.
"""
import ast
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, run_course

from course_lib import exercises
from course_lib.cli import main
from course_lib.errors import InputError
from course_lib.exercises import (BEGIN, END, answers, build, check, find_exercises, grade,
                                  grade_folder, key, reject, source_of, student)

sys.path.insert(0, str(ROOT / "scripts"))
from chapters import number_of, pages, parts

CHAPTERS = {p.stem: nbformat.read(p, as_version=4) for p in pages()}
WITH = {name: notebook for name, notebook in CHAPTERS.items() if find_exercises(notebook)}


def solutions(notebook) -> list: # of (exercise, the texts between its marks)
    found = []
    for e in find_exercises(notebook):
        code = source_of(notebook["cells"][e["solution"]])
        found.append((e, re.findall(rf"(?ms)^ *{BEGIN}\n(.*?)^ *{END}", code)))
    return found


def test_each_chapter_of_part_one_has_three_or_twice_as_many():
    (part,) = [paths for title, paths in parts().items() if title.startswith("Part I:")]
    for number in {number_of(path) for path in part}:
        pages_with = [p for p in part if number_of(p) == number and p.stem in WITH]
        found = [e for p in pages_with for e in find_exercises(WITH[p.stem])]
        points = sorted(e["points"] for e in found)
        assert points and points == sorted([1, 2, 3] * (len(points) // 3)), number


def test_exercises_are_numbered_through_the_pages_of_a_chapter():
    found = {}
    for path in pages():
        if path.stem not in WITH: continue
        numbers = [e["exercise"] for e in find_exercises(WITH[path.stem])]
        found.setdefault(number_of(path), []).extend(numbers)
    for chapter, numbers in found.items():
        assert numbers == [f"{chapter}.{i}" for i in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("name", WITH)
def test_exercises_have_hints(name):
    for e in find_exercises(WITH[name]):
        task = source_of(WITH[name]["cells"][e["task"]])
        assert task.startswith(f"### Exercise {e['exercise']} · "), task[:60]
        assert "<summary>Hint" in task, task[:60]


def points_shown(cell) -> float:
    "The number that a check returned, where it said nothing but what holds."
    (shown,) = [o["data"]["text/plain"] for o in cell["outputs"] if "data" in o]
    said = "".join(o.get("text", "") for o in cell["outputs"]).splitlines()
    assert all(line.startswith("✓") for line in said)
    return float(shown)


@pytest.mark.parametrize("name", WITH)
def test_the_stored_run_has_full_points_and_rejections(name):
    "What the chapter's cells said when they were run; its own test runs them again."
    for e in find_exercises(WITH[name]):
        checked, wrong = (WITH[name]["cells"][e[k]] for k in ("check", "wrong"))
        assert points_shown(checked) == e["points"]
        said = "".join(o.get("text", "") for o in wrong["outputs"])
        rejected = re.findall(r"(?m)^✗ ", said)
        assert len(rejected) == len(re.findall(r"(?m)^reject\(", source_of(wrong))) >= 2
        assert "NameError" not in said                 # a wrong answer, not one that can't run


@pytest.mark.parametrize("name", WITH)
def test_no_solution_reaches_a_learner(name):
    made = student(WITH[name], name)
    text = json.dumps(made, ensure_ascii=False)
    assert "BEGIN SOLUTION" not in text and "END SOLUTION" not in text
    sources = [re.sub(r"\s+", " ", source_of(c)) for c in made["cells"]]
    assert not any(re.search(r"(?m)^reject\(", source_of(c)) for c in made["cells"])
    outputs = [json.dumps(c.get("outputs", [])) for c in made["cells"]]
    whole = "\n".join(source_of(c) for c in WITH[name]["cells"])
    for e, texts in solutions(WITH[name]):
        given = whole.replace("".join(texts), "")      # a line that the task shows is no secret
        secret = [line.strip() for text in texts for line in text.splitlines()]
        for line in [line for line in secret if len(line) > 25 and line not in given]:
            spaced = re.sub(r"\s+", " ", line)
            assert not any(spaced in source for source in sources), f"{e['exercise']}: {line}"
            assert not any(line in output for output in outputs)
    nbformat.validate(nbformat.from_dict(made))


@pytest.mark.parametrize("name", WITH)
def test_stubs_and_checks_carry_their_metadata(name):
    cells = {c["id"]: c for c in student(WITH[name], name)["cells"]}
    for e in find_exercises(WITH[name]):
        stub, checked = (cells[WITH[name]["cells"][e[k]]["id"]] for k in ("solution", "check"))
        assert stub["outputs"] == checked["outputs"] == [] and stub["execution_count"] is None
        assert stub["metadata"]["course"] == {"exercise": e["exercise"]}
        assert "nbgrader" not in stub["metadata"]      # it would clear the whole cell
        number = e["exercise"].replace(".", "-")
        assert checked["metadata"]["nbgrader"] == {
            "schema_version": 3, "task": False, "cell_type": "code", "grade": True,
            "solution": False, "locked": True, "grade_id": f"check-{number}",
            "points": e["points"]}


@pytest.mark.parametrize("name", WITH)
def test_answers_have_no_marks(name):
    made = answers(WITH[name], name)
    nbformat.validate(nbformat.from_dict(made))
    code = [source_of(c) for c in made["cells"] if c["cell_type"] == "code"]
    assert "SOLUTION" not in "".join(code)


@pytest.mark.parametrize("name", WITH)
def test_a_stub_raises_one_error_and_is_not_done(name, capsys):
    for c in student(WITH[name], name)["cells"]:
        if "exercise" not in c["metadata"].get("course", {}): continue
        space = {}
        program = "from __future__ import annotations\n" + source_of(c)
        exec(compile(program, name, "exec"), space)
        stub = [v for k, v in space.items() if callable(v)][-1]
        needed = stub.__code__.co_argcount - len(stub.__defaults__ or ())
        with pytest.raises(NotImplementedError): stub(*[None] * needed)

        def anything(answer):
            "Whatever."
            return answer(*[None] * needed)
        assert check("0", stub, anything, points=3) == 0
        assert "not done yet" in capsys.readouterr().out


MUTATE = [sys.executable, "scripts/mutate_exercises.py"]
REWRITTEN = sorted(p.stem for p in (ROOT / "tests/rewrites").glob("*.py"))


def test_all_exercises_have_other_right_answers():
    assert REWRITTEN == sorted(WITH)


@pytest.mark.slow
@pytest.mark.parametrize("name", REWRITTEN)
def test_other_right_answers_are_accepted(name):
    "At least five for each exercise, written by hand."
    done = subprocess.run([*MUTATE, f"nbs/{name}.ipynb", "--rewrites"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mutants_are_killed_and_survivors_are_shown():
    "Of a short exercise, whose mutants all differ in what they do."
    done = subprocess.run([*MUTATE, "nbs/01_data.ipynb", "--only", "1.2"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0 and re.search(r"\d\d mutants +0 survive", done.stdout), done.stdout


def test_survivors_are_argued_for_exercises_that_are_there():
    there = {e["exercise"]: source_of(WITH[name]["cells"][e["solution"]])
             for name in WITH for e in find_exercises(WITH[name])}
    table = pd.read_csv(ROOT / "tests/mutants.csv", dtype=str, keep_default_na=False)
    assert table["why"].all() and not table.duplicated().any()
    for row in table.itertuples():
        lines = ast.unparse(ast.parse(there[row.exercise])).splitlines()
        gone = row.solution.split(" ⏎ ")
        assert set(gone) <= {line.strip() for line in lines}, row.solution


def holds_two(f):
    """It gives two.
    Add one and one."""
    return f() == 2


def said(capsys): return capsys.readouterr().out


def test_check_and_reject(capsys):
    assert check("1", lambda: 2, holds_two, points=2) == 2 and said(capsys) == "✓ It gives two.\n"
    assert check("1", lambda: 3, holds_two, points=2) == 0
    assert "✗ It gives two. Add one and one." in said(capsys)
    assert check("1", lambda: 1 / 0, holds_two) == 0 and "ZeroDivisionError" in said(capsys)
    assert check("1", lambda: sys.exit(3), holds_two) == 0 and "SystemExit" in said(capsys)
    with pytest.raises(AssertionError, match="was accepted"):
        reject("right after all", lambda: 2, holds_two)

    def undone(): raise NotImplementedError
    with pytest.raises(AssertionError, match="was not written"):
        reject("nothing", undone, holds_two)


def like_the_mean(mean):
    """It is the mean.
    Divide by the number."""
    for values in ([1, 2], [3, 5, 10]):
        yield mean(values), sum(values) / len(values), f"for {values}"


def test_a_property_may_yield_what_came_and_what_was_expected(capsys):
    assert check("1", lambda v: np.float32(np.mean(v)), like_the_mean) == 1
    assert check("1", lambda v: torch.tensor(v).float().mean(), like_the_mean) == 1
    assert check("1", lambda v: sum(v) / 2, like_the_mean) == 0
    assert "Divide by the number. Expected 6.0, got 9.0 for [3, 5, 10]." in said(capsys)
    assert check("1", lambda v: v[7], like_the_mean) == 0
    assert "Divide by the number. It raised IndexError" in said(capsys), "the hint is kept"
    reject("divides by two", lambda v: sum(v) / 2, like_the_mean)

    def undone(values): raise NotImplementedError
    assert check("1", undone, like_the_mean) == 0 and "not done yet" in said(capsys)


@pytest.mark.parametrize("a, b, alike", [
    (np.bool_(True), True, True), (torch.tensor([1, 2]), (1.0, 2.0), True),
    (math.nan, math.nan, True),
    ({"a": np.float32(0.1)}, {"a": 0.1}, True), (pd.Series([1.0, 2.0]), [1, 2], True),
    (1.0, 1.001, False), ([1, 2], [1, 2, 3], False), ([1], 1, False), (None, 0, False),
    ("1", 1, False), ({"a": 1}, {"b": 1}, False), (math.nan, 0.0, False)])
def test_values_are_the_same_whatever_made_them(a, b, alike):
    assert exercises.same(a, b) is alike and exercises.same(b, a) is alike


# A small chapter of its own, so that grading takes seconds

def text(id, source): return {"cell_type": "markdown", "id": id, "metadata": {}, "source": source}


def code(id, source):
    return {"cell_type": "code", "id": id, "metadata": {}, "source": source, "outputs": [],
            "execution_count": None}


IS_TWO = """def is_two(f):
    "It is two."
    return f() == 2

check("9.1", two, is_two, points=2)"""
IS_THREE = """def is_three(f):
    "It is three."
    return f() == 3

def is_odd(f):
    "It is odd."
    return f() % 2 == 1

check("9.2", three, is_three, is_odd, points=2)"""
KERNEL = {"name": "python3", "display_name": "python3", "language": "python"}
SMALL = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": KERNEL}, "cells": [
    text("t1", "### Exercise 1"),
    code("s1", f"def two():\n    {BEGIN}\n    return 1 + 1\n    {END}"),
    code("c1", IS_TWO),
    code("w1", 'reject("a", int, is_two)\nreject("b", str, is_two)'),
    text("t2", "### Exercise 2"),
    code("s2", f"def three():\n    {BEGIN}\n    return 3\n    {END}"),
    code("c2", IS_THREE),
    code("w2", 'reject("a", int, is_three)\nreject("b", lambda: 2, is_odd)')]}


@pytest.fixture
def hand_in(tmp_path, monkeypatch):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters/small.ipynb").write_text(json.dumps(SMALL))
    monkeypatch.setattr(exercises, "chapters", lambda: tmp_path / "chapters")
    def submit(change=None, seconds=30, name="work.ipynb"):
        work = student(SMALL, "small")
        cells = {c["id"]: c for c in work["cells"]}
        if change: change(work, cells)
        for c in work["cells"]:                            # as Jupyter saves it
            c["source"] = source_of(c).splitlines(keepends=True)
        (tmp_path / name).write_text(json.dumps(work))
        return grade(tmp_path / name, seconds)
    return submit


def fill(work, cells):
    for c in key(SMALL, "small")["cells"]:
        if c["id"] in cells: cells[c["id"]]["source"] = source_of(c)


def fill_and(source, at="s2"):
    def change(work, cells):
        fill(work, cells)
        cells[at]["source"] = source
    return change


def insert(cell, at=0):
    def change(work, cells):
        fill(work, cells)
        work["cells"].insert(at, cell)
    return change


def drop(*ids):
    def change(work, cells):
        fill(work, cells)
        work["cells"] = [c for c in work["cells"] if c["id"] not in ids]
    return change


def strip_metadata(work, cells):
    fill(work, cells)
    del work["nbformat_minor"]
    for c in work["cells"]: c["metadata"] = None
    work["metadata"] = {"course": {"chapter": "small"}}


def replace_source(at, source): return lambda work, cells: cells[at].update(source=source)
def by_id(found): return {e["exercise"]: e["points"] for e in found["exercises"]}


def test_the_key_gives_full_marks(hand_in):
    whole = [{"exercise": f"9.{i}", "points": 2.0, "reasons": [], "of": 2} for i in (1, 2)]
    found = {"notebook": "work.ipynb", "chapter": "small", "points": 4, "of": 4, "problems": []}
    assert hand_in(fill) == {**found, "exercises": whole}


def test_stubs_give_none(hand_in):
    found = hand_in()
    assert found["points"] == 0 and found["problems"] == []
    assert found["exercises"][0]["reasons"] == ["Exercise 9.1 is not done yet."]


OVER = "the time was over"
FOR_EVER = "def three():\n    while True: pass"
NO_INTERRUPT = """import signal
def three():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True: pass"""


@pytest.mark.parametrize("change, points, said", [
    (fill_and("def three(): return 5"), {"9.1": 2, "9.2": 1}, "✗ It is three."),
    (fill_and("while True: pass"), {"9.1": 2, "9.2": 0}, "name 'three' is not defined"),
    (fill_and(FOR_EVER), {"9.1": 2, "9.2": 0}, OVER),
    (fill_and(NO_INTERRUPT), {"9.1": 2, "9.2": 0}, OVER),
    (fill_and("def three():\n    while True: print('x' * 1000)"), {"9.1": 2, "9.2": 0}, OVER),
    (fill_and("import no_such_module\ndef three(): return no_such_module.x"),
     {"9.1": 2, "9.2": 0}, "No module named"),
    (fill_and("import sys\nthree = sys.exit(1)"), {"9.1": 2, "9.2": 0}, "SystemExit"),
    (fill_and("def three(): raise SystemExit"), {"9.1": 2, "9.2": 0}, "SystemExit"),
    (fill_and("import os\ndef three(): os._exit(1)"), {"9.1": 2, "9.2": 0}, "itself (1)"),
    (fill_and("def three(:"), {"9.1": 2, "9.2": 0}, "SyntaxError"),
    (fill_and("from math import *\ndef three(): return floor(pi)"), {"9.1": 2, "9.2": 2}, ""),
    (fill_and("def three(): return helper()\n\ndef helper(): return 3"),
     {"9.1": 2, "9.2": 2}, ""),
    (insert(code("x", "import os; os._exit(1)")), {"9.1": 2, "9.2": 2}, ""),
    (insert(code("x", "1 / 0")), {"9.1": 2, "9.2": 2}, ""),
    (drop("s2"), {"9.1": 2, "9.2": 0}, "name 'three' is not defined"),
    (drop("c1", "c2"), {"9.1": 2, "9.2": 2}, ""),
    (drop("s1", "s2", "c1", "c2", "t1", "t2"), {"9.1": 0, "9.2": 0},
     "name 'two' is not defined"),
    (strip_metadata, {"9.1": 2, "9.2": 2}, ""),
    (replace_source("c1", "2.0"), {"9.1": 0, "9.2": 0}, "not done yet"),
    (replace_source("s1", "def check(*a, **k): return 2.0\ndef two(): return 7"),
     {"9.1": 0, "9.2": 0}, "✗ It is two."),
], ids=lambda v: v if isinstance(v, str) else None)
@pytest.mark.slow
def test_what_learners_hand_in(hand_in, change, points, said):
    found = hand_in(change, seconds=3)
    assert by_id(found) == points and found["points"] == sum(points.values())
    reasons = [r for e in found["exercises"] for r in e["reasons"]]
    assert said in " ".join(found["problems"] + reasons)


NO_CELLS = '{"cells": [], "metadata": %s}'
NO_SUBMISSIONS = {
    "a.ipynb": ("{", "can't be read"),
    "b.ipynb": ("[]", "no notebook"),
    "c.ipynb": ('{"cells": [3]}', "no notebook"),
    "d.ipynb": ('{"cells": []}', "not from a chapter"),
    "e.ipynb": (NO_CELLS % '{"course": {"chapter": "../../etc/passwd"}}', "not from a chapter"),
    "f.ipynb": ('{"cells": [{"cell_type": "code", "source": [1]}]}', "no notebook"),
    "g.ipynb": ('{"cells": [{"cell_type": "code", "source": null}]}', "no notebook"),
    "h.ipynb": (NO_CELLS % "[1]", "not from a chapter"),
    "i.ipynb": (NO_CELLS % '{"course": 3}', "not from a chapter")}


@pytest.mark.slow
def test_files_that_are_no_submissions(hand_in, tmp_path):
    for name, (content, why) in NO_SUBMISSIONS.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=why): grade(tmp_path / name)
    with pytest.raises(InputError, match="can't be read"): grade(tmp_path / "none.ipynb")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no notebooks"): grade_folder(tmp_path / "empty")
    hand_in(fill, name="z.ipynb")
    table = grade_folder(tmp_path, progress=False).set_index("notebook")
    assert table.loc["z.ipynb", "points"] == 4 and table.loc["z.ipynb", "9.2"] == 2
    assert "can't be read" in table.loc["a.ipynb", "problems"]
    assert table.loc["empty", "problems"].startswith("is an empty folder")
    assert len(table) == 12 and table.loc["chapters/small.ipynb", "points"] == 4


# Building the versions

def course(*arguments) -> int:
    "The exit code of a command."
    with pytest.raises(SystemExit) as end: main([str(a) for a in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "The three versions, each in its folder."
    folder = tmp_path_factory.mktemp("built")
    for version in exercises.VERSIONS: build(version, folder / version)
    return folder


def test_build_from_the_command_line(tmp_path, capsys):
    numbers = {"student": len(CHAPTERS), "answers": len(CHAPTERS), "key": len(WITH)}
    for version, n in numbers.items():
        assert course("build", version, "--out", tmp_path / version) == 0
        assert f"{n} notebooks" in said(capsys)
        assert len(list((tmp_path / version).glob("*.ipynb"))) == n
    assert course("build", "student", "--out", tmp_path / "student") == 0, "the same is no mistake"
    assert course("build", "teacher") == 2
    for place in ("data", "nbs", "nbs/student", "README.md", "README.md/student"):
        assert course("build", "student", "--out", ROOT / place) == 2, place


def test_a_version_can_be_handed_on(built):
    "Pictures, data and the line that installs the course are in the folder."
    address = build_address()
    for version in exercises.VERSIONS:
        out = built / version
        assert f"git+{address}" in (out / "README.md").read_text()
        assert (out / "data/reviews.csv").read_bytes() == (ROOT / "data/reviews.csv").read_bytes()
        text = "".join(path.read_text() for path in out.glob("*.ipynb"))
        pictures = set(re.findall(r"\(images/([\w.-]+)\)", text))
        assert pictures == {path.name for path in out.glob("images/*")}
        assert "../data" not in text
    assert len(list((built / "student/images").iterdir())) >= 16


def build_address():
    config = ConfigParser()
    config.read(ROOT / "settings.ini")
    return config["DEFAULT"]["git_url"]


def fingerprints(folder) -> dict: # path -> what it is
    "Everything below a folder: the hash of each file, the target of each link."
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink(): kind = f"link to {path.readlink()}"
        elif path.is_dir(): kind = "folder"
        else: kind = hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(folder).as_posix()] = kind
    return found


def solve(out): (out / "04_optim.ipynb").write_text("solved")
def add_a_notebook(out): (out / "mine.ipynb").write_text("{}")
def add_a_file(out): (out / "notes.txt").write_text("mine")
def add_a_folder(out): (out / ".ipynb_checkpoints").mkdir()
def change_a_picture(out): (out / "images/way_4.svg").write_text("mine")
def add_a_picture(out): (out / "images/mine.png").write_text("mine")


def put_a_link(out):
    "A link to a notebook with the very content that would be written, kept elsewhere."
    (out / "04_optim.ipynb").rename(out.parent / "elsewhere.ipynb")
    (out / "04_optim.ipynb").symlink_to("../elsewhere.ipynb")


def put_a_folder(out):
    (out / "04_optim.ipynb").unlink()
    (out / "04_optim.ipynb").mkdir()


CHANGES = {solve: "04_optim.ipynb", add_a_notebook: "mine.ipynb", add_a_file: "notes.txt",
           add_a_folder: ".ipynb_checkpoints", put_a_link: "04_optim.ipynb",
           change_a_picture: "images/way_4.svg", add_a_picture: "images/mine.png"}


@pytest.mark.parametrize("change", CHANGES)
def test_build_replaces_nothing(built, tmp_path, change):
    out = tmp_path / "mine"
    shutil.copytree(built / "student", out)
    (out / "05_training.ipynb").unlink()               # there is something that could be written
    change(out)
    before = fingerprints(tmp_path)
    with pytest.raises(InputError) as refused: build("student", out)
    (problem,) = refused.value.problems
    assert str(out / CHANGES[change]) in problem and "force=True" in problem
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize("change", CHANGES)
def test_build_replaces_with_force_what_it_writes_and_no_more(built, tmp_path, change):
    out = tmp_path / "mine"
    shutil.copytree(built / "student", out)
    change(out)
    before = fingerprints(tmp_path)
    build("student", out, force=True)
    wanted = {f"mine/{name}": kind for name, kind in fingerprints(built / "student").items()}
    assert fingerprints(tmp_path) == {**before, **wanted}


@pytest.mark.parametrize("force", [False, True])
def test_build_never_writes_over_a_folder_or_the_chapters(built, tmp_path, force):
    out = tmp_path / "mine"
    shutil.copytree(built / "student", out)
    put_a_folder(out)
    before = fingerprints(tmp_path)
    with pytest.raises(InputError, match="is a folder"): build("student", out, force)
    assert fingerprints(tmp_path) == before
    for place in (ROOT / "nbs", ROOT / "nbs/student", ROOT / "nbs/../nbs"):
        with pytest.raises(InputError, match="the chapters themselves"):
            build("student", place, force)
    assert not (ROOT / "nbs/student").exists()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for place in (out / "01_data.ipynb", tmp_path / "gone"):
        with pytest.raises(InputError, match="is not a folder"): build("student", place, force)


def solved(built, name) -> dict:
    "A chapter as a learner hands it in who has found the course's own answers."
    work = json.loads((built / f"student/{name}.ipynb").read_text())
    own = {c["id"]: c for c in json.loads((built / f"key/{name}.ipynb").read_text())["cells"]}
    for c in work["cells"]:
        if "exercise" in c["metadata"].get("course", {}): c["source"] = own[c["id"]]["source"]
    return work


def test_a_solved_chapter_is_graded_from_the_command_line(built, tmp_path):
    (tmp_path / "mine.ipynb").write_text(json.dumps(solved(built, "04_gradient")))
    found = json.loads(run_course("grade", tmp_path / "mine.ipynb", "--json").stdout)
    assert found["points"] == found["of"] == 6, found
    assert not any(e["reasons"] for e in found["exercises"]) and not found["problems"]
    assert course("grade", tmp_path / "nothing.ipynb") == 2


# data sets and tables; models that are trained in place; models without numbers; models returned
UNUSUAL = ["01_data", "05_training", "10_choosing", "11_adapters"]


@pytest.mark.slow
@pytest.mark.parametrize("name", UNUSUAL)
def test_keys_have_full_points_when_graded(built, tmp_path, name):
    "What the checks pass and the answers give crosses unharmed; tests/grade_all.py: all."
    (tmp_path / "mine.ipynb").write_text(json.dumps(solved(built, name)))
    found = grade(tmp_path / "mine.ipynb")
    assert found["points"] == found["of"], found


@pytest.mark.slow
def test_grades_in_the_terminal(hand_in, tmp_path, capsys):
    hand_in(fill_and("def three(): return 5"))
    (tmp_path / "all").mkdir()
    shutil.copy(tmp_path / "work.ipynb", tmp_path / "all/work.ipynb")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"): main(["grade", str(tmp_path / "work.ipynb")])
    printed = said(capsys)
    assert printed.startswith("work.ipynb: 3 of 4 points")
    assert "9.2: 1 of 2\n    ✗ It is three." in printed
    with pytest.raises(SystemExit, match="0"): main(["grade", str(tmp_path / "all")])
    head, row = said(capsys).splitlines()
    assert head == ("learner,notebook,handed in,chapter,points,of,9.1,9.1 of,9.2,9.2 of,reasons,"
                    "problems")
    assert re.fullmatch(r"work,work\.ipynb,[-\d]+ [:\d]+,small,3\.0,4,2\.0,2,1\.0,2,"
                        r"9\.2: ✗ It is three\.,", row)
