"""The export reads the chapters and nothing else that lies in the clone."""
import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from course_lib.exercises import build, source_of

EXPORT = "from nbdev.doclinks import nbdev_export; nbdev_export()"
SPOILT = "\nassert False, 'exported from a file that is no chapter'\n"


@pytest.fixture
def clone(tmp_path):
    "A copy of what the export reads and writes."
    unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("nbs", "course_lib"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    return tmp_path


def package(clone) -> dict: # path -> bytes
    return {p.relative_to(clone): p.read_bytes() for p in (clone / "course_lib").rglob("*.py")}


def export(clone):
    subprocess.run([sys.executable, "-c", EXPORT], cwd=clone, check=True, capture_output=True)


def spoil(path):
    "Change every exported cell of a notebook."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if source_of(cell).startswith("#| export"): cell["source"] = source_of(cell) + SPOILT
    path.write_text(json.dumps(notebook), encoding="utf-8")


def test_built_notebooks_and_hand_ins_leave_the_package_alone(clone):
    before = package(clone)
    for folder in ("student", "runs/mine", "handed-in/somebody"):
        build("student", clone / folder)
        for path in (clone / folder).glob("*.ipynb"): spoil(path)
    shutil.copy(clone / "handed-in/somebody/04_optim.ipynb", clone / "work.ipynb")
    export(clone)
    assert package(clone) == before


def test_a_changed_chapter_does_change_the_package(clone):
    "So the test above sees an export that works."
    before = package(clone)
    spoil(clone / "nbs/04_optim.ipynb")
    export(clone)
    after = package(clone)
    assert [str(p) for p in after if after[p] != before.get(p)] == ["course_lib/optim.py"]
