"""Change every solution of the exercises a little, many times, and see whether its check notices.

    python scripts/mutate_exercises.py [nbs/X.ipynb …] [--only 4.5] [--rewrites]

A mutant is a solution with one thing changed: an operator, a constant, a name, an argument, a
statement. A check that accepts a mutant is either too weak, or the mutant does what the solution
does; the second kind stands with a reason in tests/mutants.csv. Of a notebook only the statements
are run that its exercises need, and each mutant is tried in a process of its own. With --rewrites
the other right answers in tests/rewrites are tried instead: a check has to accept all of them.
"""
import argparse
import ast
import contextlib
import copy
import csv
import difflib
import io
import json
import linecache
import os
import re
import select
import signal
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from course_lib.exercises import (BEGIN, END, defined, find_exercises, look, needed, source_of,
                                  statements_of)

SECONDS = 3             # for one mutant, or five times what the solution takes
ARGUED = ROOT / "tests/mutants.csv"
COMPARISONS = {ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
               ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
               ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
               ast.IsNot: (ast.Is,)}
OPERATORS = {ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div, ast.Add),
             ast.Div: (ast.Mult, ast.FloorDiv), ast.FloorDiv: (ast.Div,), ast.Mod: (ast.FloorDiv,),
             ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,)}
PAIRS = [("min", "max"), ("sum", "mean"), ("any", "all"), ("argmax", "argmin"), ("zeros", "ones"),
         ("floor", "ceil"), ("casefold", "lower"), ("log", "log2"), ("cumsum", "cumprod"),
         ("maximum", "minimum"), ("amax", "amin"), ("round", "int"), ("clamp_min", "clamp_max"),
         ("startswith", "endswith"), ("zeros_like", "ones_like"), ("upper", "lower")]
OTHERS = {a: b for pair in PAIRS for a, b in (pair, pair[::-1])}
# of another type, but the same value
SAME_VALUE = {"float", "int", "bool", "list", "tuple", "item", "tolist", "asarray"}


# What a notebook's exercises need

class Exercise:
    "A solution, its cell's code, and the properties that its check asks for."
    def __init__(self, number, source, answer, properties, space):
        self.number, self.source, self.answer = number, source, answer
        self.properties, self.space = properties, space

    def holds(self, code=None) -> bool:
        "Whether every property holds, of the solution or of other code in its place."
        if code is not None: exec(code, self.space)
        answer = eval(self.answer, self.space)
        return all(look(answer, prop)[0] for prop in self.properties)


def load(path: Path) -> list: # of Exercise
    "The exercises of a notebook, ready to be checked: what they need has been run."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    exercises, statements = find_exercises(notebook), statements_of(notebook)
    cells = {i for e in exercises for i in range(e["solution"], e["check"] + 1)}
    wanted = [k for k, (i, _) in enumerate(statements) if i in cells]
    run, calls = sorted(needed(statements, wanted)), {}
    space = {"__name__": "notebook"}

    def remember(number, answer, *properties, points=1): calls[number] = properties
    os.chdir(path.parent)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for k in run:
            cell, statement = statements[k]
            name, source = f"<{path.name}, cell {cell}>", source_of(notebook["cells"][cell])
            linecache.cache[name] = len(source), None, source.splitlines(True), name
            exec(compile(ast.Module([statement], []), name, "exec"), space)
            if "check" in defined(statement): space["check"] = remember
    return [Exercise(e["exercise"], source_of(notebook["cells"][e["solution"]]),
                     checked_name(source_of(notebook["cells"][e["check"]])),
                     calls[e["exercise"]], space) for e in exercises]


def checked_name(code: str) -> str:
    "What is handed to `check`, as code."
    return next(ast.unparse(n.args[1]) for n in ast.walk(ast.parse(code))
                if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "check")


