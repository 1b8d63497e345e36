"What ruff has no rule for, in notebooks, tests and scripts; `ruff check` has the rest."
import ast
import json
from pathlib import Path

import pytest
from conftest import ROOT

NOTEBOOKS = [*sorted((ROOT / "nbs").glob("*.ipynb")), ROOT / "scripts/template.ipynb"]
SCRIPTS = sorted([*(ROOT / "tests").glob("*.py"), *(ROOT / "scripts").glob("*.py")])


def code_of(path: Path) -> list[str]:
    "The code cells of a notebook without IPython's own lines, or the one text of a script."
    if path.suffix == ".py": return [path.read_text(encoding="utf-8")]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return [plain(s) for s in sources if not s.lstrip().startswith("%%")]


def plain(source: str) -> str:
    "The cell as Python reads it: a line for the shell or a magic is no statement."
    lines = source.splitlines()
    return "\n".join("pass" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def complaints(code: str) -> list[str]:
    "Lines that put two thoughts into one."
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Lambda) and isinstance(node.body, ast.Lambda):
            found.append(f"a lambda that makes a lambda: {ast.unparse(node)}")
        if isinstance(node, ast.Assign) and unrelated(node) and much(code, node):
            found.append(f"two lines in one: {ast.unparse(node)}")
    return found


def unrelated(node: ast.Assign) -> bool:
    "Whether a tuple is assigned whose values are made by different things."
    sides = (node.targets[0], node.value)
    if not all(isinstance(side, ast.Tuple) for side in sides): return False
    makers = [maker(v) for v in node.value.elts if isinstance(v, ast.Call)]
    return len(set(makers)) > 1


def maker(node: ast.expr) -> str:
    "What a call begins with: `counts` in `counts.sum(0).max()`, `load` in `load(name)`."
    while isinstance(node, (ast.Call, ast.Attribute, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return ast.unparse(node)


def much(code: str, node: ast.Assign) -> bool:
    "More than a short line with two things, which reads well."
    return len(node.value.elts) > 2 or len(ast.get_source_segment(code, node)) > 80


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SCRIPTS], ids=lambda p: p.name)
def test_one_thought_a_line(path):
    found = [complaint for code in code_of(path) for complaint in complaints(code)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("code, wrong", [
    ("a, b, c = f(x), g(y), 0", True),
    (f"a, b = f({'x' * 40}), g({'y' * 40})", True),
    ("a, b = f(x), g(y)", False),
    ("a, b, c = f(x), f(y), f(z)", False),
    ("a, b = b, a", False),
    ("a, b = f(x)", False),
    ("a, b, c = x.sum(0).max(), x[1].mean(), 0", False),
    ("a, b, c = 0, [], g(y)", False),
    ("f = map(lambda x: lambda y: x + y, z)", True),
    ("f = map(lambda x: [lambda y: x], z)", False),
])
def test_the_check_sees_what_it_should(code, wrong):
    assert bool(complaints(code)) == wrong


def test_there_is_something_to_check():
    assert len(NOTEBOOKS) > 20 and len(SCRIPTS) > 20
