"""Nothing of the user's is lost: whatever a command is given, it writes what was asked for or
nothing, and says in one line why."""
import hashlib
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import RECIPES, SCORES

from course_lib.cli import main
from course_lib.errors import InputError
from course_lib.files import is_file
from course_lib.monitoring import validation_rows
from course_lib.page import scored_rows
from course_lib.recipe import read_metrics, read_recipe
from course_lib.runs import checked, known_splits

TABLE = "text,label\n" + "".join(
    f"{'a lovely' if i % 2 else 'an awful'} film number {i},{'pos' if i % 2 else 'neg'}\n"
    for i in range(60))
QUICK = ["--epochs", "1", "--max-length", "16"]


def contents(folder):
    "What lies in a folder: the kind and the hash of everything, and whether links lead anywhere."
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink(): found[name] = os.readlink(path)
        elif path.is_file(): found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else: found[name] = "folder" if path.is_dir() else "device"
    return found


def course(*arguments):
    "Exit code and what was said on standard error; a traceback comes out as an exception."
    out, error = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(error), pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code or 0, error.getvalue()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A table, a finished run, and things of other kinds."
    folder = tmp_path_factory.mktemp("home")
    (folder / "a.csv").write_text(TABLE)
    assert course("fine-tune", "--data", folder / "a.csv", "--out", folder / "run", *QUICK)[0] == 0
    shutil.rmtree(folder / "run/checkpoint")
    for name in ("mine/README.md", "mine/model/config.json", "notes.txt", "old.html", "reg/x",
                 "records/squad.csv", "ledger/claims.csv", "solved/index.ipynb", "letters/a.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "corpus.txt").write_text("\n".join(f"a plain sentence {i}" for i in range(99)))
    os.symlink("a.csv", folder / "soft.csv")
    os.link(folder / "a.csv", folder / "hard.csv")
    os.symlink("run", folder / "link")
    os.symlink("nowhere", folder / "loose")
    os.mkfifo(folder / "pipe")
    return folder


AUDIT = ["audit", "--data", "a.csv"]
TUNE = ["fine-tune", "--data", "a.csv", *QUICK]
PRETRAIN = ["pretrain", "--corpus", "corpus.txt", "--family", "gpt2"]
PAGE, ONNX = ["export", "run", "--page"], ["export", "run", "--onnx", "--out"]
WATCH = ["watch", "run", "--data", "a.csv", "--out"]
LONG = "x" * 300
REFUSED = {
    "is read here and would be lost": [
        [*AUDIT, "--out", out, "--force"]
        for out in ("a.csv", "./a.csv", "run/../a.csv", "soft.csv", "hard.csv")] + [
        [*PAGE, "run/page.html"], [*PAGE, "link/page.html", "--force"],
        [*PAGE, "run/recipe.json", "--force"], [*WATCH, "a.csv", "--force"],
        [*WATCH, "run/metrics.json", "--force"],
        ["serve", "run", "--watch", "run/history.csv"]],
    "is there already": [
        [*AUDIT, "--out", "notes.txt"], [*AUDIT, "--out", "loose", "--force"],
        [*AUDIT, "--out", "loose"], [*PAGE, "notes.txt"], [*PAGE, "loose", "--force"],
        [*WATCH, "old.html"], [*TUNE, "--out", "run"], [*TUNE, "--out", "link"],
        ["run", "--out", "run"], ["record", "squad", "--out", "records", "--minutes", "0"],
        ["claims", "lr-default", "--out", "ledger", "--minutes", "0"],
        ["serve", "run", "--watch", "notes.txt"], ["build", "student", "--out", "solved"]],
    "is no ordinary file": [
        [*AUDIT, "--out", "pipe", "--force"], [*PAGE, "pipe", "--force"],
        [*WATCH, "pipe", "--force"]],
    "other things in it": [
        [*TUNE, "--out", "mine"], [*TUNE, "--out", "mine", "--force"],
        [*TUNE, "--out", "mine", "--resume"], [*TUNE, "--out", "run/model", "--force"],
        ["run", "--out", "."],
        ["run", "--out", "mine", "--force"], [*PRETRAIN, "--out", "mine", "--force"],
        [*PRETRAIN, "--out", "run/model", "--force"], [*PRETRAIN, "--out", "run", "--force"],
        [*ONNX, "mine"], [*ONNX, "mine", "--force"],
        ["registry", "add", "run", "m", "--registry", "reg"]],
    "other things and none of the notebooks": [["build", "student", "--out", "letters", "--force"]],
    "is a file": [
        [*TUNE, "--out", "notes.txt"], [*TUNE, "--out", "notes.txt/run", "--force"],
        [*ONNX, "notes.txt", "--force"], [*PRETRAIN, "--out", "corpus.txt", "--force"]],
    "is no folder": [[*TUNE, "--out", "loose"], [*TUNE, "--out", "pipe/run"], [*ONNX, "loose"]],
    "is a folder": [[*AUDIT, "--out", "/"], [*AUDIT, "--out", "run", "--force"],
                    [*PAGE, "run", "--force"], [*AUDIT, "--out", ".", "--force"],
                    ["serve", "run", "--watch", "mine"]],
    "lies in": [[*ONNX, "run/onnx"], [*TUNE, "--out", "/"], [*TUNE, "--out", "./run/.."],
                [*TUNE, "--model", "./run/model", "--out", "run", "--force"],
                [*TUNE, "--model", "run/model", "--out", "run/model/new"],
                ["registry", "add", "run", "m", "--registry", "run/registry"]],
    "can't be written": [
        [*AUDIT, "--out", "/proc/x/report.html"], [*AUDIT, "--out", "/sys/x"],
        [*TUNE, "--out", "/proc/run"], [*PAGE, "/proc/page.html"], [*ONNX, "/proc/run"],
        [*AUDIT, "--out", "notes.txt/report.html"], [*PRETRAIN, "--out", "/proc/run"],
        ["build", "student", "--out", "/proc/x"],
        ["registry", "add", "run", "m", "--registry", "/proc/x"],
        ["record", "squad", "--out", "/proc/x"], ["claims", "--out", "/proc/x"],
        ["serve", "run", "--watch", "/proc/x"]],
    "give a shorter name": [
        [*AUDIT, "--out", LONG], [*TUNE, "--out", LONG], [*PAGE, LONG], [*ONNX, LONG],
        [*WATCH, LONG],
        [*AUDIT, "--out", f"{LONG}/report.html"], [*TUNE, "--out", "q/" * 2500],
        ["build", "student", "--out", LONG]],
    "null": [[*AUDIT, "--out", "a\0b"], [*TUNE, "--out", "a\0b"], [*PAGE, "a\0b"]],
}


@pytest.mark.parametrize("words, arguments", [(w, a) for w, rows in REFUSED.items() for a in rows],
                         ids=lambda x: " ".join(x)[:60] if isinstance(x, list) else None)
def test_refused_in_one_line_and_nothing_touched(home, monkeypatch, words, arguments):
    monkeypatch.chdir(home)
    before = contents(home)
    code, said = course(*arguments)
    assert code == 2 and words in said and said.count("\n") == 1 and len(said) < 700, said
    assert contents(home) == before


# Any bytes, any tree

NAMES = st.sampled_from([
    "a.csv", "b.csv", "out", "out/recipe.json", "out/model/config.json", "out/README.md",
    "out/history.csv", "out/export.json", "out/own.txt", ".out.try", ".out.tmp/x", "report.html",
    "c/d/e", "claims.csv", "registry.db", ".registry.db.tmp"])
CONTENT = st.binary(max_size=40) | st.sampled_from([TABLE.encode(), b"{}", b""])
OUT = st.sampled_from(["out", "out/model", "a.csv", "b.csv", "./a.csv", "report.html", "c", "c/d",
                       ".", "new/x", "soft", "hard.csv", "loose", "out/README.md", "soft/out"])
COMMANDS = st.sampled_from([
    ["audit", "--data", "a.csv"], ["audit", "--data", "b.csv", "--label", "label"],
    ["fine-tune", "--data", "b.csv", "--max-length", "1"],
    ["fine-tune", "--data", "a.csv", "--device", "nonsense"],
    ["fine-tune", "--data", "a.csv", "--model", "./out/model"],
    ["pretrain", "--corpus", "a.csv", "--family", "gpt2", "--tokens", "9"],
    ["export", "out", "--onnx"], ["watch", "out", "--data", "a.csv"], ["build", "novice"]])


@given(st.dictionaries(NAMES, CONTENT, max_size=6), COMMANDS, OUT, st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_refused_command_leaves_the_tree_as_it_was(tmp_path_factory, tree, command, out, force):
    folder, before = tmp_path_factory.mktemp("tree"), Path.cwd()
    for name, content in tree.items():
        path = folder / name
        if any(is_file(p) for p in path.parents) or path.is_dir(): continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.symlink("out", folder / "soft")
    os.symlink("nowhere", folder / "loose")
    if is_file(folder / "a.csv"): os.link(folder / "a.csv", folder / "hard.csv")
    there, options = contents(folder), ["--force"] if force and command[0] != "build" else []
    os.chdir(folder)
    try: code, said = course(*command, "--out", out, *options)
    finally: os.chdir(before)
    now = contents(folder)
    if code == 0:                                      # then nothing but what was asked for
        target = os.path.normpath(out)
        assert {n for n in {*there, *now} if there.get(n) != now.get(n)} <= {target, "new"}
        assert force or target not in there
        return
    assert code == 2 and said.count("\n") == 1 and now == there, said
    shutil.rmtree(folder)


# Run folders by others

EDITED = [
    ("classes", [["neg", "pos"], {}, None, 5, {"neg": -1, "pos": 1}, {"neg": "a", "pos": 1}]),
    ("task", ["x", None, 5, [1], {}]), ("max_length", [None, "a", -1, 0, 1, 1e30, 24.5, [3], True]),
    ("data", [None, 5, {}, []]), ("text", [5, ["a"]]), ("label", [5]), ("encoding", [5]),
    ("delimiter", [5]), ("labels", ["ab", 5, [1, 2]]), ("seed", ["x", None, -1, 1.5]),
    ("max_train_samples", ["x", 0]), ("fingerprints", [[], {"train": 5}, {"train": "a"}, None]),
    ("validation", [5]), ("test", [5]), ("learning_rate", ["x"]), ("epochs", ["three", 0]),
    ("lora_rank", ["x"]), ("opened", [None, 5]), ("rows", [None, {"train": "many"}]),
    ("model", [5, None]), ("dropout", ["x", 2])]


@pytest.fixture
def edited(home, tmp_path):
    "Changes the recipe of a copy of the run."
    run, good = tmp_path / "run", json.loads((home / "run/recipe.json").read_text())
    shutil.copytree(home / "run", run)
    def change(**fields):
        kept = {name: value for name, value in {**good, **fields}.items() if value is not GONE}
        (run / "recipe.json").write_text(json.dumps(kept))
        return run
    return change


GONE = object()


@pytest.mark.parametrize("name, value", [(name, v) for name, values in EDITED for v in values])
def test_a_field_that_cannot_be_is_named(edited, name, value):
    run = edited(**{name: value})
    with pytest.raises(InputError) as refused: read_recipe(run)
    (problem,) = refused.value.problems
    assert "recipe.json" in problem and name in problem and len(problem) < 500


@pytest.mark.parametrize("arguments", [
    ["evaluate", "RUN", "--data", "a.csv"], ["predict", "RUN", "A joy"],
    ["export", "RUN", "--onnx"], ["watch", "RUN", "--data", "a.csv"],
    ["compare", "RUN", "RUN", "--data", "a.csv"], ["export", "RUN", "--page", "p.html"],
    ["serve", "RUN"], ["generate", "RUN", "A"],
    ["registry", "add", "RUN", "m", "--registry", "new"]])
@pytest.mark.parametrize("raw", ["", "[]", "null", '"x"', "{" * 100_000, '{"a":' * 100_000, "{}",
                                 '{"task": "x", "classes": {}, "max_length": 9}'])
def test_every_command_refuses_a_recipe_that_is_none(home, edited, monkeypatch, arguments, raw):
    monkeypatch.chdir(home)
    run, before = edited(), contents(home)
    (run / "recipe.json").write_text(raw)
    code, said = course(*(run if a == "RUN" else a for a in arguments))
    assert code == 2 and "recipe.json" in said and said.count("\n") == 1, said
    assert contents(home) == before


@given(RECIPES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_recipe_is_read_or_refused(edited, fields):
    run = edited(**fields)
    try: recipe = read_recipe(run)
    except InputError: return
    known_splits({**recipe, "made_by": "somebody"})


@given(SCORES)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_scores_are_read_or_refused(home, tmp_path, fields):
    good = json.loads((home / "run/metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({**good, **fields}))
    try: read_metrics(tmp_path)
    except InputError as e: assert "metrics.json" in str(e)


def test_what_an_older_version_did_not_record(edited):
    run = edited(fingerprints=GONE, opened=GONE, data=GONE, seed=GONE, lora_rank=GONE)
    assert read_recipe(run)["seed"] == 0 and known_splits(read_recipe(run)) is None
    with pytest.raises(InputError): validation_rows(read_recipe(run))
    with pytest.raises(InputError, match="max_length is missing"):
        read_recipe(edited(max_length=GONE))


def test_tables_named_by_a_stranger_are_not_opened(edited, tmp_path, monkeypatch):
    "A pipe would wait for ever; here the run was made by us, there by somebody else."
    assert known_splits(read_recipe(edited())) is not None
    os.mkfifo(tmp_path / "pipe")
    for data in (str(tmp_path / "pipe"), "a.csv", "stanfordnlp/imdb"):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.csv").write_text(TABLE)
        recipe = read_recipe(edited(data=data, made_by="somebody"))
        opened = []
        monkeypatch.setattr("course_lib.runs.load_data", lambda **_: opened.append(1))
        assert known_splits(recipe) is None and scored_rows(recipe) is None and not opened
        with pytest.raises(InputError, match="made elsewhere, so it isn't opened"):
            validation_rows(recipe)
        assert not opened


def test_logits_that_are_not_finite_are_no_answers():
    good = torch.zeros(3, 2)
    assert checked(good) is good
    for number in (float("nan"), float("inf")):
        bad = good.clone()
        bad[1, 0] = number
        with pytest.raises(InputError, match="1 of 3 texts"): checked(bad)
