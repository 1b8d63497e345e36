"""The docs site as far as it can be known without Quarto: every page prepared, and each kind of
fault found where it is planted."""
import ast
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import build_site
from build_site import lines, source_of
from chapters import modules, number_of, pages

NAMES = {p.name for p in (ROOT / "nbs").glob("*.ipynb")}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    work = tmp_path_factory.mktemp("site")
    build_site.prepare(work)
    return work / "_proc"


def cells_of(path): return json.loads(path.read_text(encoding="utf-8"))["cells"]
def code_of(path): return [source_of(c) for c in cells_of(path) if c["cell_type"] == "code"]


def test_every_chapter_and_module_is_a_page_without_fault(prepared):
    assert build_site.check(prepared) == []
    assert {p.name for p in (prepared / "nbs").glob("*.ipynb")} == NAMES
    package = {p.stem for p in (ROOT / "course_lib").glob("*.py")}
    exported = package - {"__init__", "_modidx", "__main__"}
    assert {p.stem for p in (prepared / "api").glob("*.md")} == exported
    with zipfile.ZipFile(prepared / "student.zip") as archive:
        inside = {Path(name).name for name in archive.namelist()}
    assert NAMES <= inside


def test_chapter_and_module_lead_to_each_other(prepared):
    optim = (prepared / "api/optim.md").read_text()
    assert "### AdamW" in optim and "../nbs/04_optim.ipynb" in optim
    assert optim.count("<summary>Code</summary>") == optim.count("\n### ")
    tuning = (prepared / "api/tuning.md").read_text()
    assert "#### Panel.settings" in tuning and "class Panel:" in tuning
    page = build_site.read_page(prepared / "nbs/04_optim.ipynb")
    assert "../api/optim.md" in page["links"] and "../student.zip" in page["links"]
    assert "../notebooks/04_optim.ipynb" in page["links"]
    assert len(page["images"]) > 3 and page["title"]
    first = source_of(cells_of(prepared / "nbs/index.ipynb")[0])
    assert "aliases: [/index.html]" in first


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_page_opens_with_its_box_and_its_place(prepared, name):
    cells = cells_of(prepared / "nbs" / name)
    opening = "".join(source_of(c) for c in cells[:6])
    if name != "c_main.ipynb":                             # a page of one line
        assert ".callout-note" in opening, f"{name} has lost its opening box"
        assert "**You will be able to**" in opening
    number = number_of(Path(name))
    assert number is None or f"images/way_{number}.svg" in opening
    assert not any(o.get("name") == "stderr" for c in cells for o in c.get("outputs", []))


def test_every_source_is_a_list_of_lines(prepared):
    "Quarto 1.8 and later join the lines of a string, and of a list without line ends."
    for path in (prepared / "nbs").glob("*.ipynb"):
        for cell in cells_of(path):
            source = cell["source"]
            assert isinstance(source, list), f"{path.name}: {source[:80]!r}"
            assert all(line.endswith("\n") for line in source[:-1]), path.name
            assert not any("\n" in line[:-1] for line in source), path.name


@pytest.mark.parametrize("module", [name for name in modules() if name != "__main__"])
def test_the_body_of_every_exported_function_is_on_its_page(prepared, module):
    "Taken from the package, in which the export has put imports another way and nothing else."
    page = "\n".join(code_of(prepared / "nbs" / modules()[module].name))
    written = (ROOT / f"course_lib/{module}.py").read_text(encoding="utf-8")
    bodies = [d for d in ast.parse(written).body if isinstance(d, (ast.FunctionDef, ast.ClassDef))]
    assert bodies
    for body in bodies:
        for line in written.splitlines()[body.lineno - 1:body.end_lineno]:
            line = re.sub(r"^( *from )\.(?= )", r"\1course_lib", line)
            line = re.sub(r"^( *from )\.(?=\w)", r"\1course_lib.", line)
            assert line in page, f"{module}.{body.name}: {line}"


