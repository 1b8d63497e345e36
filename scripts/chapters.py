"""What the course consists of, read where it is said, so that no list of it is typed elsewhere.

The order of the pages stands in the navigation of `_quarto.yml`, the module that a page exports
in its `#| default_exp`, and what belongs to the module under its `#| export`.
"""
import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DIRECTIVE = re.compile(r"(?m)^#\|\s*export\s*\n")
# said once by bitsandbytes, which other libraries load where it is installed
COMPLAINT = re.compile(r"Failed to load CPU gemm_4bit_forward[^\n]*\n?")


def is_complaint(output: dict) -> bool:
    "Whether an output is only that line on standard error."
    text = "".join(output.get("text", ""))
    return output.get("name") == "stderr" and bool(COMPLAINT.fullmatch(text))


def source_of(cell: dict) -> str:
    "The text of a cell, which a file may keep as a list of lines."
    return "".join(cell["source"])


def code_cells(path: Path) -> list: # of texts
    "The code of a notebook, cell by cell."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [source_of(c) for c in cells if c["cell_type"] == "code"]


def entries(contents: list) -> list: # of hrefs
    "All pages that a navigation leads to, in its order."
    found = []
    for entry in contents:
        if isinstance(entry, str): found.append(entry)
        elif "contents" in entry: found += entries(entry["contents"])
        else: found.append(entry["href"])
    return found


def parts(root: Path = ROOT) -> dict: # title -> notebooks
    "The notebooks of each section of the navigation, in its order; the first page stands alone."
    config = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
    found = {}
    for entry in config["website"]["sidebar"]["contents"]:
        hrefs = [href for href in entries([entry]) if href.endswith(".ipynb")]
        if hrefs: found[entry.get("section", "")] = [root / href for href in hrefs]
    return found


def pages(root: Path = ROOT) -> list: # of paths
    "The notebooks in the order of the navigation."
    return [path for paths in parts(root).values() for path in paths]


def module_of(path: Path) -> str | None:
    "The module that a notebook exports, if it does."
    for code in code_cells(path):
        if found := re.search(r"(?m)^#\|\s*default_exp\s+(\S+)", code): return found[1]
    return None


def modules(root: Path = ROOT) -> dict: # module -> notebook
    "The modules of the package and the pages that they are made in, in the order of the pages."
    found = {module_of(path): path for path in pages(root)}
    return {module: path for module, path in found.items() if module}


def exported(path: Path) -> list: # of texts
    "The code of a notebook that goes into its module, cell by cell, without the directive."
    return [DIRECTIVE.sub("", code) for code in code_cells(path) if DIRECTIVE.search(code)]


def number_of(path: Path) -> str | None:
    "The number of the chapter that a page belongs to: 4 for 04_optim; None for the others."
    found = re.match(r"0*(\d+)_", path.name)
    return found and found[1]
