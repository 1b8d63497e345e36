"""How notebooks are run as tests, and what the tests share.

nbval compares what a cell prints with what the notebook has stored. Three things are added here:
cells run with their history (so that a trailing `;` means what it means in Jupyter), a cell that
is skipped is a failure, and in cells tagged `trained` numbers may differ a little, since they
depend on the processor; everything else is compared to the letter.
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

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def execute_cell_input(self, cell_input, allow_stdin=None):
    return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)


def roughly_equal(a: str, b: str) -> bool:
    "The same text around the numbers, each number within 10 % or 0.05 of the other (two counts within 12)."
    numbers = [[float(x.replace(",", "")) for x in NUMBER.findall(text)] for text in (a, b)]
    shape = [re.sub(r"[ \-]+", " ", NUMBER.sub("#", text)) for text in (a, b)]
    whole = [all(x == int(x) and abs(x) >= 10 for x in pair) for pair in zip(*numbers)]
    near = [abs(x - y) <= max(0.1 * max(abs(x), abs(y)), 12 if w else 0.05) for x, y, w in zip(*numbers, whole)]
    return shape[0] == shape[1] and all(near)


def compare_outputs(self, test, ref, skip_compare=None, strict=IPyNbCell.compare_outputs):
    if "trained" in self.cell.metadata.get("tags", []):
        for here, there in zip(test, ref):
            for out, other in ((here, there),) if "text" in here and "text" in there else ((here.get("data", {}), there.get("data", {})),):
                for key in ("text", "text/plain", "text/html", "text/markdown"):
                    if key in out and key in other and roughly_equal(self.sanitize(out[key]), self.sanitize(other[key])): out[key] = other[key]
    return strict(self, test, ref, skip_compare)


RunningKernel.execute_cell_input = execute_cell_input
IPyNbCell.compare_outputs = compare_outputs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if isinstance(item, IPyNbCell) and report.skipped:
        report.outcome, report.longrepr = "failed", "a notebook cell was skipped; a skipped cell proves nothing"
    return report


def run_course(*arguments, cwd=None, input=None, text=True, anew=not hasattr(os, "fork")):
    "Run the command line in a process of its own: a fork of one that has read the libraries or, if `anew`, a new Python. The finished process."
    environment, arguments = {**os.environ, "HF_HUB_OFFLINE": "1"}, [str(a) for a in arguments]
    if anew: return subprocess.run([sys.executable, "-m", "course_lib", *arguments], capture_output=True, cwd=cwd, env=environment, input=input, text=text, encoding="utf-8" if text else None)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: os.path.join(folder, name) for name in ("stdin", "stdout", "stderr")}
        raw = input.encode() if isinstance(input, str) else input or b""
        for name, path in files.items(): Path(path).write_bytes(raw if name == "stdin" else b"")
        code = ask_server({"arguments": arguments, "cwd": str(cwd or os.getcwd()), "env": environment, **files})
        out, error = (Path(files[name]).read_bytes() for name in ("stdout", "stderr"))
    if text: out, error = (stream.decode().replace("\r\n", "\n").replace("\r", "\n") for stream in (out, error))
    return subprocess.CompletedProcess(arguments, code, out, error)


@cache
def course_server():
    "The process that has read the libraries; it ends with this one, when its input is closed."
    return subprocess.Popen([sys.executable, ROOT / "tests/course_server.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)})


def ask_server(job: dict) -> int:
    "The exit code of a command that the server ran."
    server = course_server()
    server.stdin.write(json.dumps(job) + "\n"); server.stdin.flush()
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