def test_exported_code_brings_no_headings_of_its_own(prepared):
    for path in pages():
        before = [source_of(c) for c in cells_of(path) if c["cell_type"] == "markdown"]
        after = [source_of(c) for c in cells_of(prepared / "nbs" / path.name)]
        assert not any("show_doc" in text for text in after)
        wanted = [line for text in before for line in text.splitlines() if line.startswith("##")]
        shown = [line for line in "\n".join(after).splitlines() if line in wanted]
        assert len(set(shown)) == len(set(wanted)), path.name


def test_links_to_headings_work_in_the_lab_and_on_the_site(prepared):
    "The lab keeps capitals and signs in the id of a heading; Pandoc doesn't."
    for root, link in ((ROOT, "01_data.ipynb#Split-it,-and-don't-leak"),
                       (prepared, "01_data.ipynb#split-it-and-dont-leak")):
        texts = [source_of(c) for c in cells_of(root / "nbs/glossary.ipynb")]
        assert any(f"({link})" in text for text in texts)


def test_solutions_and_wrong_answers_are_folded(prepared):
    code = code_of(prepared / "nbs/04_optim.ipynb")
    assert not any("BEGIN SOLUTION" in c for c in code)
    assert sum('code-summary: "A solution"' in c for c in code) == 3
    assert sum('code-summary: "Wrong answers' in c for c in code) == 3


def test_the_navigation_says_the_numbers_of_the_chapters(prepared):
    shown = yaml.safe_load((prepared / "_quarto.yml").read_text())["website"]["sidebar"]
    texts = {e["href"]: e["text"] for part in shown["contents"] for e in part.get("contents", [])
             if isinstance(e, dict)}
    for path in pages():
        number = number_of(path)
        if number: assert texts[f"nbs/{path.name}"].startswith(f"{number} · "), path.name


def test_the_address_of_the_repository_is_one_setting(prepared, monkeypatch):
    fork = {"git_url": "https://git.example/me/mine", "branch": "trunk",
            "doc_host": "https://me.example", "doc_baseurl": "/mine"}
    monkeypatch.setattr(build_site, "settings", lambda: fork)
    config = build_site.configured((ROOT / "_quarto.yml").read_text())
    told = yaml.safe_load(config)["website"]
    assert told["repo-url"] == fork["git_url"] and told["site-url"] == "https://me.example/mine"
    readme = build_site.document_page("README.md", "about.md")
    assert "git clone https://git.example/me/mine" in readme
    assert build_site.cloned_from_here("git clone https://a.example/b && cd b") \
        == "git clone https://git.example/me/mine && cd b"
    assert "](data/card.md)" in readme and "](nbs/05_training.ipynb)" in readme


def test_no_other_file_knows_an_address():
    "What a fork would have to look for."
    address = build_site.settings()["git_url"]
    files = [*ROOT.glob("*.md"), *ROOT.glob("*.yml"), *(ROOT / "scripts").glob("*.py"),
             *(ROOT / "nbs").glob("*.ipynb"), *(ROOT / "data").glob("*.md"),
             *(ROOT / "site").glob("*"), *(ROOT / ".github/workflows").glob("*")]
    for path in files:
        text = path.read_text(encoding="utf-8")
        if path in (ROOT / "README.md", ROOT / "nbs/index.ipynb"):
            assert re.findall(r"git clone (\S+)", text) == [address]     # who reads it has none yet
            text = text.replace(f"git clone {address}", "")
        assert address not in text, path


def test_formulas_and_letters_come_with_the_pages(prepared):
    html = yaml.safe_load((prepared / "_quarto.yml").read_text())["format"]["html"]
    assert html["html-math-method"] == "mathml"
    assert html["code-fold"] is False                    # else each cell is labelled "Code"
    assert "$web-font-path: false" in (prepared / "site/theme.scss").read_text()


def test_no_alt_text_is_a_caption(prepared):
    for path in (prepared / "nbs").glob("*.ipynb"):
        if number_of(path) is None: continue
        page = build_site.read_page(path)
        way = [alt for source, alt in page["images"] if "way_" in source]
        assert len(way) == 1 and way[0] and "![" not in page["prose"], path.name


# Planted faults

def change_cells(name, change):
    "A fault in the cells of a page; `change` gets their list."
    def plant(site):
        notebook = json.loads((site / name).read_text())
        change(notebook["cells"])
        (site / name).write_text(json.dumps(notebook))
    return plant


