"""Build the docs site, or check what it would be built from.

    python scripts/build_site.py [--check]

The pages are the notebooks as they are stored (they are not run again), prepared by nbdev: a page
for each chapter, exported code and all. Added here: a page for each module, made from its
docstrings and its code, with links from chapter to module and back; the README, the data card and
CONTRIBUTING as pages; the notebooks for learners to download. The address of the repository is
taken from `settings.ini`. Everything is laid out in `_proc`, checked there, and rendered by Quarto
(https://quarto.org) into `_docs`, which is checked too. `--check` needs no Quarto: it finds dead
links and anchors, missing pictures and alt texts, alt texts that would stand under their pictures,
pages without title or that no navigation leads to, sources whose lines Quarto would join, exported
code that no page shows, whatever a browser would fetch from elsewhere, and keys in `_quarto.yml`
that Quarto doesn't know.
"""
import argparse
import ast
import base64
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jsonschema
import yaml
from chapters import DIRECTIVE, ROOT, entries, exported, modules, number_of, source_of

PROCESS = "from nbdev.serve import proc_nbs; proc_nbs('.')"
WIDGET = "application/vnd.jupyter.widget-view+json"
PANEL = "<p><em>The panel as it looks where the notebook is run; here it doesn't move.</em></p>"
NO_PICTURE = "<p><em>Here a panel appears where the notebook is run.</em></p>"
# Where Quarto finds one of these in an output, it loads require.js and jquery from elsewhere.
SCRIPTED = {"text/html", "application/javascript", WIDGET}
DOCUMENTS = {"README.md": "about.md", "CONTRIBUTING.md": "contributing.md",
             "data/README.md": "data/card.md"}


# What Quarto knows, as far as it is used here, from its reference:
# https://quarto.org/docs/reference/projects/websites.html and .../formats/html.html

def record(required: tuple = (), **properties) -> dict:
    "The schema of a mapping with these keys and no others."
    properties = {key.replace("_", "-"): kind for key, kind in properties.items()}
    return {"type": "object", "additionalProperties": False, "required": list(required),
            "properties": properties}


def list_of(kind: dict) -> dict: return {"type": "array", "items": kind}


TEXT = {"type": "string"}
SWITCH = {"type": "boolean"}
OWN_LETTERS = list_of(TEXT) | {"contains": {"const": "site/theme.scss"}}
NAVIGATION = list_of({"$ref": "#/$defs/entry"})
ENTRY = {"anyOf": [TEXT, record(("href",), href=TEXT, text=TEXT),
                   record(("section",), section=TEXT, contents=NAVIGATION)]}
PROJECT = record(("type",), type={"enum": ["website", "book", "default", "manuscript"]},
                 output_dir=TEXT, render=list_of(TEXT), resources=list_of(TEXT))
SIDEBAR = record(style={"enum": ["docked", "floating"]}, search=SWITCH, contents=NAVIGATION)
WEBSITE = record(("title", "sidebar", "site-url", "repo-url", "favicon"), title=TEXT,
                 description=TEXT, site_url=TEXT, repo_url=TEXT, repo_branch=TEXT, favicon=TEXT,
                 page_navigation=SWITCH, search=SWITCH, sidebar=SIDEBAR)
HTML = record(("theme", "html-math-method"), css=TEXT, toc=SWITCH, include_after_body=TEXT,
              theme=record(("light", "dark"), light=OWN_LETTERS, dark=OWN_LETTERS),
              html_math_method={"const": "mathml"},      # the others load a script from elsewhere
              code_fold={"enum": [True, False, "show"]}, code_tools=SWITCH, code_copy=SWITCH,
              code_overflow={"enum": ["scroll", "wrap"]},
              highlight_style={"enum": ["a11y", "arrow", "github"]},
              fig_cap_location={"enum": ["top", "bottom", "margin"]})
SCHEMA = {"$defs": {"entry": ENTRY},
          **record(("project", "website", "format"), project=PROJECT, website=WEBSITE,
                   format=record(html=HTML), metadata_files=list_of(TEXT))}


# Lay out the pages

