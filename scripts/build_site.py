"""Build the docs site, or check what it would be built from: `python scripts/build_site.py [--check]`

The pages are the notebooks as they are stored (they are not run again), prepared by nbdev: a page for each chapter. Added here:
a page for each module, made from its docstrings, with links from chapter to module and back, and the notebooks for learners to
download. Everything is laid out in `_proc`, checked there, and rendered by Quarto (https://quarto.org) into `_docs`.
`--check` needs no Quarto: it finds dead links and anchors, missing pictures and alt texts, pages without title or that no
navigation leads to, and keys in `_quarto.yml` that Quarto doesn't know.
"""
import argparse, base64, importlib, json, re, shutil, subprocess, sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[1]

# As far as it is used here: https://quarto.org/docs/reference/projects/websites.html and .../formats/html.html
ENTRY = {"anyOf": [{"type": "string"},
                   {"type": "object", "properties": {k: {"type": "string"} for k in ("href", "text")}, "required": ["href"], "additionalProperties": False},
                   {"type": "object", "properties": {"section": {"type": "string"}, "contents": {"type": "array", "items": {"$ref": "#/$defs/entry"}}}, "required": ["section", "contents"], "additionalProperties": False}]}
SCHEMA = {"$defs": {"entry": ENTRY}, "type": "object", "additionalProperties": False, "required": ["project", "website", "format"], "properties": {
    "project": {"type": "object", "additionalProperties": False, "required": ["type"], "properties": {
        "type": {"enum": ["website", "book", "default", "manuscript"]}, "output-dir": {"type": "string"}, "render": {"type": "array", "items": {"type": "string"}}, "resources": {"type": "array", "items": {"type": "string"}}}},
    "website": {"type": "object", "additionalProperties": False, "required": ["title", "sidebar"], "properties": {
        "title": {"type": "string"}, "description": {"type": "string"}, "site-url": {"type": "string"}, "repo-url": {"type": "string"}, "repo-branch": {"type": "string"}, "page-navigation": {"type": "boolean"}, "search": {"type": "boolean"},
        "sidebar": {"type": "object", "additionalProperties": False, "properties": {"style": {"enum": ["docked", "floating"]}, "search": {"type": "boolean"}, "contents": {"type": "array", "items": {"$ref": "#/$defs/entry"}}}}}},
    "format": {"type": "object", "additionalProperties": False, "properties": {"html": {"type": "object", "additionalProperties": False, "properties": {
        "theme": {"type": "object", "properties": {"light": {"type": "string"}, "dark": {"type": "string"}}, "required": ["light", "dark"], "additionalProperties": False},
        "toc": {"type": "boolean"}, "code-fold": {"enum": [True, False, "show"]}, "css": {"type": "string"}, "highlight-style": {"enum": ["a11y", "arrow", "github"]}, "code-tools": {"type": "boolean"}, "code-copy": {"type": "boolean"}, "code-overflow": {"enum": ["scroll", "wrap"]}, "fig-cap-location": {"enum": ["top", "bottom", "margin"]}}}}},
    "metadata-files": {"type": "array", "items": {"type": "string"}}}}


def source_of(cell): return "".join(cell["source"])