def rewrites(path: Path, space: dict) -> dict: # exercise -> functions
    """Other right answers to the exercises of a notebook, from tests/rewrites. What the notebook
    defines takes the place of what they import, as in a notebook where somebody writes them."""
    file, names = ROOT / f"tests/rewrites/{path.stem}.py", {}
    if not file.exists(): return {}
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), names)
    own = {name: re.match(r"e(\d+)_(\d+)_", name) for name in names}
    names |= {name: space[name] for name in names if name in space and not own[name]}
    found = {}
    for name, number in own.items():
        if number: found.setdefault(".".join(number.groups()), []).append(names[name])
    return found


# Mutants

def mutants(source: str) -> list: # of trees, no two alike
    "The code of a solution's cell with one thing changed between its marks."
    lines = source.splitlines()
    begun = [i for i, line in enumerate(lines, 1) if line.strip().startswith(BEGIN)]
    ended = [i for i, line in enumerate(lines, 1) if line.strip().startswith(END)]
    inside = {i for a, b in zip(begun, ended) for i in range(a, b + 1)}
    tree = ast.parse(source)
    seen, found = {ast.unparse(tree)}, []
    for place, node in enumerate(ast.walk(tree)):
        if getattr(node, "lineno", None) not in inside: continue
        for change in changes(node, tree):
            mutant = copy.deepcopy(tree)
            try:
                replace(mutant, place, change)
                text = ast.unparse(ast.fix_missing_locations(mutant))
                ast.parse(text)
            except (SyntaxError, ValueError): continue
            if text not in seen: found.append(text)
            seen.add(text)
    return found


def replace(tree, place: int, change) -> None:
    "Put what `change` makes of a node into its place; a list of statements may take one's place."
    target = list(ast.walk(tree))[place]
    new = change(target)
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is target: setattr(parent, field, new)
            elif isinstance(value, list) and any(v is target for v in value):
                k = next(k for k, v in enumerate(value) if v is target)
                value[k:k + 1] = new if isinstance(new, list) else [new]
                if not value and field == "body": value.append(ast.Pass())


def setting(**fields):
    "A change that sets fields of a node."
    def change(node):
        for name, value in fields.items(): setattr(node, name, value)
        return node
    return change


def without(field: str, k: int):
    "A change that drops the k-th entry of a list."
    def change(node):
        getattr(node, field).pop(k)
        return node
    return change


def shifted(field: str, by: int):
    "A change that adds one to a part, or takes one away."
    def change(node):
        operator = ast.Add() if by > 0 else ast.Sub()
        setattr(node, field, ast.BinOp(getattr(node, field), operator, ast.Constant(1)))
        return node
    return change


def shifted_argument(k: int, by: int):
    def change(node):
        operator = ast.Add() if by > 0 else ast.Sub()
        node.args[k] = ast.BinOp(node.args[k], operator, ast.Constant(1))
        return node
    return change


def changes(node, tree) -> list: # of functions of a node
    "All that is done to one node."
    if isinstance(node, ast.stmt): return of_statement(node)
    kind = type(node).__name__
    special = {"Compare": of_compare, "BinOp": of_operator, "BoolOp": of_boolean,
               "UnaryOp": of_unary, "Constant": of_constant, "Slice": of_slice, "Call": of_call,
               "IfExp": of_choice}
    if kind in special: return special[kind](node)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load): return of_name(node, tree)
    if isinstance(node, ast.Attribute) and node.attr in OTHERS:
        return [setting(attr=OTHERS[node.attr])]
    return []


def of_statement(node) -> list:
    found = [lambda n: []]
    if isinstance(node, ast.With): found = [lambda n: n.body]
    if isinstance(node, (ast.If, ast.While)):
        found.append(setting(test=ast.UnaryOp(ast.Not(), node.test)))
    if isinstance(node, ast.If): found.append(lambda n: n.body)
    if isinstance(node, ast.For): found.append(lambda n: n.body)
    if isinstance(node, ast.AugAssign):
        found.append(lambda n: ast.Assign([n.target], n.value))
        found += [setting(op=op()) for op in OPERATORS.get(type(node.op), ())]
    if isinstance(node, ast.Continue): found.append(lambda n: ast.Break())
    if isinstance(node, ast.Break): found.append(lambda n: ast.Continue())
    return found


