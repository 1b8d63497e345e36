"""The package as an importer has it: light, complete, and at home outside the checkout."""
import configparser
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT


def python(program, **options): return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, **options)


@pytest.mark.parametrize("module, absent", [
    ("course_lib", "torch transformers matplotlib datasets pandas numpy sklearn IPython"), ("course_lib.cli", "torch transformers matplotlib datasets sklearn"),
    ("course_lib.show", "torch transformers datasets sklearn IPython matplotlib.pyplot"), ("course_lib.data", "transformers matplotlib sklearn IPython"),
    ("course_lib.optim", "transformers datasets matplotlib sklearn"), ("course_lib.models", "matplotlib sklearn"), ("course_lib.tokens", "matplotlib sklearn"),
    ("course_lib.training", "sklearn IPython nbdev"), ("course_lib.runs", "IPython nbdev ipywidgets matplotlib.pyplot")])
def test_each_module_imports_only_what_it_needs(module, absent):
    done = python(f"import sys, {module}; print(*[m for m in {absent.split()} if m in sys.modules])")
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr


def test_no_notebook_software_at_run_time():
    config = configparser.ConfigParser(delimiters=["="], interpolation=None); config.read(ROOT / "settings.ini")
    needed = config["DEFAULT"]["requirements"].lower()
    assert not re.search(r"nbdev|fastcore|jupyter|ipykernel|ipywidgets|ipython|nbval", needed)


def test_settings_are_the_only_place_for_metadata():
    assert not (ROOT / "pyproject.toml").exists() and "settings.ini" in (ROOT / "setup.py").read_text()


def test_every_pin_admits_what_is_required():
    from packaging.requirements import Requirement
    pins = dict(line.strip().lower().replace("_", "-").split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line and not line.startswith("#"))
    config = configparser.ConfigParser(delimiters=["="], interpolation=None); config.read(ROOT / "settings.ini")
    for key in config["DEFAULT"]:
        if not key.endswith("requirements"): continue
        for r in map(Requirement, config["DEFAULT"][key].split()):
            assert r.name.lower().replace("_", "-") in pins, f"{r.name} has no pin in constraints.txt"
            assert r.specifier.contains(pins[r.name.lower().replace("_", "-")]), f"{r} does not admit its pin"


def test_public_functions_say_what_they_do():
    import importlib, inspect
    for name in ("show", "data", "tokens", "models", "optim", "training", "evaluation", "runs", "prompting", "choosing", "adapters", "multitask", "cli"):
        module = importlib.import_module(f"course_lib.{name}")
        for member in module.__all__:
            thing = getattr(module, member)
            if inspect.isfunction(thing) or inspect.isclass(thing): assert inspect.getdoc(thing) and len(inspect.getdoc(thing)) > 15, f"{name}.{member} has no docstring"


def test_wheel_in_an_empty_environment(tmp_path):
    "Built, installed with its dependencies into a fresh environment, run from another folder with the network cut."
    def run(*command, **options):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    wheel = next(tmp_path.glob("course_lib-*.whl"))
    assert wheel.stat().st_size < 35e6
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    bin = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run(bin / "python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", wheel)
    away = tmp_path / "elsewhere"; away.mkdir()
    cut = "import socket\ndef refuse(*a, **k): raise OSError('the network is cut')\nsocket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
    (tmp_path / "cut").mkdir(); (tmp_path / "cut/sitecustomize.py").write_text(cut)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HUB_OFFLINE", "VIRTUAL_ENV")}
    done = run(bin / "course", "fine-tune", "--data", "reviews", "--epochs", 1, "--max-length", 16, "--out", "run", cwd=away, env={**environment, "PYTHONPATH": str(tmp_path / "cut"), "HF_HOME": str(tmp_path / "hf")})
    assert (away / "run/README.md").exists() and "this model" in done.stdout
    names = run(bin / "python", "-m", "pip", "list", "--format", "freeze").stdout.lower()
    assert not re.search(r"^(nbdev|jupyterlab|ipykernel|ipywidgets|fastcore)==", names, re.M)
