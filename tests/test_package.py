"""The package as an importer has it: light, complete, and at home outside the checkout."""
import configparser
import importlib
import inspect
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

MODULES = sorted(p.stem for p in (ROOT / "course_lib").glob("*.py") if not p.stem.startswith("_"))


def python(program, **options):
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, **options)


def requirements() -> dict[str, str]:
    "What settings.ini requires: for the package, and for each of its extras."
    config = configparser.ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini")
    return {key: text for key, text in config["DEFAULT"].items() if key.endswith("requirements")}


@pytest.mark.parametrize("module, absent", [
    ("course_lib", "torch transformers matplotlib datasets pandas numpy sklearn IPython"),
    ("course_lib.cli", "torch transformers matplotlib datasets sklearn"),
    ("course_lib.show", "torch transformers datasets sklearn IPython matplotlib"),
    ("course_lib.data", "transformers matplotlib sklearn IPython"),
    ("course_lib.optim", "transformers datasets matplotlib sklearn"),
    ("course_lib.models", "matplotlib sklearn"),
    ("course_lib.tokens", "matplotlib sklearn"),
    ("course_lib.training", "sklearn scipy.stats matplotlib IPython nbdev"),
    ("course_lib.runs", "sklearn scipy.stats matplotlib IPython nbdev ipywidgets"),
    ("course_lib.multilabel", "peft bitsandbytes matplotlib.pyplot"),
    ("course_lib.entities", "peft bitsandbytes seqeval matplotlib sklearn scipy.stats"),
    ("course_lib.sequences", "peft bitsandbytes sacrebleu rouge_score matplotlib sklearn"),
    ("course_lib.instruction", "peft bitsandbytes trl matplotlib.pyplot"),
])
def test_each_module_imports_only_what_it_needs(module, absent):
    here = f"[m for m in {absent.split()} if m in sys.modules]"
    done = python(f"import sys, {module}; print(*{here})")
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def test_no_notebook_software_at_run_time():
    needed = requirements()["requirements"].lower()
    assert "torch" in needed
    assert not re.search(r"nbdev|fastcore|jupyter|ipykernel|ipywidgets|ipython|nbval", needed)


def test_settings_are_the_only_place_for_metadata():
    assert not (ROOT / "pyproject.toml").exists()
    assert "settings.ini" in (ROOT / "setup.py").read_text()


def test_every_pin_admits_what_is_required():
    def same(name): return name.lower().replace("_", "-")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(same(line).split("==") for line in lines if "==" in line and line[0] != "#")
    tested = {key: text for key, text in requirements().items() if not key.startswith("bench")}
    needed = [Requirement(r) for text in tested.values() for r in text.split()]
    assert len(needed) > 20
    for r in needed:
        assert same(r.name) in pins, f"{r.name} has no pin in constraints.txt"
        assert r.specifier.contains(pins[same(r.name)]), f"{r} does not admit its pin"


def test_modules_are_found():
    assert {"data", "training", "cli"} <= set(MODULES) and len(MODULES) > 20


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_say_what_they_do(name):
    module = importlib.import_module(f"course_lib.{name}")
    assert module.__all__
    for member in module.__all__:
        thing = getattr(module, member)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)): continue
        assert len(inspect.getdoc(thing) or "") > 15, f"{name}.{member} has no docstring"


CUT = """import socket

def refuse(*a, **k): raise OSError('the network is cut')

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""


@pytest.mark.slow
def test_wheel_in_an_empty_environment(tmp_path):
    "Built, installed into a fresh environment, run from another folder with the network cut."
    ours = ("PYTHONPATH", "HF_HUB_OFFLINE", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if k not in ours}

    def run(*command, env=environment, **options):
        command = [str(c) for c in command]
        done = subprocess.run(command, capture_output=True, text=True, env=env, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pip = [sys.executable, "-m", "pip"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    wheel = next(tmp_path.glob("course_lib-*.whl"))
    assert wheel.stat().st_size < 35e6
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    bin = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = [bin / "python", "-m", "pip"]
    run(*pip, "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", wheel)

    away = tmp_path / "elsewhere"
    away.mkdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/sitecustomize.py").write_text(CUT)
    cut = {**environment, "PYTHONPATH": str(tmp_path / "cut"), "HF_HOME": str(tmp_path / "hf")}
    short = ["--epochs", 1, "--max-length", 16, "--out", "run"]
    said = run(bin / "course", "fine-tune", "--data", "reviews", *short, cwd=away, env=cut)
    assert (away / "run/README.md").exists() and "this model" in said
    names = run(*pip, "list", "--format", "freeze").lower()
    assert "torch==" in names
    assert not re.search(r"^(nbdev|jupyterlab|ipykernel|ipywidgets|fastcore)==", names, re.M)