def of_compare(node) -> list:
    def other(k, op):
        def change(n):
            n.ops[k] = op()
            return n
        return change
    return [other(k, new) for k, op in enumerate(node.ops) for new in COMPARISONS[type(op)]]


def of_operator(node) -> list:
    found = [setting(op=op()) for op in OPERATORS.get(type(node.op), ())]
    return [*found, (lambda n: n.left), (lambda n: n.right)]


def of_boolean(node) -> list:
    other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    dropped = [without("values", k) for k in range(len(node.values))] if len(node.values) > 2 else [
        (lambda n: n.values[0]), (lambda n: n.values[1])]
    return [setting(op=other), *dropped]


def of_unary(node) -> list:
    "Without the sign; but the axis 1 of a matrix is its axis -1, and -2 and 0 are tried as well."
    one = isinstance(node.operand, ast.Constant) and node.operand.value == 1
    return [] if one else [lambda n: n.operand]


def of_constant(node) -> list:
    value = node.value
    if isinstance(value, bool): return [setting(value=not value)]
    if isinstance(value, (int, float)):
        return [setting(value=v) for v in {value + 1, value - 1, 2 * value} - {value}]
    if isinstance(value, str):
        letters = range(len(value)) if re.search(r"[\\\[\]|^]", value) else []   # a pattern
        shorter = [value[:k] + value[k + 1:] for k in letters]
        return [setting(value=v) for v in ("x" + value, "", *shorter)]
    if value is None: return [setting(value=1)]
    return []


def of_slice(node) -> list:
    there = [f for f in ("lower", "upper", "step") if getattr(node, f) is not None]
    moved = [shifted(f, by) for f in there for by in (1, -1) if f != "step"]
    return [*moved, *[setting(**{f: None}) for f in there]]


def of_call(node) -> list:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    found = [without("args", k) for k in range(len(node.args)) if len(node.args) > 1]
    found += [without("keywords", k) for k in range(len(node.keywords))]
    if name in OTHERS and isinstance(node.func, ast.Name):
        found.append(setting(func=ast.Name(OTHERS[name], ast.Load())))
    if name == "range":
        found += [shifted_argument(k, by) for k in range(len(node.args)) for by in (1, -1)]
    if name in SAME_VALUE: return found
    if isinstance(node.func, ast.Attribute): found.append(lambda n: n.func.value)
    if len(node.args) == 1: found.append(lambda n: n.args[0])
    if len(node.args) == 2:
        found.append(lambda n: ast.Call(n.func, n.args[::-1], n.keywords))
    return found


def of_choice(node) -> list:
    return [(lambda n: n.body), (lambda n: n.orelse),
            setting(test=ast.UnaryOp(ast.Not(), node.test))]


def of_name(node, tree) -> list:
    "Other names of the function; two, those that come next in the alphabet."
    function = next(f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)
                    and f.lineno <= node.lineno <= f.end_lineno)
    inside = list(ast.walk(function))
    names = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names |= {a.arg for a in inside if isinstance(a, ast.arg)}
    if node.id not in names: return []
    order = sorted(names)
    at = order.index(node.id)
    return [setting(id=other) for other in (order[at + 1:] + order[:at])[:2]]


# Trying them

def survives(exercise: Exercise, code: str, seconds: float) -> bool | None: # None: no time left
    "Whether an exercise's check accepts a mutant, tried in a process of its own."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0: try_it(exercise, code, writer)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], seconds)
    said = os.read(reader, 1) if ready else b""
    if not ready: os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    return said == b"1" if ready else None


def try_it(exercise: Exercise, code: str, writer: int) -> None:
    "In the child: check the mutant, say 1 if it is accepted, and end."
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    said = b"0"
    try: said = b"1" if exercise.holds(compile(code, "mutant", "exec")) else b"0"
    except BaseException: pass
    os.write(writer, said)
    os._exit(0)