@cache
def settings() -> dict:
    "What `settings.ini` says, the address of the repository among it."
    config = ConfigParser()
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def prepare(work: Path) -> None:
    "Lay out the pages: chapters, modules, documents, notebooks for learners."
    copy_sources(work)
    subprocess.run([sys.executable, "-c", PROCESS], cwd=work, check=True, capture_output=True)
    site = work / "_proc"
    add_downloads(work)
    made_in = {module: path for module, path in modules().items() if module != "__main__"}
    (site / "api").mkdir()
    for module, chapter in made_in.items():
        page = module_page(module, chapter.name)
        (site / f"api/{module}.md").write_text(page, encoding="utf-8")
    for document, place in DOCUMENTS.items():
        (site / place).write_text(document_page(document, place), encoding="utf-8")
    module_in = {chapter.name: module for module, chapter in made_in.items()}
    for path in sorted((site / "nbs").glob("*.ipynb")):
        finish_page(path, module_in.get(path.name))


def copy_sources(work: Path) -> None:
    "The chapters, with exported cells as ordinary ones, and the navigation with all that is in it."
    unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "nbs", work / "nbs", ignore=unwanted)
    for path in (work / "nbs").glob("*.ipynb"): show_exported(path)
    shutil.copy(ROOT / "settings.ini", work)
    config = (ROOT / "_quarto.yml").read_text(encoding="utf-8")
    (work / "_quarto.yml").write_text(configured(config), encoding="utf-8")


def cloned_from_here(text: str) -> str:
    "The text with the address of the settings behind `git clone`."
    return re.sub(r"(git clone) https\S+", rf"\1 {settings()['git_url']}", text)


