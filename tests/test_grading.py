"""Grading: cheats earn nothing, a bad file ends nothing but itself, and nobody is lost.

The small chapter of test_exercises.py is graded here, with stages that start in a second.
"""
import compileall
import json
import os
import socket
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from strategies import SUBMISSION, read_any_submission
from test_exercises import SMALL, fill, fill_and, fingerprints, source_of

from course_lib import exercises, sandbox
from course_lib.errors import InputError
from course_lib.exercises import find_check, grade_folder, student
from course_lib.gradient import Scalar
from course_lib.sandbox import Answers, Link, Refused

needs_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def work(change=fill) -> dict:
    "The small chapter as a learner has changed it."
    made = student(SMALL, "small")
    change(made, {c["id"]: c for c in made["cells"]})
    for c in made["cells"]: c["source"] = source_of(c).splitlines(keepends=True)
    return made


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder to hand work in, beside one with the small chapter."
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters/small.ipynb").write_text(json.dumps(SMALL))
    (tmp_path / "class").mkdir()
    monkeypatch.setattr(exercises, "chapters", lambda: tmp_path / "chapters")
    return tmp_path / "class"


def put(folder, **texts):
    for name, text in texts.items(): (folder / f"{name}.ipynb").write_text(text)


def package() -> dict:
    "The package's files, all compiled first: tests beside this one import modules, too."
    compileall.compile_dir(ROOT / "course_lib", quiet=1)
    return fingerprints(ROOT / "course_lib")


def left_over() -> list:
    "The processes of graders, as long as they are there."
    time.sleep(0.5)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try: words = path.read_bytes()
        except OSError: continue
        if b"course_lib.sandbox import serve" in words: found.append(words)
    return found


# Cheats: each gives 4 instead of 3, which is worth nothing, and wants points for it

SAYS = '{"holds": true, "hint": ""}'
CHEATS = {
    "replaces_check": "def check(*a, **k): return 2.0\ndef three(): return 4",
    "replaces_same": """import course_lib.exercises as e
def three():
    e.same = lambda a, b: True
    e.look = lambda a, p: (True, "")
    return 4""",
    "equals_all": """class Any(int):
    def __eq__(self, other): return True
    def __mod__(self, other): return Any(1)
def three(): return Any(4)""",
    "an_object": """class Any:
    def __eq__(self, other): return True
    def __mod__(self, other): return 1
def three(): return Any()""",
    "prints": "def three(): print('2.0\\n✓ It is three.', flush=True)",
    "writes_to_all": f"""import os, struct
def three():
    said = {SAYS!r}.encode()
    for fd in range(3, 64):
        try: os.write(fd, struct.pack('!Q', len(said)) + said)
        except OSError: pass
    return 4""",
    "sends_a_pickle": """import os, pickle, struct
class Bad:
    def __reduce__(self): return (os.system, ("touch /tmp/was_here_23",))
def three():
    said = pickle.dumps(Bad())
    os.write(3, struct.pack('!Q', len(said)) + said)
    return 4""",
    "sends_too_much": """import os, struct
def three():
    os.write(3, struct.pack('!Q', 2 ** 60))
    return 4""",
    "patches_the_sandbox": """import course_lib.sandbox as s
def three():
    s.write = lambda value, *more: ["object", "Path", {"_raw": "x"}]
    s.state_of = lambda *a: 1
    return 4""",
    "shared": """import course_lib.sandbox as s
def three():
    s.write = lambda value, *more: ["shared", 0]
    return 4""",
    "reads_the_chapter": "def three(): return open(CHAPTER).read().count('3')",
    "looks_in_memory": """import gc
def three():
    for f in gc.get_objects():
        if getattr(f, '__name__', '') == 'is_three': f.__code__ = (lambda f: True).__code__
        if isinstance(f, str) and 'return 3' in f and 'BEGIN' in f: return 3
    return 4""",
    "looks_in_frames": """import inspect
def three():
    for frame in inspect.stack():
        for value in list(frame.frame.f_locals.values()) + list(frame.frame.f_globals.values()):
            if callable(value) and getattr(value, '__name__', '') == 'is_three': return 3
    return 4""",
    "not_done": "def three(): raise NotImplementedError('2.0')",
    "nan": "def three(): return float('nan')",
    "changes_the_package": f"""def three():
    open({str(ROOT / 'course_lib/exercises.py')!r}, 'a').write('# was here')
    return 3""",
    "starts_a_program": """import subprocess
def three(): return len(subprocess.check_output(['echo', 'ab']))""",
    "forks": """import os
def three(): return 3 if os.fork() else 4""",
    "asks_the_network": """import socket
def three(): return 3 * bool(socket.socket().connect_ex(('127.0.0.1', 9)))""",
    "kills_its_parent": """import os, signal
def three():
    os.kill(os.getppid(), signal.SIGKILL)
    return 3""",
    "reads_the_environment": "def three(): return 3 * len(open('/proc/self/environ').read())",
    "reads_its_neighbour": "def three(): return open(NEIGHBOUR).read().count('return 3')"}


