"""The notebooks themselves: whole, run in order, asserting, and the only source of the package."""
import json
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT, roughly_equal

from course_lib.exercises import find_exercises

sys.path.insert(0, str(ROOT / "scripts"))
from chapters import modules

NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


def code_cells(notebook): return [c for c in notebook["cells"] if c["cell_type"] == "code"]
def source(cell): return "".join(cell["source"])


SKIP_MARK = re.compile(r"(?im)^#\s*(NBVAL_SKIP|NBVAL_RAISES_EXCEPTION|"
                       r"PYTEST_VALIDATE_IGNORE_OUTPUT)|^#\|\s*eval:\s*false")


def problems(notebook: dict) -> list:
    "What is wrong with a notebook as it is stored, a line each."
    cells, found = code_cells(notebook), []
    if [c["execution_count"] for c in cells] != list(range(1, len(cells) + 1)):
        found.append("was not run from top to bottom in one go: run `make notebooks`")
    for i, c in enumerate(cells, 1): found += [f"cell {i} {fault}" for fault in cell_problems(c)]
    head = "".join(source(c) for c in notebook["cells"][:2])
    skipped = re.search(r"skip_exec|skip_showdoc|eval:\s*false", head)
    if skipped or "skip" in json.dumps(notebook["metadata"]): found.append("is marked as skipped")
    if not any(re.search(r"(?m)^\s*assert\b", source(c)) for c in cells):
        found.append("asserts nothing")
    return found


def cell_problems(c: dict) -> list:
    "What is wrong with a cell."
    found = []
    tags = c["metadata"].get("tags", [])
    if any(o["output_type"] == "error" for o in c["outputs"]): found.append("stores an error")
    if any("skip" in t or t == "raises-exception" for t in tags):
        found.append("is tagged as skipped or failing")
    if SKIP_MARK.search(source(c)): found.append("is marked as skipped or failing")
    if not source(c).strip(): found.append("is empty")
    for o in c["outputs"]:
        alt = o.get("metadata", {}).get("image/png", {}).get("alt")
        if "image/png" in o.get("data", {}) and not alt:
            found.append("shows a picture without alt text")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_whole(path):
    assert problems(json.loads(path.read_text(encoding="utf-8"))) == []


def spoil(change):
    "A good notebook with one thing changed."
    title = {"cell_type": "markdown", "source": "# T", "metadata": {}}
    cell = {"cell_type": "code", "source": "assert 1 + 1 == 2", "metadata": {},
            "execution_count": 1, "outputs": []}
    notebook = {"cells": [title, cell], "metadata": {}}
    change(notebook, cell)
    return notebook


SKIPPED = {"cell_type": "raw", "source": "---\nskip_exec: true\n---", "metadata": {}}
PICTURE = {"output_type": "display_data", "data": {"image/png": ""}, "metadata": {}}


@pytest.mark.parametrize("change, complaint", [
    (lambda n, c: None, None),
    (lambda n, c: c.update(execution_count=None), "top to bottom"),
    (lambda n, c: c.update(execution_count=7), "top to bottom"),
    (lambda n, c: c["outputs"].append({"output_type": "error"}), "stores an error"),
    (lambda n, c: c["metadata"].update(tags=["nbval-skip"]), "skipped"),
    (lambda n, c: c["metadata"].update(tags=["raises-exception"]), "failing"),
    (lambda n, c: c.update(source="# NBVAL_SKIP\nassert True"), "skipped"),
    (lambda n, c: c.update(source="#| eval: false\nassert True"), "skipped"),
    (lambda n, c: n["cells"].insert(0, SKIPPED), "skipped"),
    (lambda n, c: c.update(source="print(2)"), "asserts nothing"),
    (lambda n, c: c.update(source="# assert"), "asserts nothing"),
    (lambda n, c: c["outputs"].append(PICTURE), "alt text"),
])
def test_the_check_finds(change, complaint):
    found = problems(spoil(change))
    assert (found == []) if complaint is None else any(complaint in f for f in found)


def test_package_comes_from_the_notebooks(tmp_path):
    unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("nbs", "course_lib"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    here = {p.relative_to(tmp_path): p.read_text() for p in (tmp_path / "course_lib").rglob("*.py")}
    shutil.rmtree(tmp_path / "course_lib")
    export = "from nbdev.doclinks import nbdev_export; nbdev_export()"
    subprocess.run([sys.executable, "-c", export], cwd=tmp_path, check=True, capture_output=True)
    files = (tmp_path / "course_lib").rglob("*.py")
    fresh = {p.relative_to(tmp_path): p.read_text() for p in files}
    assert set(here) == set(fresh), ("files in course_lib/ that no notebook exports, or the other "
                                     "way round: run `make notebooks`")
    changed = [str(p) for p in here if here[p] != fresh[p]]
    assert changed == [], "not what the notebooks export; edit those and run `make notebooks`"


def test_no_chapter_imports_a_later_one():
    package = {p.stem for p in (ROOT / "course_lib").glob("*.py")} - {"__init__", "_modidx"}
    pages = modules()
    assert package == set(pages)
    imported = {}
    for name in pages:
        code = (ROOT / f"course_lib/{name}.py").read_text(encoding="utf-8")
        found = set(re.findall(r"from (?:course_lib)?\.(\w+) import", code))
        imported[name] = found - {name, "_modidx"}         # bench starts itself anew
    assert sum(map(bool, imported.values())) > len(pages) / 2, "does this check see imports?"
    chapters = [name for name, path in pages.items() if path.name[0].isdigit()]
    needs = {}                                             # through the appendices, too
    for name in TopologicalSorter(imported).static_order(): # raises CycleError
        needs[name] = imported[name].union(*(needs[other] for other in imported[name]))
    for i, name in enumerate(chapters):
        later = needs[name] & set(chapters[i + 1:])
        assert not later, f"{name} imports {later}"


def run_one(notebook: dict, folder):
    "Run one notebook through nbval with the project's own settings."
    for name in ("tests", "pytest.ini"): (folder / name).symlink_to(ROOT / name)
    (folder / "one.ipynb").write_text(json.dumps(notebook))
    command = ["-m", "pytest", "one.ipynb", "-q", "-c", "pytest.ini", "-p", "tests.conftest"]
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("tags, stored, passes", [
    ([], "loss 0.512\n", True), ([], "loss 0.513\n", False), (["trained"], "loss 0.533\n", True),
    (["trained"], "loss 0.712\n", False), (["trained"], "other 0.512\n", False),
    (["nbval-skip"], "loss 0.512\n", False)])
def test_a_changed_number_is_noticed(tmp_path, tags, stored, passes):
    output = {"output_type": "stream", "name": "stdout", "text": stored}
    cell = {"cell_type": "code", "id": "a1", "source": "print('loss 0.512')", "outputs": [output],
            "metadata": {"tags": tags}, "execution_count": 1}
    kernel = {"name": "python3", "display_name": "python3", "language": "python"}
    done = run_one({"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4,
                    "nbformat_minor": 5}, tmp_path)
    assert (done.returncode == 0) == passes, done.stdout + done.stderr


def test_the_template_of_a_chapter_passes(tmp_path):
    notebook = json.loads((ROOT / "scripts/template.ipynb").read_text(encoding="utf-8"))
    assert problems(notebook) == [] and len(find_exercises(notebook)) == 1
    done = run_one(notebook, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_roughly_equal():
    assert roughly_equal("right: 95 and 0.71", "right: 101 and 0.68")
    assert not roughly_equal("0.71", "0.61") and not roughly_equal("a 1", "b 1")