def show_exported(path: Path) -> None:
    """Take the directive from exported cells: nbdev would put a bare signature in their place.

    And a fork is cloned from its own address."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        shown = DIRECTIVE.sub("", source_of(cell)) if cell["cell_type"] == "code" \
            else cloned_from_here(source_of(cell))
        cell["source"] = lines(shown)
    path.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def configured(config: str) -> str:
    "The configuration with addresses, numbers of chapters, and a page for each module."
    told = settings()
    addresses = (f"  site-url: {told['doc_host']}{told['doc_baseurl']}\n"
                 f"  repo-url: {told['git_url']}\n  repo-branch: {told['branch']}\n")
    config = config.replace("website:\n", f"website:\n{addresses}", 1)
    config = re.sub(r"(?m)^( +)- (nbs/\d\S+\.ipynb)\n", numbered, config)
    added = [f"          - api/{name}.md\n" for name in modules() if name != "__main__"]
    filled, n = re.subn(r"(?m)^( +contents:) \[\].*\n", r"\1\n" + "".join(added), config)
    if n != 1: raise ValueError(f"_quarto.yml has {n} sections with the contents [], not one")
    return filled


def numbered(entry: re.Match) -> str:
    "An entry of the navigation that says the number of its chapter, as the prose does."
    indent, href = entry.groups()
    cells = json.loads((ROOT / href).read_text(encoding="utf-8"))["cells"]
    title = re.match(r"# ([^:,\n]+)", source_of(cells[0]))[1]
    text = json.dumps(f"{number_of(Path(href))} · {title}", ensure_ascii=False)
    return f"{indent}- href: {href}\n{indent}  text: {text}\n"


def add_downloads(work: Path) -> None:
    "The data, what the pages look like, and the notebooks for learners, each and all together."
    from course_lib.exercises import build
    site = work / "_proc"
    (site / "data").mkdir(exist_ok=True)
    shutil.copy(ROOT / "data/reviews.csv", site / "data")
    shutil.copytree(ROOT / "site", site / "site")
    shutil.move(site / "site/404.md", site)
    build("student", work / "student")
    shutil.make_archive(site / "student", "zip", work, "student")
    (site / "notebooks").mkdir()
    for path in (work / "student").glob("*.ipynb"): shutil.copy(path, site / "notebooks")


def document_page(document: str, place: str) -> str:
    "A document of the repository as a page: links to what the site lacks lead to the repository."
    text = cloned_from_here((ROOT / document).read_text(encoding="utf-8"))
    title, text = re.match(r"# (.+)\n(?s:(.*))", text).groups()
    address = settings()["git_url"]

    def moved(link: re.Match) -> str:
        target = urlsplit(link[1])
        if target.scheme or not target.path: return link[0]
        here = os.path.normpath(Path(document).parent / target.path)
        after = DOCUMENTS.get(here, here)
        if after == here and not here.startswith("nbs/"):
            return f"]({address}/blob/{settings()['branch']}/{here})"
        return f"]({os.path.relpath(after, Path(place).parent)}{link[1][len(target.path):]})"

    text = re.sub(r"\]\(([^)\s]+)\)", moved, text)
    return f"---\ntitle: {json.dumps(title)}\n---\n{without_captions(text)}"


def module_page(module: str, chapter: str) -> str:
    "What a module offers: signatures, docstrings, methods, and the code, folded."
    found = importlib.import_module(f"course_lib.{module}")
    members = [getattr(found, name) for name in found.__all__]
    parts = [member_text(m) for m in members if m.__doc__ and hasattr(m, "__name__")]
    return (f"---\ntitle: \"course_lib.{module}\"\n---\n\n{found.__doc__}\n\n"
            f"Made in [the chapter](../nbs/{chapter}), which says why it is as it is.\n\n"
            + "\n\n".join(parts) + "\n")


def member_text(member) -> str:
    "A function or class: what it takes and does, its methods if it has some, its code."
    parts = [f"### {member.__name__}", documented(member)]
    for name, method in vars(member).items() if inspect.isclass(member) else ():
        if inspect.isfunction(method) and method.__doc__ and not name.startswith("_"):
            parts += [f"#### {member.__name__}.{name}", documented(method)]
    try: code = inspect.getsource(member).rstrip()
    except (OSError, TypeError): return "\n\n".join(parts)      # not written in a cell
    fold = f"<details>\n<summary>Code</summary>\n\n{FENCE}python\n{code}\n{FENCE}\n\n</details>"
    return "\n\n".join([*parts, fold])


FENCE = "`" * 6


def documented(member) -> str:
    "Signature and docstring, without a heading."
    from nbdev.showdoc import show_doc
    return re.sub(r"^---\s*#+ .*\s*", "", show_doc(member)._repr_markdown_()).strip()


def finish_page(path: Path, module: str | None) -> None:
    """Pictures with their alt texts, panels as pictures, links to the module and to the notebook
    for learners; the first page also answers at the root."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for i, cell in enumerate(notebook["cells"]):
        text = source_of(cell)
        if cell["cell_type"] == "code":
            text = folded(text)
            outputs = [o for o in cell["outputs"] if o.get("name") != "stderr"]  # progress bars
            cell["outputs"] = [finish_output(o, path, f"{i}-{k}") for k, o in enumerate(outputs)]
        if cell["cell_type"] == "markdown": text = with_anchors(without_captions(text))
        if path.stem == "index" and i == 0:
            text = text.replace("output-file: index.html",
                                "output-file: index.html\naliases: [/index.html]")
        cell["source"] = lines(text)
    notebook["cells"].append({"cell_type": "markdown", "id": "to-module", "metadata": {},
                              "source": lines(closing(path.name, module))})
    path.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def lines(text: str) -> list:
    "A text as a list of lines: Quarto joins the lines of a cell whose source is a string."
    return re.findall(r".*\n|.+", text)


def without_captions(text: str) -> str:
    "Pictures that are paragraphs of their own as HTML: Quarto would print the alt text under them."
    def plain(found: re.Match) -> str:
        return f'<p>{picture_tag(found[2], found[1])}</p>'
    return re.sub(r"(?m)^!\[([^\]]*)\]\(([^)\s]+)\)$", plain, text)


def with_anchors(text: str) -> str:
    "Links to a heading of a page by Pandoc's id; a notebook has them as JupyterLab wants them."
    def link(found: re.Match) -> str: return f"]({found[1]}#{anchor_of(unquote(found[2]))})"
    return re.sub(r"\]\((\w*\.ipynb)#([^)\s]+)\)", link, text)


def picture_tag(source: str, alt: str) -> str:
    return f'<img src="{source}" alt="{escape(alt, quote=True)}" style="max-width: 100%">'


def closing(name: str, module: str | None) -> str:
    "The last words of a page."
    text = (f'[This page as a notebook](../notebooks/{name}){{download="{name}"}}, with stubs for '
            "the exercises; [all pages](../student.zip), with their pictures.")
    if not module: return text
    return f"The code of this page as a module: [`course_lib.{module}`](../api/{module}.md). {text}"


