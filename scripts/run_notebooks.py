"""Run notebooks top to bottom in a fresh kernel each and store what they show.

    python scripts/run_notebooks.py [NOTEBOOK ...]

Execution counts are kept (1, 2, 3, ... is the proof that a notebook was run in order, in one go);
times, kernel versions and widget state are not. The box at the top gets its two durations from
here: reading as a reader does who works through the exercises, running as measured. The README gets
its picture and its scores from the first page, and each chapter its place on the way of the data.
"""
import base64
import re
import sys
import time
from pathlib import Path

import draw_way
import nbformat
from chapters import ROOT, is_complaint
from nbclient import NotebookClient

NBS = ROOT / "nbs"
KERNEL = {"display_name": "python3", "language": "python", "name": "python3"}


def run(path: Path) -> float: # seconds
    "Run a notebook and store it."
    nb = nbformat.read(path, as_version=4)
    start = time.time()
    client = NotebookClient(nb, timeout=600, kernel_name="python3", record_timing=False,
                            store_widget_state=False, coalesce_streams=True,
                            resources={"metadata": {"path": NBS}})
    client.execute()
    seconds = time.time() - start
    nb.metadata = {"kernelspec": KERNEL}
    times = durations(nb, seconds)
    for cell in nb.cells:
        kept = {k: v for k, v in cell.metadata.items() if k in ("tags", "slideshow")}
        cell.metadata = kept
        if "outputs" in cell: cell.outputs = [o for o in cell.outputs if not is_complaint(o)]
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"reading: [^·]* · running: [^·\n]*", times, cell.source)
    nbformat.write(nb, path)
    return seconds


def durations(nb, seconds: float) -> str:
    "How long a chapter takes, for its box."
    running = 5 * max(1, round(seconds / 5))
    return f"reading: {reading_minutes(nb)} min · running: {running} s"


def reading_minutes(nb) -> int:
    "180 words of prose a minute, ten lines of code a minute, five minutes an exercise."
    prose = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
    words = len(re.sub(r"!\[.*?\]\(.*?\)|(?<=\])\(.*?\)", "", prose).split())
    code = [c.source for c in nb.cells if c.cell_type == "code"]
    unfolded = [s for s in code if not re.search(r"(?m)^ *### BEGIN SOLUTION|^reject\(", s)]
    lines = sum(bool(line.strip()) for s in unfolded for line in s.splitlines())
    _, _, unchecked = prose.partition("**Exercises**")
    exercises = re.findall(r"(?m)^### Exercise", prose) + re.findall(r"(?m)^\d+\. \*", unchecked)
    return max(1, round(words / 180 + lines / 10 + 5 * len(exercises)))


def fill_readme():
    "Put the loss plot, the score table and the headline of the first page into the README."
    cells = nbformat.read(NBS / "index.ipynb", as_version=4).cells
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    shown = [o.data for o in outputs if "data" in o]
    picture = next(d["image/png"] for d in shown if "image/png" in d)
    (NBS / "images/loss.png").write_bytes(base64.b64decode(picture))
    table = "\n\n".join([d["text/markdown"] for d in shown if "text/markdown" in d][:2])
    readme = ROOT / "README.md"
    before, mark, rest = readme.read_text(encoding="utf-8").partition("<!-- scores -->")
    _, end, after = rest.partition("<!-- /scores -->")
    readme.write_text(f"{before}{mark}\n{table}\n{end}{after}", encoding="utf-8")


def main():
    paths = [Path(p).resolve() for p in sys.argv[1:] or sorted(NBS.glob("*.ipynb"))]
    for path in paths: print(f"{path.name:28} {run(path):6.1f} s", flush=True)
    if NBS / "index.ipynb" in paths: fill_readme()
    draw_way.main()


if __name__ == "__main__":
    main()