def with_higher_points(made, cells):
    "A check of the learner's own, and metadata, that say a thousand points."
    fill(made, cells)
    cells["s2"]["source"] = "def three(): return 4"
    cells["c2"]["source"] = 'check("9.2", three, lambda f: True, points=1000)'
    cells["c2"]["metadata"] = {"nbgrader": {"points": 1000}, "course": {"check": "9.2"}}
    made["metadata"]["points"] = 1000


@needs_linux
@pytest.mark.slow
def test_cheats_earn_nothing(place):
    assert len(CHEATS) >= 20
    before = package()
    (place / "honest.ipynb").write_text(json.dumps(work()))
    names = {"CHAPTER": str(place.parent / "chapters/small.ipynb"),
             "NEIGHBOUR": str(place / "honest.ipynb")}
    for name, source in CHEATS.items():
        for word, path in names.items(): source = source.replace(word, repr(path))
        put(place, **{name: json.dumps(work(fill_and(source)))})
    put(place, higher=json.dumps(work(with_higher_points)))
    table = grade_folder(place, seconds=20, progress=False).set_index("learner")
    assert table.loc["honest", "points"] == 4
    cheats = table.drop("honest")
    assert set(cheats["9.2"]) == {0}, cheats["9.2"][cheats["9.2"] > 0]
    assert set(cheats["9.1"]) == set(cheats["9.1 of"]) == {2} and set(cheats["9.2 of"]) == {2}
    assert cheats["reasons"].str.contains("9.2: ").all(), "each is told why"
    assert package() == before and left_over() == []
    assert not Path("/tmp/was_here_23").exists()


# Hostile files beside honest ones

STAYS = """import os, time
def three():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(600)
    return 3"""
HOSTILE = {
    "brackets": "[" * 100_000,
    "torn": json.dumps(work())[:-200],
    "empty": "",
    "metadata": json.dumps({**work(), "metadata": [["a"]]}),
    "cells": json.dumps({"cells": {"a": 1}}),
    "nested": json.dumps(work(fill_and("def three(): return " + "(" * 100_000))),
    "surrogates": json.dumps(work(fill_and("def three(): return '\ud800'"))),
    "memory": json.dumps(work(fill_and("def three(): return len(bytearray(10 ** 11))"))),
    "stays": json.dumps(work(fill_and(STAYS))),
    "disk": json.dumps(work(fill_and("def three(): return open('x', 'w').write('y' * 10 ** 9)"))),
    "folders": json.dumps(work(fill_and("""import os
def three():
    while True:
        os.mkdir('a')
        os.chdir('a')"""))),
    "threads": json.dumps(work(fill_and("""import threading, time
def three():
    for _ in range(10 ** 5): threading.Thread(target=time.sleep, args=(99,)).start()""")))}
FULL_ALL_THE_SAME = {"metadata"}