def append(name, text):
    def plant(site):
        if name.endswith(".md"):
            (site / name).write_text((site / name).read_text() + text)
            return
        cell = {"cell_type": "markdown", "id": "planted", "metadata": {}, "source": lines(text)}
        change_cells(name, lambda cells: cells.append(cell))(site)
    return plant


def replace(name, old, new):
    def plant(site):
        text = (site / name).read_text()
        assert old in text
        (site / name).write_text(text.replace(old, new, 1))
    return plant


def remove(name): return lambda site: (site / name).unlink()


def as_strings(kind):
    def change(cells):
        for cell in cells:
            if cell["cell_type"] == kind: cell["source"] = source_of(cell)
    return change


def without_line_ends(cells):
    for cell in cells: cell["source"] = [line.rstrip("\n") for line in cell["source"]]


def signature_alone(cells):
    "What nbdev leaves of an exported function."
    (cell,) = [c for c in cells if "def clip_grad_norm(" in source_of(c)]
    cell["source"] = ["def clip_grad_norm(parameters, max_norm: float) -> torch.Tensor: ..."]


def one_line_less(cells):
    (cell,) = [c for c in cells if "def clip_grad_norm(" in source_of(c)]
    del cell["source"][-1]


def add_output(kind, text):
    def change(cells):
        (cell,) = [c for c in cells if "def clip_grad_norm(" in source_of(c)]
        cell["outputs"].append({"output_type": "display_data", "metadata": {},
                                "data": {kind: [text]}})
    return change_cells(OPTIM, change)


def without_source(site):
    path = site / "api/optim.md"
    text = path.read_text()
    start = text.index("<details>", text.index("### clip_grad_norm"))
    path.write_text(text[:start] + text[text.index("</details>", start):])


OPTIM = "nbs/04_optim.ipynb"
RAW = "``````{=html}\n%s\n``````\n"


