"""A refusal comes at once, in one line, in the words of the command, and leaves the disk alone."""
import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_course

from course_lib.cli import in_options, main, running
from course_lib.errors import InputError
from course_lib.optim import SCHEDULES
from course_lib.recipe import (Recipe, Settings, check_folder, check_inputs, check_run,
                               check_texts)

HEAVY = {"torch", "transformers", "datasets", "pandas", "numpy", "sklearn", "matplotlib", "peft"}
WATCHED = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from course_lib.cli import main
main(sys.argv[1:])
"""
TABLE = "text,label\n" + "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(60))
REFUSED = [
    ["fine-tune", "--data", "gone.csv"], ["fine-tune", "--data", "."],
    ["fine-tune", "--data", "a.csv", "--validation", "gone.csv"],
    ["fine-tune", "--data", "a.csv", "--learning-rate", "20"],
    ["fine-tune", "--data", "a.csv", "--lora-rank", "0"],
    ["fine-tune", "--data", "a.csv", "--task", "translation"],
    ["fine-tune", "--data", "a.csv", "--lr-scheduler-type", "steep"],
    ["fine-tune", "--data", "a.csv", "--labels", "a,b,a"],
    ["fine-tune", "--data", "a.csv", "--resume", "--force"],
    ["fine-tune", "--data", "a.csv", "--out", "/"],
    ["fine-tune", "--data", "a.csv", "--out", "a.csv"],
    ["fine-tune", "--data", "a.csv", "--out", "/proc/run"],
    ["fine-tune", "--data", "a.csv", "--out", "x" * 300], ["fine-tune", "--data", "x" * 5000],
    ["fine-tune", "--data", "a.csv", "--out", "run"], ["run", "--preset", "huge"],
    ["run", "--out", "run"], ["evaluate", "nowhere", "--data", "a.csv"],
    ["evaluate", "run", "--data", "a.csv"], ["predict", "nowhere", "A joy"],
    ["compare", "run", "nowhere", "--data", "a.csv"], ["audit", "--data", "gone.csv"],
    ["audit", "--data", "a.csv", "--out", "a.csv", "--force"],
    ["audit", "--data", "a.csv", "--out", "old.html"], ["audit", "--data", "a.csv", "--out", "."],
    ["audit", "--data", "reviews", "--out", "/proc/report.html"],
    ["pretrain", "--corpus", "gone.txt", "--family", "gpt2"], ["grade", "gone.ipynb"],
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    "A folder with a table, an old page and a run that was cut off."
    (tmp_path / "a.csv").write_text(TABLE)
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder): return {p: p.is_file() and p.read_bytes() for p in folder.rglob("*")}


def loaded(*arguments):
    "The modules that a command has loaded when it ends, and its exit code."
    command = [sys.executable, "-c", WATCHED, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return set(json.loads(done.stderr.splitlines()[-1])), done.returncode


@pytest.mark.parametrize("arguments", [["--help"], ["fine-tune", "--help"]])
def test_help_loads_nothing(arguments):
    modules, code = loaded(*arguments)
    assert code == 0 and not modules & HEAVY and "typer" in modules


some = [r for r in REFUSED
        if r[-1] in ("gone.csv", "20", "huge", "A joy", "/proc/run", "old.html")]


@pytest.mark.parametrize("arguments", some, ids=" ".join)
def test_a_refusal_loads_nothing(place, arguments):
    modules, code = loaded(*arguments)
    assert code == 2 and not modules & HEAVY


def test_audit_loads_no_torch(place):
    modules, code = loaded("audit", "--data", "a.csv", "--out", "new.html")
    assert code == 0 and "datasets" in modules and Path("new.html").exists()
    assert not modules & {"torch", "transformers", "peft", "IPython"}


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda r: " ".join(r)[:60])
def test_one_line_in_the_words_of_the_command_and_nothing_written(place, arguments, capfd):
    before = content(place)
    with pytest.raises(SystemExit) as end: main(arguments)
    out, error = capfd.readouterr()
    assert end.value.code == 2 and out == "" and error.count("\n") == 1, error
    options, _ = running(arguments)
    flags = {flag for each in options.values() for flag in each} | {"--help"}
    assert set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", error)) <= flags
    assert not re.search(rf"\b({'|'.join(options)})=\S", error)
    assert content(place) == before


def test_the_commands_say_their_own_options(place, capfd):
    "The same fault in two commands: the flag where there is one, Python's words elsewhere."
    (place / "a.csv").write_bytes("text,label\ncafé,x\nB,y\n".encode("latin-1"))
    with pytest.raises(SystemExit): main(["audit", "--data", "a.csv"])
    assert "pass --encoding cp1252" in capfd.readouterr().err
    assert "the run was cut off; resume it first" in refusal("predict", "run", "A", capfd=capfd)
    taken = refusal("fine-tune", "--data", "reviews", "--out", "run", capfd=capfd)
    assert "--resume" in taken and "--force" in taken and "--out FOLDER" in taken


def refusal(*arguments, capfd):
    with pytest.raises(SystemExit): main(list(arguments))
    return capfd.readouterr().err


@pytest.mark.parametrize("message, command, said", [
    ("a – pass delimiter=';'", "audit", "a – pass --delimiter ';'"),
    ("a – pass labels=ham,spam", "audit", "a – pass labels=ham,spam"),
    ("a – pass labels=ham,spam", "fine-tune", "a – pass --labels ham,spam"),
    ("a – pass bf16=False or bf16=True", "fine-tune", "a – pass --no-bf16 or --bf16"),
    ("lora_rank – peft is not installed", "fine-tune", "--lora-rank – peft is not installed"),
    ("learning_rate 5.0 – is too much", "fine-tune", "learning_rate 5.0 – is too much"),
    ("label 'x' – has no rows", "fine-tune", "label 'x' – has no rows"),
    ("max_learning_rate=2 – no", "fine-tune", "max_learning_rate=2 – no"),
    ("a == b – encoding==c", "fine-tune", "a == b – encoding==c"),
    ("as_json=True", "audit", "--json"),
    ("a – pass data=FILE", "nonsense", "a – pass data=FILE")])
def test_names_become_options(message, command, said):
    assert in_options(message, *running([command])) == said


def test_a_value_that_was_given_is_named_as_an_option():
    options, given = running(["fine-tune", "--learning-rate", "5", "--label", "x"])
    assert in_options("learning_rate 5.0 – no", options, given) == "--learning-rate 5.0 – no"
    assert in_options("label 'x' – is none", options, given) == "--label 'x' – is none"


def messages(path):
    "The texts in a module, but for docstrings."
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
            and isinstance(node.value, str) and id(node) not in docstrings]


MODULES = sorted(p.stem for p in (ROOT / "course_lib").glob("*.py"))
LIBRARY = [name for name in MODULES if name not in ("__init__", "__main__", "_modidx", "cli")]


PIPS = {"--no-deps", "--only-binary", "--disable-pip-version-check", "--dest"} # it is called by us


@pytest.mark.parametrize("module", LIBRARY)
def test_no_flags_in_the_messages_of_the_library(module):
    found = messages(ROOT / f"course_lib/{module}.py")
    flags = [m for m in found if re.search(r"(?<!\S)--[a-z]", m) and m not in PIPS]
    assert [m for m in flags if not m.lstrip().startswith(":root {")] == [] # but in style sheets


def test_a_flag_in_a_message_is_seen(tmp_path):
    (tmp_path / "a.py").write_text(
        'def f(x):\n    "--not me"\n    raise ValueError(f"{x} – pass --me")\n'
    )
    assert messages(tmp_path / "a.py") == [" – pass --me"]


def test_a_page_never_replaces_data(place):
    assert run_course("audit", "--data", "a.csv", "--out", "old.html", cwd=place).returncode == 2
    assert (place / "old.html").read_text() == "old"
    done = run_course("audit", "--data", "a.csv", "--out", "old.html", "--force", cwd=place)
    assert done.returncode == 0 and "<html" in (place / "old.html").read_text()
    os.link(place / "a.csv", place / "same.csv")
    done = run_course("audit", "--data", "a.csv", "--out", "same.csv", "--force", cwd=place)
    assert done.returncode == 2 and (place / "a.csv").read_text() == TABLE


def test_the_schedules_are_those_of_the_optimizer():
    kinds = {f.name: f for f in dataclasses.fields(Settings)}["lr_scheduler_type"]
    assert kinds.metadata["choices"] == tuple(SCHEDULES)


@pytest.mark.parametrize("settings, words", [
    ({"epochs": 0}, "epochs 0 – is not between 1 and 10,000"), ({"seed": 0.5}, "seed 0.5"),
    ({"learning_rate": float("nan")}, "learning_rate nan"),
    ({"task": "x"}, "task 'x' – is not known"),
    ({"lr_scheduler_type": "x"}, "it can be linear"), ({"labels": ["a"]}, "two or more different")])
def test_a_recipe_that_cannot_be(settings, words):
    with pytest.raises(InputError, match=re.escape(words)): Recipe(**settings)


def test_what_may_be_written_to(place):
    check_folder("run", True, False, [])
    check_folder("run", False, True, [None, "a.csv"])
    Path("run/data.csv").write_text("")
    with pytest.raises(InputError, match="other things"): check_folder("run", True, False, [])
    Path("run/data.csv").rename("run/model")
    with pytest.raises(InputError, match="would be lost"):
        check_folder("run", False, True, ["run/model"])
    Path("empty").mkdir()
    check_folder("empty", False, False, [])
    assert list(Path("empty").iterdir()) == []
    with pytest.raises(InputError, match="has no model yet"): check_run("empty/../run")
    check_inputs(Recipe(data="nobody/on-the-hub"))


def test_texts():
    check_texts(["a", "ünïcode 🎬"])
    for bad in ("", " \n", None, 5, "\ud800"):
        with pytest.raises(InputError, match="text 2 – is"): check_texts(["a", bad])
