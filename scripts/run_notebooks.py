"""Run notebooks top to bottom in a fresh kernel each and store what they show: `python scripts/run_notebooks.py [NOTEBOOK ...]`.

Execution counts are kept (1, 2, 3, ... is the proof that a notebook was run in order, in one go);
times, kernel versions and widget state are not. The box at the top gets its two durations from here:
reading at 200 words a minute, running as measured. The README gets its picture and its scores
from the first page.
"""
import base64, re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / "nbs"


def run(path):
    nb = nbformat.read(path, as_version=4)
    start = time.time()
    NotebookClient(nb, timeout=600, kernel_name="python3", record_timing=False, store_widget_state=False, coalesce_streams=True,
                   resources={"metadata": {"path": NBS}}).execute()
    seconds = time.time() - start
    nb.metadata = {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}
    words = sum(len(c.source.split()) for c in nb.cells)
    times = f"reading: {max(1, round(words / 200))} min · running: {5 * max(1, round(seconds / 5))} s"
    for cell in nb.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in ("tags", "slideshow")}
        if cell.cell_type == "markdown": cell.source = re.sub(r"reading: [^·]* · running: [^·\n]*", times, cell.source)
    nbformat.write(nb, path)
    return seconds


def fill_readme():
    "Put the loss plot and the score table of the first page into the README."
    shown = [o.data for c in nbformat.read(NBS / "index.ipynb", as_version=4).cells if c.cell_type == "code" for o in c.outputs if "data" in o]
    (NBS / "images").mkdir(exist_ok=True)
    (NBS / "images" / "loss.png").write_bytes(base64.b64decode(next(d["image/png"] for d in shown if "image/png" in d)))
    table = next(d["text/markdown"] for d in shown if "text/markdown" in d)
    readme = ROOT / "README.md"
    readme.write_text(re.sub(r"(?s)<!-- scores -->.*<!-- /scores -->", lambda _: f"<!-- scores -->\n{table}\n<!-- /scores -->", readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    paths = [Path(p).resolve() for p in sys.argv[1:] or sorted(NBS.glob("*.ipynb"))]
    for path in paths: print(f"{path.name:28} {run(path):6.1f} s", flush=True)
    if NBS / "index.ipynb" in paths: fill_readme()