@pytest.mark.parametrize("plant, complaint", [
    (append(OPTIM, "See [this](99_nothing.ipynb)."),
     "link to 99_nothing.ipynb, which is not there"),
    (append("api/optim.md", "See [this](../nbs/99_nothing.ipynb)."),
     "link to ../nbs/99_nothing.ipynb"),
    (append(OPTIM, "See [this](05_training.ipynb#no-such-heading)."), "no such heading"),
    (append(OPTIM, '<a href="nowhere.html">here</a>'), "link to nowhere.html"),
    (append(OPTIM, "![A plot](images/nothing.png)"), "picture images/nothing.png is not there"),
    (append(OPTIM, "![](images/loss.png)"), "loss.png has no alt text"),
    (append(OPTIM, '<img src="images/loss.png">'), "loss.png has no alt text"),
    (append(OPTIM, "<svg><circle/></svg>"), "<svg> has no alt text"),
    (append(OPTIM, "\n\n![The loss.](images/loss.png)\n"),
     "the alt text of images/loss.png would stand under it"),
    (append(OPTIM, '<script src="https://cdn.example/x.js"></script>'), "loads from elsewhere"),
    (append(OPTIM, '<link rel="stylesheet" href="//fonts.example/css">'), "loads from elsewhere"),
    (append(OPTIM, "![A plot](https://pictures.example/a.png)"), "loads from elsewhere"),
    (append(OPTIM, "<style>p { background: url(https://x.example/a.png) }</style>"),
     "loads from elsewhere"),
    (append("about.md", '<img alt="a" src="http://pictures.example/a.png">'),
     "about.md: loads from elsewhere"),
    (add_output("text/markdown", RAW % '<script>require(["plot"], f)</script>'),
     "loads from elsewhere"),
    (add_output("text/markdown", RAW % '<script src="https://cdn.example/x.js"></script>'),
     "loads from elsewhere"),
    (add_output("text/html", "<table></table>"), "for which Quarto loads scripts from elsewhere"),
    (add_output("application/javascript", "1"), "for which Quarto loads scripts from elsewhere"),
    (add_output(build_site.WIDGET, "x"), "for which Quarto loads scripts from elsewhere"),
    (without_source, "api/optim.md: the code of clip_grad_norm is not shown"),
    (remove("nbs/images/panel_index.png"), "picture images/panel_index.png is not there"),
    (replace("_quarto.yml", "mathml", "mathjax"), "'mathml' was expected"),
    (replace("_quarto.yml", "[cosmo, site/theme.scss]", "[cosmo]"),
     "does not contain items matching the given schema"),
    (replace("_quarto.yml", "  favicon: site/favicon.svg\n", ""), "'favicon' is a required"),
    (remove("site/theme.scss"), "site/theme.scss is not there"),
    (remove("site/scroll.html"), "site/scroll.html is not there"),
    (remove("notebooks/04_optim.ipynb"), "link to ../notebooks/04_optim.ipynb"),
    (remove("nbs/images/way_4.svg"), "picture images/way_4.svg is not there"),
    (replace("_quarto.yml", f"          - href: {OPTIM}\n"
             '            text: "4 · Optimizers"\n', ""), f"{OPTIM}: no navigation leads to it"),
    (replace("_quarto.yml", "          - api/optim.md\n", ""),
     "api/optim.md: no navigation leads to it"),
    (replace("_quarto.yml", OPTIM, "nbs/04_optimum.ipynb"),
     "the navigation leads to nbs/04_optimum.ipynb, which is not there"),
    (replace("_quarto.yml", "    toc: true", "    tok: true"), "'tok' was unexpected"),
    (replace("_quarto.yml", "  search: true", "  serch: true"), "'serch' was unexpected"),
    (replace("_quarto.yml", "style: floating", "style: flying"), "'flying' is not one of"),
    (replace("api/optim.md", "title:", "titel:"), "has no title"),
    (remove("student.zip"), "resource student.zip is not there"),
    (remove("site/styles.css"), "site/styles.css is not there"),
    (change_cells(OPTIM, as_strings("code")), "is not a list of lines"),
    (change_cells(OPTIM, as_strings("markdown")), "is not a list of lines"),
    (change_cells(OPTIM, without_line_ends), "is not a list of lines"),
    (change_cells(OPTIM, signature_alone), f"{OPTIM}: the code of clip_grad_norm is not shown"),
    (change_cells(OPTIM, one_line_less), f"{OPTIM}: the code of clip_grad_norm is not shown"),
])
def test_a_planted_fault_is_found(prepared, tmp_path, plant, complaint):
    site = tmp_path / "site"
    shutil.copytree(prepared, site)
    plant(site)
    faults = build_site.check(site)
    assert any(complaint in f for f in faults), faults


@pytest.mark.parametrize("page, complaint", [
    ('<script src="https://cdn.example/require.js"></script>', "require.js"),
    ('<link rel="stylesheet" href="https://fonts.example/css">', "fonts.example"),
    ('<img src="//pictures.example/a.png">', "pictures.example"),
    ('<a href="https://example.org">a link is no load</a><script>1</script>', None)])
def test_what_a_rendered_page_loads_is_found(tmp_path, page, complaint):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "nbs/a.html").write_text(f"<!DOCTYPE html><html>{page}</html>")
    faults = build_site.rendered_faults(tmp_path)
    assert faults == [] if complaint is None else complaint in faults[0]


def test_what_a_style_loads_is_found(tmp_path):
    (tmp_path / "a.css").write_text('@import "https://fonts.example/css?family=Lato"; p { top: 0 }')
    (tmp_path / "b.css").write_text("p { background: url(data:image/svg+xml;utf8,http://w3.org) }")
    (fault,) = build_site.rendered_faults(tmp_path)
    assert "a.css: loads" in fault and "fonts.example" in fault


@pytest.mark.parametrize("heading, anchor", [
    ("A valley to walk in", "a-valley-to-walk-in"),
    ("4. `AdamW`, by hand!", "adamw-by-hand"),
    ("Exercise 4.2 · change it: Adam", "exercise-4.2-change-it-adam"),
    ("[A link](x.html) here", "a-link-here")])
def test_anchors_are_those_of_pandoc(heading, anchor):
    assert build_site.anchor_of(heading) == anchor