def folded(source: str) -> str:
    "Solutions and wrong answers closed, for a reader who wants to try first."
    from course_lib.exercises import shown
    if re.search(r"(?m)^ *### BEGIN SOLUTION", source): title = "A solution"
    elif re.search(r"(?m)^reject\(", source): title = "Wrong answers that the check finds"
    else: return source
    return f'#| code-fold: true\n#| code-summary: "{title}"\n{shown(source)}'


def finish_output(output: dict, path: Path, number: str) -> dict:
    """A picture as a file: Quarto would lose the alt text that the notebook keeps in the metadata.
    HTML as Markdown: see `SCRIPTED`."""
    data = output.get("data", {})
    if "image/png" in data:
        picture = path.parent / "images" / f"{path.stem}-{number}.png"
        picture.write_bytes(base64.b64decode("".join(data["image/png"])))
        return html_output(f"<p>{picture_tag(f'images/{picture.name}', alt_of(output))}</p>")
    if WIDGET in data:
        picture = path.parent / f"images/panel_{path.stem}.png"  # made by panel_pictures.py
        if not picture.exists(): return html_output(NO_PICTURE)
        shown = picture_tag(f"images/{picture.name}", alt_in(picture))
        return html_output(f"<p>{shown}</p>{PANEL}")
    if "text/html" in data: return html_output("".join(data["text/html"]))
    return output


def alt_of(output: dict) -> str: return output["metadata"].get("image/png", {}).get("alt", "")


def alt_in(picture: Path) -> str:
    "The alt text that a PNG carries; empty if there is none."
    from PIL import Image
    return Image.open(picture).text.get("Description", "")


def html_output(text: str) -> dict:
    "HTML as Quarto takes it over, without the scripts that it adds to an output of HTML."
    raw = f"{FENCE}{{=html}}\n{text}\n{FENCE}\n"
    return {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": lines(raw)}}


# Check them

class Pictures(HTMLParser):
    "Pictures, links and ids in raw HTML."
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "img": self.images.append((a.get("src", ""), a.get("alt") or ""))
        if tag == "svg" and not (a.get("aria-label") or a.get("aria-hidden")):
            self.images.append(("an <svg>", ""))
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        if a.get("id"): self.ids.append(a["id"])


def anchor_of(heading: str) -> str:
    "The id that Pandoc gives a heading."
    plain = re.sub(r"[`*_]{1,2}(\S.*?)[`*_]{1,2}", r"\1", heading)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    kept = re.sub(r"[^\w\s.-]", "", plain.lower()).strip()
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", kept)) or "section"


def read_page(path: Path) -> dict:
    "Title, links, pictures (source, alt), anchors and cells of a page."
    cells = []
    texts = [path.read_text(encoding="utf-8")]
    if path.suffix == ".ipynb":
        cells = json.loads(texts[0])["cells"]
        texts = [source_of(c) for c in cells if c["cell_type"] in ("markdown", "raw")]
    outputs = [o for c in cells if c["cell_type"] == "code" for o in c.get("outputs", [])]
    text = "\n\n".join([*texts, *shown_as(outputs, "text/markdown")])
    prose = re.sub(r"`[^`\n]*`", "", re.sub(FENCED, "", text))
    raw = [found[3] for found in re.finditer(FENCED, text) if found[2] == "{=html}"]
    html = "\n".join([prose, *raw, *shown_as(outputs, "text/html")])
    seen = Pictures(re.sub(r"(?s)<script.*?</script>", "", html))
    images = seen.images + [(m[2], m[1]) for m in re.finditer(r"!\[([^\]]*)\]\(([^)\s]+)", prose)]
    figures = [o for o in outputs if "image/png" in o.get("data", {})]
    images += [("a figure of a cell", alt_of(o)) for o in figures]
    links = seen.links + re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s]+)", prose)
    headings = re.findall(r"(?m)^#{1,6} +(.+?)(?: *\{#([\w-]+)[^}]*\})? *$", prose)
    anchors = {anchor or anchor_of(h) for h, anchor in headings} | set(seen.ids)
    title = re.search(r"(?ms)\A---\n.*?^title: *(\S.*?)$", text)
    return {"title": title and title[1], "links": links, "images": images, "anchors": anchors,
            "cells": cells, "text": text, "prose": prose, "html": html}


