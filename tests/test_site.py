"""The docs site as far as it can be known without Quarto: every page prepared, and each kind of fault found where it is planted."""
import importlib.util
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

spec = importlib.util.spec_from_file_location("build_site", ROOT / "scripts/build_site.py")
build_site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_site)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    work = tmp_path_factory.mktemp("site")
    build_site.prepare(work)
    return work / "_proc"


def test_every_chapter_and_module_is_a_page_without_fault(prepared):
    assert build_site.check(prepared) == []
    assert {p.name for p in (prepared / "nbs").glob("*.ipynb")} == {p.name for p in (ROOT / "nbs").glob("*.ipynb")}
    with zipfile.ZipFile(prepared / "student.zip") as archive: assert {Path(n).name for n in archive.namelist() if n.endswith(".ipynb")} == {p.name for p in (ROOT / "nbs").glob("*.ipynb")}
    modules = {p.stem for p in (ROOT / "course_lib").glob("*.py")} - {"__init__", "_modidx", "__main__"}
    assert {p.stem for p in (prepared / "api").glob("*.md")} == modules
    optim = (prepared / "api/optim.md").read_text()
    assert "### AdamW" in optim and "../nbs/04_optim.ipynb" in optim
    page = build_site.read_page(prepared / "nbs/04_optim.ipynb")
    assert "../api/optim.md" in page["links"] and "../student.zip" in page["links"] and len(page["images"]) > 3 and page["title"]
    for path in (prepared / "nbs").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        opening = "".join(build_site.source_of(c) for c in cells[:6])
        assert path.stem == "c_main" or ".callout-note" in opening and "**You will be able to**" in opening, f"{path.stem} has lost its opening box"
        assert not any(o.get("name") == "stderr" for c in cells for o in c.get("outputs", []))
        way = {"c_main", "c_show", "index", "b_claims", "c_command_line", "d_exercises"}
        assert path.stem in way or f"images/way_{int(path.stem[:2])}.svg" in opening
    code = [build_site.source_of(c) for c in json.loads((prepared / "nbs/04_optim.ipynb").read_text())["cells"] if c["cell_type"] == "code"]
    assert not any("BEGIN SOLUTION" in c for c in code) and sum('code-summary: "A solution"' in c for c in code) == sum('code-summary: "Wrong answers' in c for c in code) == 3
    assert "aliases: [/index.html]" in build_site.source_of(json.loads((prepared / "nbs/index.ipynb").read_text())["cells"][0])


def append(name, text):
    def plant(site):
        path = site / name
        if path.suffix != ".ipynb": path.write_text(path.read_text() + text); return
        notebook = json.loads(path.read_text())
        notebook["cells"].append({"cell_type": "markdown", "id": "planted", "metadata": {}, "source": text})
        path.write_text(json.dumps(notebook))
    return plant


def replace(name, old, new):
    def plant(site):
        text = (site / name).read_text()
        assert old in text
        (site / name).write_text(text.replace(old, new, 1))
    return plant


@pytest.mark.parametrize("plant, complaint", [
    (append("nbs/04_optim.ipynb", "See [this](99_nothing.ipynb)."), "link to 99_nothing.ipynb, which is not there"),
    (append("api/optim.md", "See [this](../nbs/99_nothing.ipynb)."), "link to ../nbs/99_nothing.ipynb"),
    (append("nbs/04_optim.ipynb", "See [this](05_training.ipynb#no-such-heading)."), "no such heading"),
    (append("nbs/04_optim.ipynb", '<a href="nowhere.html">here</a>'), "link to nowhere.html"),
    (append("nbs/04_optim.ipynb", "![A plot](images/nothing.png)"), "picture images/nothing.png is not there"),
    (append("nbs/04_optim.ipynb", "![](images/loss.png)"), "loss.png has no alt text"),
    (append("nbs/04_optim.ipynb", '<img src="images/loss.png">'), "loss.png has no alt text"),
    (append("nbs/04_optim.ipynb", "<svg><circle/></svg>"), "<svg> has no alt text"),
    (lambda site: (site / "nbs/images/loss.png").unlink(), "picture images/loss.png is not there"),
    (replace("_quarto.yml", "          - nbs/04_optim.ipynb\n", ""), "nbs/04_optim.ipynb: no navigation leads to it"),
    (replace("_quarto.yml", "nbs/04_optim.ipynb", "nbs/04_optimum.ipynb"), "the navigation leads to nbs/04_optimum.ipynb, which is not there"),
    (replace("_quarto.yml", "    toc: true", "    tok: true"), "'tok' was unexpected"),
    (replace("_quarto.yml", "  search: true", "  serch: true"), "'serch' was unexpected"),
    (replace("_quarto.yml", "style: floating", "style: flying"), "'flying' is not one of"),
    (replace("api/optim.md", "title:", "titel:"), "has no title"),
    (lambda site: (site / "student.zip").unlink(), "resource student.zip is not there"),
    (lambda site: (site / "styles.css").unlink(), "styles.css is not there"),
])
def test_a_planted_fault_is_found(prepared, tmp_path, plant, complaint):
    site = tmp_path / "site"
    shutil.copytree(prepared, site)
    if "images/loss.png is not there" in complaint: append("nbs/04_optim.ipynb", "![A plot](images/loss.png)")(site)
    plant(site)
    faults = build_site.check(site)
    assert any(complaint in f for f in faults), faults


@pytest.mark.parametrize("heading, anchor", [("A valley to walk in", "a-valley-to-walk-in"), ("4. `AdamW`, by hand!", "adamw-by-hand"), ("Exercise 4.2 · change it: Adam", "exercise-4.2-change-it-adam"), ("[A link](x.html) here", "a-link-here")])
def test_anchors_are_those_of_pandoc(heading, anchor): assert build_site.anchor_of(heading) == anchor
