"""How notebooks are run as tests, and what the tests share.

nbval compares what a cell prints with what the notebook has stored. Three things are added here:
cells run with their history (so that a trailing `;` means what it means in Jupyter), a cell that
is skipped is a failure, and in cells tagged `trained` numbers may differ a little, since they
depend on the processor; everything else is compared to the letter. One reason to skip a whole
notebook is accepted: it says in its opening box that it reads a model which isn't downloaded.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell

from course_lib.download import cache_folder, is_there

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from chapters import is_complaint  # noqa: E402

LIMIT = 20          # seconds; what is marked takes more than 4, so that slower machines have room
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def execute_cell_input(self, cell_input, allow_stdin=None):
    how = dict(store_history=True, allow_stdin=allow_stdin, stop_on_error=False)
    return self.kc.execute(cell_input, **how)


def roughly_equal(a: str, b: str) -> bool:
    "The same text around the numbers, and each number near the other."
    if shape(a) != shape(b): return False
    return all(near(x, y) for x, y in zip(numbers(a), numbers(b), strict=True))


def shape(text: str) -> str:
    "The text with a sign for each number; how far columns are indented doesn't count."
    return re.sub(r"[ \-]+", " ", NUMBER.sub("#", text))


def numbers(text: str) -> list[float]:
    return [float(x.replace(",", "")) for x in NUMBER.findall(text)]


def near(x: float, y: float) -> bool:
    "Within 10 % or 0.05 of each other; two counts within 12."
    counts = all(v == int(v) and abs(v) >= 10 for v in (x, y))
    return abs(x - y) <= max(0.1 * max(abs(x), abs(y)), 12 if counts else 0.05)


def compare_outputs(self, test, ref, skip_compare=None, strict=IPyNbCell.compare_outputs):
    test = [output for output in test if not is_complaint(output)]
    if "trained" in self.cell.metadata.get("tags", []):
        for here, there in zip(test, ref): take_over(self, here, there)
    return strict(self, test, ref, skip_compare)


def take_over(cell, here: dict, there: dict) -> None:
    "Where an output is near enough to the stored one, put the stored one in its place."
    if not ("text" in here and "text" in there):
        here, there = here.get("data", {}), there.get("data", {})
    for key in ("text", "text/plain", "text/html", "text/markdown"):
        if key not in here or key not in there: continue
        new, old = cell.sanitize(here[key]), cell.sanitize(there[key])
        if roughly_equal(new, old): here[key] = there[key]


RunningKernel.execute_cell_input = execute_cell_input
IPyNbCell.compare_outputs = compare_outputs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if isinstance(item, IPyNbCell) and report.skipped and not missing_models(item.path):
        report.outcome = "failed"
        report.longrepr = "a notebook cell was skipped; a skipped cell proves nothing"
    return report


@cache
def missing_models(path: Path) -> tuple:
    "The models that a notebook's opening box tells to download, and that aren't there."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    box = "".join(text for text in map(cell_text, cells[:3]) if "{.callout" in text)
    return tuple(name for name in re.findall(r"course download (\w+)", box) if not is_here(name))


def cell_text(cell: dict) -> str:
    "What stands in a cell, as one text."
    return "".join(cell["source"])


def is_here(name: str) -> bool:
    "Whether a model is downloaded."
    return is_there(cache_folder() / name)


def pytest_collection_modifyitems(items):
    """The main job and the site take long, and so does every test that looks at them.
    Notebooks whose model isn't downloaded are skipped, with the reason."""
    for item in items:
        missing = missing_models(item.path) if isinstance(item, IPyNbCell) else ()
        commands = ", ".join(f"course download {name}" for name in missing)
        if missing: item.add_marker(pytest.mark.skip(reason=f"first: {commands}"))
        used = set(getattr(item, "fixturenames", []))
        if used & {"first_run", "prepared"}: item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    "A test that takes long has to say so, or `make check` would grow unnoticed."
    before = processor_time()
    result = yield
    used = processor_time() - before
    said = isinstance(item, IPyNbCell) or item.get_closest_marker("slow")
    if said or used < LIMIT: return result
    pytest.fail(f"{used:.0f} s of processor time: mark it as slow, or let it do less")


def processor_time() -> float:
    "Seconds that this process and the ended ones that it started have kept processors busy."
    return sum(os.times()[:4])


def run_course(*arguments, cwd=None, input=None, text=True, anew=False):
    """Run the command line in a process of its own, and give the finished process.

    It is a fork of one that has read the libraries or, if `anew` (and where nothing can be forked),
    a new Python.
    """
    arguments = [str(a) for a in arguments]
    if anew or not hasattr(os, "fork"): return run_anew(arguments, cwd, input, text)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name) for name in ("stdin", "stdout", "stderr")}
        for path in files.values(): path.touch()
        files["stdin"].write_bytes(input.encode() if isinstance(input, str) else input or b"")
        paths = {name: str(path) for name, path in files.items()}
        cwd = str(cwd or os.getcwd())
        code = ask_server({"arguments": arguments, "cwd": cwd, "env": offline(), **paths})
        out = files["stdout"].read_bytes()
        error = files["stderr"].read_bytes()
    if text: out, error = as_text(out), as_text(error)
    return subprocess.CompletedProcess(arguments, code, out, error)


def run_anew(arguments, cwd, input, text):
    "A command in a new Python."
    return subprocess.run(
        [sys.executable, "-m", "course_lib", *arguments], cwd=cwd, env=offline(), input=input,
        capture_output=True, text=text, encoding="utf-8" if text else None,
    )


def offline() -> dict:
    "The environment, in which no hub is asked."
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


def as_text(stream: bytes) -> str:
    "What Python makes of a stream that it reads as text."
    return stream.decode().replace("\r\n", "\n").replace("\r", "\n")


@cache
def course_server():
    "The process that has read the libraries; it ends with this one, when its input is closed."
    return subprocess.Popen(
        [sys.executable, ROOT / "tests/course_server.py"], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**offline(), "PYTHONPATH": str(ROOT)},
    )


def ask_server(job: dict) -> int:
    "The exit code of a command that the server ran."
    server = course_server()
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, "the server of the command line has ended"
    return int(answer)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory):
    "The main job, run once for all tests that look at its folder."
    out = tmp_path_factory.mktemp("main") / "runs" / "first"
    done = run_course("run", "--out", out, anew=True)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="session")
def real_data():
    "The folder of real data sets, if the variable COURSE_REAL_DATA names one."
    folder = os.environ.get("COURSE_REAL_DATA")
    if not folder: pytest.skip("COURSE_REAL_DATA names no folder of real data")
    return Path(folder)