@needs_linux
@pytest.mark.slow
def test_hostile_files_harm_nobody(place):
    honest = json.dumps(work())
    put(place, **HOSTILE, **{f"honest_{k}": honest for k in range(5)})
    for name in ("Ann", "Bo"):
        (place / name / "deep").mkdir(parents=True)
        (place / name / "deep/work.ipynb").write_text(honest)
    with zipfile.ZipFile(place / "Cy.zip", "w") as archive:
        archive.writestr("homework/small.ipynb", honest)
    (place / "bom.ipynb").write_bytes("\ufeff".encode() + honest.encode())
    (place / "wide.ipynb").write_bytes(honest.encode("utf-16"))
    bare = {**work(), "metadata": {}}
    for c in bare["cells"]: c["metadata"] = {}
    (place / "bare.ipynb").write_text(json.dumps(bare))
    for c in bare["cells"]: del c["id"]
    (place / "numbers.ipynb").write_text(json.dumps(bare))
    (place / "link.ipynb").symlink_to(place.parent / "chapters/small.ipynb")
    (place / "essay.txt").write_text("I forgot")
    (place / "broken.zip").write_text("PK")
    folders = (place, place.parent / "chapters")
    before = [package(), *(fingerprints(folder) for folder in folders)]
    table = grade_folder(place, seconds=20, progress=False)
    assert [package(), *(fingerprints(folder) for folder in folders)] == before
    assert left_over() == []
    assert len(table) == len(HOSTILE) + 5 + 3 + 2 + 2 + 3
    points = table.set_index("notebook")["points"].to_dict()
    whole = {"Ann/deep/work.ipynb", "Bo/deep/work.ipynb", "Cy.zip/homework/small.ipynb",
             "bom.ipynb", "wide.ipynb", "bare.ipynb", "numbers.ipynb",
             *(f"honest_{k}.ipynb" for k in range(5)), *(f"{k}.ipynb" for k in FULL_ALL_THE_SAME)}
    assert {name for name, n in points.items() if n == 4} == whole
    bad = table[~table["notebook"].isin(whole)]
    assert ((bad["reasons"] + bad["problems"]).str.len() > 10).all()
    assert set(table["learner"]) >= {"Ann", "Bo", "Cy", "essay", "link", "broken"}