def difference(source: str, mutant: str) -> tuple: # (lines that went, lines that came)
    before = ast.unparse(ast.parse(source)).splitlines()
    lines = [line for line in difflib.ndiff(before, mutant.splitlines()) if line[0] in "+-"]
    return tuple(" ⏎ ".join(line[2:].strip() for line in lines if line[0] == sign)
                 for sign in "-+")


def argued() -> dict: # (exercise, went, came) -> why it is no mistake
    if not ARGUED.exists(): return {}
    with ARGUED.open(encoding="utf-8", newline="") as file:
        return {(r["exercise"], r["solution"], r["mutant"]): r["why"] for r in csv.DictReader(file)}


def examine(exercise: Exercise) -> dict: # exercise, mutants, survivors, unexplained
    "Try all mutants of an exercise."
    started = time.time()
    if not exercise.holds(): raise SystemExit(f"{exercise.number}: its own solution fails")
    seconds = max(SECONDS, 5 * (time.time() - started))
    tried = mutants(exercise.source)
    alive = [difference(exercise.source, m) for m in tried if survives(exercise, m, seconds)]
    known = argued()
    return {"exercise": exercise.number, "mutants": len(tried), "survivors": alive,
            "unexplained": [d for d in alive if (exercise.number, *d) not in known]}


def report(exercise: Exercise) -> dict:
    "Try all mutants, and say how many live, and which of them nobody has argued for."
    result = examine(exercise)
    n, alive, unexplained = (result[k] for k in ("mutants", "survivors", "unexplained"))
    print(f"{exercise.number:>5}  {n:4d} mutants  {len(alive):3d} survive "
          f"({len(alive) / max(1, n):.1%})  {len(unexplained):3d} without a reason", flush=True)
    for went, came in unexplained: print(f"       - {went}\n       + {came}", flush=True)
    return result


def report_rewrites(exercise: Exercise, others: list) -> dict:
    "Try the other right answers, and say which of them are refused, and why."
    refused = [f"{other.__name__}: {said}" for other in others
               for holds, said in (look(other, prop) for prop in exercise.properties) if not holds]
    print(f"{exercise.number:>5}  {len(others)} other right answers, {len(refused)} refusals",
          *refused, sep="\n       ", flush=True)
    return {"exercise": exercise.number, "rewrites": len(others), "refused": refused}


def apart(function, *arguments) -> list:
    "What a function returns that is called in a process of its own."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try: os.write(writer, json.dumps(function(*arguments)).encode())
        except BaseException: traceback.print_exc()
        finally: os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file: said = file.read()
    os.waitpid(child, 0)
    if not said: raise SystemExit(f"{arguments[0].name}: its exercises could not be run")
    return json.loads(said)


def run(path: Path, only: str | None, rewritten: bool) -> list:
    exercises = [e for e in load(path) if only in (None, e.number)]
    if not rewritten: return [report(e) for e in exercises]
    others = rewrites(path, exercises[0].space) if exercises else {}
    return [report_rewrites(e, others.get(e.number, [])) for e in exercises]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--only", help="the number of one exercise")
    parser.add_argument("--rewrites", action="store_true",
                        help="try the other right answers of tests/rewrites instead of mutants")
    given = parser.parse_args()
    paths = [p.resolve() for p in given.notebooks] or with_exercises()
    results = [r for path in paths for r in apart(run, path, given.only, given.rewrites)]
    if given.rewrites: return int(any(r["refused"] or r["rewrites"] < 5 for r in results))
    total, alive, unexplained = (
        sum(n) for n in zip(*[(r["mutants"], len(r["survivors"]), len(r["unexplained"]))
                              for r in results]))
    print(f"{len(results)} exercises, {total} mutants, {alive} survive ({alive / total:.1%}), "
          f"{unexplained} without a reason")
    return int(unexplained > 0)


def with_exercises() -> list:
    return [p for p in sorted((ROOT / "nbs").glob("*.ipynb"))
            if find_exercises(json.loads(p.read_text(encoding="utf-8")))]


if __name__ == "__main__": sys.exit(main())