def prepare(work: Path) -> None:
    "Lay out the pages: chapters, modules, notebooks for learners."
    shutil.copytree(ROOT / "nbs", work / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT / "course_lib", work / "course_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(ROOT / name, work)
    subprocess.run([sys.executable, "-c", "from nbdev.serve import proc_nbs; proc_nbs('.')"], cwd=work, check=True, capture_output=True)
    (work / "_proc/data").mkdir(exist_ok=True)
    shutil.copy(ROOT / "data/reviews.csv", work / "_proc/data")
    shutil.copy(ROOT / "styles.css", work / "_proc")
    from course_lib.exercises import build
    build("student", work / "student")
    shutil.make_archive(work / "_proc/student", "zip", work, "student")
    pages = {}
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        exported = re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8"))
        if exported and exported[1] not in ("__main__",): pages[path.stem] = exported[1]
    (work / "_proc/api").mkdir()
    for chapter, module in pages.items(): (work / f"_proc/api/{module}.md").write_text(module_page(module, chapter), encoding="utf-8")
    for path in sorted((work / "_proc/nbs").glob("*.ipynb")): finish_page(path, pages.get(path.stem))


def module_page(module: str, chapter: str) -> str:
    "What a module offers, from its docstrings."
    from nbdev.showdoc import show_doc
    found = importlib.import_module(f"course_lib.{module}")
    objects = [getattr(found, name) for name in found.__all__ if callable(getattr(found, name)) and getattr(found, name).__doc__]
    head = f"---\ntitle: \"course_lib.{module}\"\n---\n\n{found.__doc__}\n\nMade in [the chapter](../nbs/{chapter}.ipynb), which says why it is as it is.\n"
    return head + "".join("\n" + re.sub(r"^---\s*", "", show_doc(o)._repr_markdown_()) + "\n" for o in objects)


def finish_page(path: Path, module: str | None) -> None:
    "Pictures with their alt texts, a word in the place of widgets, links to the module and to the notebook for learners; the first page also answers at the root."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    pictures = path.parent / "images"
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code": cell["source"] = folded(source_of(cell))
        if "outputs" in cell: cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]       # progress bars that have come to their end
        for k, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "image/png" in data:                        # Quarto would lose the alt text that the notebook keeps in the metadata
                picture = pictures / f"{path.stem}-{i}-{k}.png"
                picture.write_bytes(base64.b64decode("".join(data["image/png"])))
                alt = escape(output.get("metadata", {}).get("image/png", {}).get("alt", ""), quote=True)
                cell["outputs"][k] = html_output(f'<p><img src="images/{picture.name}" alt="{alt}" style="max-width: 100%"></p>')
            elif "application/vnd.jupyter.widget-view+json" in data: cell["outputs"][k] = html_output("<p><em>Here a panel appears when the notebook is run.</em></p>")
    text = f"All pages as notebooks to work in, with stubs for the exercises: [student.zip](../student.zip) (this one is `{path.name}`)."       # Quarto takes a link to a notebook for a page
    if module: text = f"The code of this page as a module: [`course_lib.{module}`](../api/{module}.md). " + text
    notebook["cells"].append({"cell_type": "markdown", "id": "to-module", "metadata": {}, "source": text})
    if path.stem == "index": notebook["cells"][0]["source"] = source_of(notebook["cells"][0]).replace("output-file: index.html", "output-file: index.html\naliases: [/index.html]")
    path.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")


def folded(source: str) -> str:
    "Solutions and wrong answers closed, for a reader who wants to try first."
    from course_lib.exercises import shown
    title = "A solution" if re.search(r"(?m)^ *### BEGIN SOLUTION", source) else "Wrong answers that the check finds" if re.search(r"(?m)^reject\(", source) else None
    return f'#| code-fold: true\n#| code-summary: "{title}"\n{shown(source)}' if title else source


def html_output(text: str) -> dict: return {"output_type": "display_data", "metadata": {}, "data": {"text/html": [text]}}


class Pictures(HTMLParser):
    "Pictures, links and ids in raw HTML."
    def __init__(self, text):
        super().__init__(); self.images, self.links, self.ids = [], [], []
        self.feed(text)
    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag == "img": self.images.append((a.get("src", ""), a.get("alt") or ""))
        if tag == "svg" and not (a.get("aria-label") or a.get("aria-hidden")): self.images.append(("an <svg>", ""))
        if tag == "a" and a.get("href"): self.links.append(a["href"])
        if a.get("id"): self.ids.append(a["id"])


