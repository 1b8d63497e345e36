"""Run notebooks top to bottom in a fresh kernel each and store what they show: `python scripts/run_notebooks.py [NOTEBOOK ...]`.

Execution counts are kept (1, 2, 3, ... is the proof that a notebook was run in order, in one go);
times, kernel versions and widget state are not. The box at the top gets its two durations from here:
reading at 200 words a minute, running as measured.
"""
import re, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NBS = Path(__file__).resolve().parents[1] / "nbs"


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
        if cell.cell_type == "markdown": cell.source = re.sub(r"reading: .* · running: .*", times, cell.source)
    nbformat.write(nb, path)
    return seconds


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sorted(NBS.glob("*.ipynb"))):
        print(f"{path.name:28} {run(path):6.1f} s", flush=True)