def test_pages_are_written_and_a_run_goes_on(place, monkeypatch, tmp_path):
    put(place, ann=json.dumps(work()), bo=json.dumps(work(fill_and("def three(): return 5"))),
        cy="{")
    out = tmp_path / "feedback"
    table = grade_folder(place, progress=False, out=out, jobs=2)
    page = (out / "bo.md").read_text()
    assert "**3 of 4 points**" in page and "    - ✗ It is three." in page
    assert "can&#x27;t be read" in (out / "cy.md").read_text() and (out / "ann.md").exists()
    lines = (out / "grades.jsonl").read_text().splitlines()
    (out / "grades.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:40]]))
    put(place, bo=json.dumps(work()))                    # handed in again
    graded = []
    once = exercises.grade_with
    def counted(stages, chapter, submission, seconds):
        graded.append(chapter)
        return once(stages, chapter, submission, seconds)
    monkeypatch.setattr(exercises, "grade_with", counted)
    again = grade_folder(place, progress=False, out=out)
    assert len(graded) in (1, 2) and "**4 of 4 points**" in (out / "bo.md").read_text()
    assert list(again["points"].fillna(-1)) == [4, 4, -1]
    assert list(table["points"].fillna(-1)) == [4, 3, -1]
    with pytest.raises(InputError, match="holds no grades"):
        grade_folder(place, progress=False, out=place)


@settings(max_examples=300, deadline=None)
@given(SUBMISSION)
def test_any_file_is_a_notebook_or_refused(data):
    read_any_submission(None, data)


def test_a_call_of_check_is_read_as_python_reads_it():
    assert find_check('check(\n    "9.1",\n    f, g, points=4)') == ("9.1", 4)
    assert find_check("%matplotlib inline\ncheck('2.1', f, g)") == ("2.1", 1)
    assert find_check('print(check("9.1", f, g))') is None


# What crosses between the processes

@pytest.fixture
def ask():
    "Call a function through a link, as the judge does."
    ends = []
    def call(function, *args, **options):
        here, there = socket.socketpair()
        ends.extend([here, there])
        answers = Answers(there)
        answers.kept.append(function)
        threading.Thread(target=answers.serve, daemon=True).start()
        return Link(here).call(0, [], args, options)
    yield call
    for end in ends[::2]: end.close()


VALUES = [1, 2.5, "é", None, True, (1, (2, [3])), {"a": {1, 2}}, {(1, 2): "x"},
          np.arange(6).reshape(2, 3), np.array(["a", "bc"]), np.float32(0.5), torch.arange(3),
          torch.zeros(0, 2), torch.tensor(True), torch.ones(2, dtype=torch.bfloat16)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_are(ask, value):
    found = ask(lambda: value)
    assert type(found) is type(value) and repr(found) == repr(value)


def test_what_was_passed_comes_back_itself_and_changed(ask):
    def answer(numbers, table, array, tensor, rng):
        numbers.append(table)
        table["new"] = rng.random()
        array *= 2
        tensor += 1
        return tensor, numbers
    numbers, table, array = [1], {}, np.ones(2)
    tensor, rng = torch.zeros(2), np.random.default_rng(3)
    found = ask(answer, numbers, table, array, tensor, rng)
    assert found[0] is tensor and found[1] is numbers and numbers[1] is table
    assert table == {"new": np.random.default_rng(3).random()} and array.tolist() == [2, 2]
    assert tensor.tolist() == [1, 1] and rng.random() != table["new"]


def test_gradients_go_back_through_an_answer(ask):
    x, w = (torch.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    parts = ask(lambda tensors: [t.pow(3).sum() for t in tensors], [x, w])
    for part in parts: part.backward()
    assert x.grad.tolist() == w.grad.tolist() == [3, 12]
    number = ask(lambda s: s * s, Scalar(3.0))
    number.backward()
    assert isinstance(number, Scalar) and number.value == 9 and number.sources[0][0].grad == 6


def test_a_model_is_trained_there_and_seen_here(ask):
    torch.manual_seed(0)
    model, seen = torch.nn.Linear(2, 1), []
    model.register_forward_hook(lambda m, *_: seen.append(m.training))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()

    def step(model, optimizer):
        model.eval()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    ask(step, model, optimizer)
    assert not torch.equal(model.weight, before) and seen == [False] and not model.training
    assert len(optimizer.state_dict()["state"]) == 2
    ask(lambda m: m.register_parameter("more", torch.nn.Parameter(torch.ones(1))), model)
    assert "replaced_by_the_answer" in dict(model.named_parameters())


def test_a_model_that_an_answer_makes_can_be_trained_from_here(ask):
    layer, x = torch.nn.Linear(2, 3), torch.randn(4, 2)
    module = ask(lambda layer: torch.nn.Sequential(layer.requires_grad_(False),
                                                   torch.nn.Linear(3, 1)), layer)
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        losses.append(module(x).pow(2).mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[2] < losses[0] and not layer.weight.requires_grad


@pytest.mark.parametrize("sent", [
    ["object", "Path", ["dict", ["x"], [1]]], ["array", "|O8", [1], "AAAAAAAAAAA="],
    ["array", "<f8", [10**9], ""], ["array", "<f8", [-1], ""], ["tensor", "Storage", [], "", 1, 2],
    ["shared", 5], ["list", {}], {"a": 1}, ["module", 0, []], ["dict", [["list", []]], [1]], []])
def test_nothing_but_data_is_read(sent):
    with pytest.raises((Refused, IndexError, TypeError, ValueError)): sandbox.read(sent, [])


def test_an_object_has_no_other_fields_than_the_one_that_was_passed():
    link = Link(None)
    link.examples = {"Scalar": Scalar(1.0)}
    fields = {"value": 1, "sources": (), "grad": 0}
    assert link.made("Scalar", fields).value == 1
    for name, more in (("Scalar", {"backward": 1}), ("Link", {})):
        with pytest.raises(Refused): link.made(name, fields | more)


LEAVES = """import os, time
def leave(job, sockets, space):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(600)
        os._exit(0)
    sockets[0].send(b"x")
    time.sleep(600)"""


@needs_linux
def test_a_stage_ends_with_all_that_was_started_in_it(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    stage = sandbox.Stage([("a", "import os")], str(tmp_path), dict(os.environ))
    assert stage.problem(60) is None
    here, there = socket.socketpair()
    stage.start({"run": "leaves:leave"}, there)
    assert here.recv(1) == b"x"
    assert len(left_over()) == 3                         # the stage, the copy, and what it left
    assert stage.end() == "was running" and len(left_over()) == 1
    stage.close()
    here.close()
    assert left_over() == []
    broken = sandbox.Stage([("cell 7", "1 / 0")], ".", dict(os.environ))
    assert "cell 7: ZeroDivisionError" in broken.problem(60)
    broken.close()