FENCED = r"(?ms)^(`{3,}|~{3,})(\S*)\n(.*?)^\1$"


def shown_as(outputs: list, kind: str) -> list: # of texts
    "What cells show in one format."
    return ["".join(o["data"][kind]) for o in outputs if kind in o.get("data", {})]


def check(site: Path) -> list: # of faults, a line each
    "What is wrong with a prepared site."
    config = yaml.safe_load((site / "_quarto.yml").read_text(encoding="utf-8"))
    errors = list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(config))
    if errors:
        places = ["/".join(map(str, e.absolute_path)) or "top" for e in errors]
        return [f"_quarto.yml: {place}: {e.message[:200]}" for place, e in zip(places, errors)]
    paths = [p for pattern in config["project"]["render"] for p in sorted(site.glob(pattern))]
    pages = {p.relative_to(site).as_posix(): read_page(p) for p in paths}
    faults = navigation_faults(site, config, pages)
    for name, page in pages.items():
        if not page["title"]: faults.append(f"{name}: has no title")
        faults += [f"{name}: {fault}" for fault in picture_faults(site / name, page)]
        faults += [f"{name}: {fault}" for fault in link_faults(site, name, pages)]
        faults += [f"{name}: {fault}" for fault in source_faults(page["cells"])]
        faults += [f"{name}: {fault}" for fault in foreign_faults(page)]
        if name.endswith(".ipynb"):
            faults += [f"{name}: {fault}" for fault in export_faults(ROOT / name, page["cells"])]
        if name.startswith("api/"):
            faults += [f"{name}: {fault}" for fault in module_faults(Path(name).stem, page["text"])]
    return faults


def navigation_faults(site: Path, config: dict, pages: dict) -> list:
    "Pages that the navigation misses or invents, files that the configuration names in vain."
    shown = entries(config["website"]["sidebar"]["contents"])
    faults = [f"the navigation leads to {h}, which is not there" for h in shown if h not in pages]
    html = config["format"]["html"]
    named = {config["website"]["favicon"], html.get("css"), html.get("include-after-body")}
    named |= {name for names in html["theme"].values() for name in names if name.endswith(".scss")}
    faults += [f"{name} is not there" for name in sorted(named - {None})
               if not (site / name).exists()]
    for pattern in config["project"].get("resources", []):
        if not list(site.glob(pattern)): faults.append(f"resource {pattern} is not there")
    return ([f"_quarto.yml: {fault}" for fault in faults]
            + [f"{name}: no navigation leads to it" for name in pages
               if name not in shown and name != "404.md"])


def picture_faults(path: Path, page: dict) -> list:
    "Pictures without alt text or with a caption, and those that are not there."
    faults = [f"the alt text of {source} would stand under it" for source in
              re.findall(r"(?m)^!\[[^\]]+\]\(([^)\s]+)\)$", page["prose"])]
    for source, alt in page["images"]:
        if not alt.strip(): faults.append(f"{source[:80]} has no alt text")
        elsewhere = re.match(r"(https?:)?//|data:|a figure|an <svg", source)
        if not elsewhere and not path.parent.joinpath(unquote(source)).exists():
            faults.append(f"picture {source} is not there")
    return faults


# What makes a browser fetch something from elsewhere; a link that a reader follows does not.
FOREIGN = re.compile(r"""(?x)
    \b(?: src | srcset | poster | data) \s* = \s* ["']? (?:https?:)? // [^\s"'>]+
    | <link \b [^>]* \b href \s* = \s* ["']? (?:https?:)? // [^\s"'>]+
    | @import [^;\n]* // [^;\n]+
    | \b url \( \s* ["']? (?:https?:)? // [^)\s]+
    | \b (?: import | fetch | importScripts ) \s* \(? \s* ["'] (?:https?:)? // [^"']+
    | !\[ [^\]]* \] \( (?:https?:)? // [^)\s]+
    | \b require (?: js )? (?: \.config | \.undef )? \s* \( \s* [\[{"']""")


