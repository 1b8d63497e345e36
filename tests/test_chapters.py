"""What the course consists of is read, not typed; a chapter added as CONTRIBUTING says passes."""
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import draw_way
from chapters import module_of, number_of, pages, parts, source_of

COPIED = ["nbs", "scripts", "tests", "course_lib", "site"]
FILES = ["settings.ini", "_quarto.yml", "README.md", "CONTRIBUTING.md", "pytest.ini"]
CHECKS = ["tests/test_chapters.py", "tests/test_notebooks.py", "tests/test_site.py",
          "tests/test_exercises.py"]
CHEAP = ("whole or package or imports or linked or navigation or way or page or numbered or hints "
         "or stored or learner or metadata")


def test_every_notebook_is_in_the_navigation_once():
    assert sorted(pages()) == sorted((ROOT / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("path", pages(), ids=lambda p: p.stem)
def test_every_page_is_linked_from_the_readme_and_the_first_page(path):
    if module_of(path) == "__main__": return           # a page of one line
    assert f"(nbs/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
    first = (ROOT / "nbs/index.ipynb").read_text(encoding="utf-8")
    assert number_of(path) is None or f"({path.name})" in first


def test_every_chapter_has_its_place_on_the_way_drawn():
    places = draw_way.places()
    assert set(places) == {number_of(path) for path in pages()} - {None}
    for number, marked in places.items():
        picture = ROOT / f"nbs/images/way_{number}.svg"
        assert picture.read_text(encoding="utf-8") == draw_way.draw(marked)


def reading_time(path) -> int: # minutes, as the page's first box says
    text = "\n".join(source_of(c) for c in json.loads(path.read_text(encoding="utf-8"))["cells"])
    return int(re.search(r"reading: (\d+) min", text)[1])


def test_the_times_of_the_routes_are_the_sums_of_their_pages():
    first = ROOT / "nbs/index.ipynb"
    text = "\n".join(source_of(c) for c in json.loads(first.read_text(encoding="utf-8"))["cells"])
    (part_one,) = [paths for title, paths in parts().items() if title.startswith("Part I:")]
    row = r"(?m)^\| an? (hour|day|week) \| (.*) \| (?:(\d+) h)? ?(?:(\d+) min)? \|$"
    rows = re.findall(row, text)
    assert [name for name, *_ in rows] == ["hour", "day", "week"]
    for name, read, hours, minutes in rows:
        listed = [ROOT / "nbs" / link for link in re.findall(r"\((\w+\.ipynb)\)", read)]
        if "this page" in read: listed.append(first)
        if "all of Part I," in read: listed += part_one
        total = sum(map(reading_time, listed))
        assert abs(total - 60 * int(hours or 0) - int(minutes or 0)) <= 5, (name, total)


def replace_once(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.fixture
def clone(tmp_path):
    unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in COPIED: shutil.copytree(ROOT / name, tmp_path / name, ignore=unwanted)
    for name in FILES: shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    return tmp_path


@pytest.mark.slow
def test_a_chapter_added_as_contributing_says_passes(clone):
    last = max((p for p in pages() if number_of(p)), key=lambda p: int(number_of(p)))
    number = str(int(number_of(last)) + 1)
    name = f"{number}_new.ipynb"
    chapter = (clone / "scripts/template.ipynb").read_text(encoding="utf-8")
    chapter = re.sub(r"(?<=way_)99|\b99\b", number, chapter)
    (clone / "nbs" / name).write_text(chapter, encoding="utf-8")
    line = f"          - nbs/{last.name}\n"
    replace_once(clone / "_quarto.yml", line, f"{line}          - nbs/{name}\n")
    row = f"| {number} | [new](nbs/{name}) | new |\n"
    replace_once(clone / "README.md", "| start |", f"{row}| start |")
    replace_once(clone / "nbs/index.ipynb", f"({last.name})", f"({last.name}), [new]({name})")
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    for command in (["scripts/draw_way.py"], ["-m", "pytest", "-q", "-x", "-k", CHEAP, *CHECKS]):
        done = subprocess.run([sys.executable, *command], cwd=clone, env=environment, text=True,
                              capture_output=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