def anchor_of(heading: str) -> str:
    "The id that Pandoc gives a heading."
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*_]{1,2}(\S.*?)[`*_]{1,2}", r"\1", heading))
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", plain.lower()).strip())) or "section"


def read_page(path: Path) -> dict:
    "Title, links, pictures (source, alt) and anchors of a page."
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = [source_of(c) for c in cells if c["cell_type"] in ("markdown", "raw")]
        outputs = [o for c in cells if c["cell_type"] == "code" for o in c.get("outputs", [])]
    else: texts, outputs = [path.read_text(encoding="utf-8")], []
    text = "\n\n".join(texts)
    html = text + "".join("".join(o["data"]["text/html"]) for o in outputs if "text/html" in o.get("data", {}))
    text += "\n\n" + "\n\n".join("".join(o["data"]["text/markdown"]) for o in outputs if "text/markdown" in o.get("data", {}))
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^(```|~~~).*?^\1", "", text))
    seen = Pictures(re.sub(r"(?s)<script.*?</script>", "", html))
    images = seen.images + [(m[2], m[1]) for m in re.finditer(r"!\[([^\]]*)\]\(([^)\s]+)", prose)]
    images += [("a figure of a cell", o.get("metadata", {}).get("image/png", {}).get("alt", "")) for o in outputs if "image/png" in o.get("data", {})]
    links = seen.links + [m[1] for m in re.finditer(r"(?<!!)\[[^\]]*\]\(([^)\s]+)", prose)]
    headings = re.findall(r"(?m)^#{1,6} +(.+?)(?: *\{#([\w-]+)[^}]*\})? *$", prose)
    title = re.search(r"(?ms)\A---\n.*?^title: *(\S.*?)$", text)
    return {"title": title and title[1], "links": links, "images": images, "anchors": {anchor or anchor_of(h) for h, anchor in headings} | set(seen.ids)}


def entries(contents: list) -> list: # of hrefs
    "All pages that a navigation leads to."
    return [href for e in contents for href in ([e] if isinstance(e, str) else entries(e["contents"]) if "contents" in e else [e["href"]])]


def check(site: Path) -> list: # of faults, a line each
    "What is wrong with a prepared site."
    config = yaml.safe_load((site / "_quarto.yml").read_text(encoding="utf-8"))
    faults = [f"_quarto.yml: {'/'.join(map(str, e.absolute_path)) or 'top'}: {e.message[:200]}" for e in jsonschema.Draft202012Validator(SCHEMA).iter_errors(config)]
    if faults: return faults
    shown = entries(config["website"]["sidebar"]["contents"])
    pages = {str(p.relative_to(site)): read_page(p) for pattern in config["project"]["render"] for p in sorted(site.glob(pattern))}
    faults += [f"_quarto.yml: the navigation leads to {href}, which is not there" for href in shown if href not in pages]
    faults += [f"{name}: no navigation leads to it" for name in pages if name not in shown]
    faults += [f"_quarto.yml: {css} is not there" for css in [config["format"].get("html", {}).get("css")] if css and not (site / css).exists()]
    faults += [f"_quarto.yml: resource {pattern} is not there" for pattern in config["project"].get("resources", []) if not list(site.glob(pattern))]
    for name, page in pages.items():
        if not page["title"]: faults.append(f"{name}: has no title")
        for source, alt in page["images"]:
            if not alt.strip(): faults.append(f"{name}: {source[:80]} has no alt text")
            if not re.match(r"https?:|data:|a figure|an <svg", source) and not (site / name).parent.joinpath(unquote(source)).exists(): faults.append(f"{name}: picture {source} is not there")
        for link in page["links"]:
            target = urlsplit(link)
            if target.scheme or link.startswith("//"): continue
            other = (site / name).parent.joinpath(unquote(target.path)).resolve() if target.path else site.resolve() / name
            if not other.exists(): faults.append(f"{name}: link to {link}, which is not there"); continue
            inside = str(other.relative_to(site.resolve())) if other.is_relative_to(site.resolve()) else None
            if target.fragment and inside in pages and unquote(target.fragment) not in pages[inside]["anchors"]: faults.append(f"{name}: link to {link}: no such heading")
    return faults


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true"); p.add_argument("--work", type=Path, default=ROOT / "runs/site")
    args = p.parse_args()
    if not args.check and not shutil.which("quarto"): sys.exit("quarto is not installed: see https://quarto.org/docs/get-started – without it: python scripts/build_site.py --check")
    shutil.rmtree(args.work, ignore_errors=True); args.work.mkdir(parents=True)
    prepare(args.work)
    faults = check(args.work / "_proc")
    print("\n".join(faults) or "no fault found", flush=True)
    if faults: sys.exit(1)
    if args.check: return
    subprocess.run(["quarto", "render", "--no-execute"], cwd=args.work / "_proc", check=True)
    shutil.rmtree(ROOT / "_docs", ignore_errors=True)
    shutil.move(args.work / "_proc/_docs", ROOT / "_docs")
    print(f"the site is in {ROOT / '_docs'}; open index.html")


if __name__ == "__main__":
    main()