def foreign_faults(page: dict) -> list:
    "What a page, or Quarto for it, would load from elsewhere."
    faults = [f"loads from elsewhere: {found[0][:80]}" for found in FOREIGN.finditer(page["html"])]
    for i, cell in enumerate(page["cells"]):
        for output in cell.get("outputs", []):
            kinds = SCRIPTED & set(output.get("data", {}))
            faults += [f"cell {i} shows {kind}, for which Quarto loads scripts from elsewhere"
                       for kind in sorted(kinds)]
    return faults


def link_faults(site: Path, name: str, pages: dict) -> list:
    "Links to pages or headings that are not there."
    faults = []
    top = site.resolve()
    for link in pages[name]["links"]:
        target = urlsplit(link)
        if target.scheme or link.startswith("//"): continue
        other = top / name
        if target.path: other = (other.parent / unquote(target.path)).resolve()
        if not other.exists():
            faults.append(f"link to {link}, which is not there")
            continue
        inside = other.relative_to(top).as_posix() if other.is_relative_to(top) else None
        if not target.fragment or inside not in pages: continue
        if unquote(target.fragment) not in pages[inside]["anchors"]:
            faults.append(f"link to {link}: no such heading")
    return faults


def source_faults(cells: list) -> list:
    "Cells whose lines Quarto would join."
    joined = [i for i, c in enumerate(cells) if c["source"] != lines(source_of(c))]
    return [f"the source of cell {i} is not a list of lines" for i in joined]


def export_faults(original: Path, cells: list) -> list:
    "Exported definitions that the page doesn't show whole."
    if not original.exists(): return []
    page = "\n".join(source_of(c) for c in cells if c["cell_type"] == "code")
    definitions = [d for code in exported(original) for d in definitions_of(code)]
    return [f"the code of {name} is not shown" for name, code in definitions if code not in page]


def module_faults(module: str, text: str) -> list:
    "Public functions and classes of a module that its page doesn't show, or not whole."
    code = (ROOT / f"course_lib/{module}.py").read_text(encoding="utf-8")
    public = set(importlib.import_module(f"course_lib.{module}").__all__)
    found = [(name, body) for name, body in definitions_of(code) if name in public]
    return [f"the code of {name} is not shown" for name, body in found
            if f"\n### {name}\n" in text and body not in text]


def definitions_of(code: str) -> list: # of (name, code)
    "The functions and classes of a cell, decorators and all."
    found = []
    for node in ast.parse(code).body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        found.append((node.name, "\n".join(code.split("\n")[first - 1:node.end_lineno])))
    return found


# What Quarto made of them

class Fetched(HTMLParser):
    "What a browser fetches for a page before the reader does anything."
    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        kinds = set((a.get("rel") or "").split())
        if tag == "link" and kinds & {"stylesheet", "preload", "modulepreload", "icon"}:
            self.addresses.append(a.get("href") or "")
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.addresses.append(a.get("src") or "")


def rendered_faults(site: Path) -> list:
    "What the rendered pages and their styles load from elsewhere."
    faults = []
    for path in sorted(site.rglob("*.html")):
        found = Fetched(path.read_text(encoding="utf-8")).addresses
        foreign = [a for a in found if re.match(r"(https?:)?//", a)]
        faults += [f"{path.relative_to(site)}: loads {address}" for address in foreign]
    for path in sorted(site.rglob("*.css")):
        found = re.findall(r"(?:@import|url\()[^;)]*?//[^;)]+", path.read_text(encoding="utf-8"))
        faults += [f"{path.relative_to(site)}: loads {f}" for f in found if "data:" not in f]
    return faults


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true")
    p.add_argument("--work", type=Path, default=ROOT / "runs/site")
    args = p.parse_args()
    if not args.check and not shutil.which("quarto"):
        sys.exit("quarto is not installed: see https://quarto.org/docs/get-started – "
                 "without it: python scripts/build_site.py --check")
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    prepare(args.work)
    faults = check(args.work / "_proc")
    print("\n".join(faults) or "no fault found", flush=True)
    if faults: sys.exit(1)
    if args.check: return
    subprocess.run(["quarto", "render", "--no-execute"], cwd=args.work / "_proc", check=True)
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    shutil.move(args.work / "_proc/_docs", ROOT / "_docs")
    faults = rendered_faults(ROOT / "_docs")
    if faults: sys.exit("\n".join(faults))
    print(f"the site is in {ROOT / '_docs'}; open index.html")


if __name__ == "__main__":
    main()
