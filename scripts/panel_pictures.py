"""Take the pictures that stand where a panel would be on a page without a kernel: `python
scripts/panel_pictures.py [PAGE ...]`

The code of each page up to its panel is run in JupyterLab in a real browser, the panel is used
once, and what it then shows goes into `nbs/images/panel_PAGE.png`, which carries its own alt text.
Needs Chromium and `pip install playwright`; after a change to a panel.
"""
import argparse
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]


def run_a_trial(area) -> None:
    area.locator("button", has_text="Run").click()
    expect(area.get_by_text("accuracy").first).to_be_visible(timeout=600_000)


def ask_something(area) -> None:
    field = area.locator("input[type=text]").first
    field.fill("Who wrote the letter?")
    area.locator("button", has_text="Send").click()
    expect(area.locator("button", has_text="Send")).to_be_enabled(timeout=120_000)


def leave(area) -> None: pass


# what chapter 7's panel needs of the cells before it
TUNING = """from datasets import DatasetDict

from course_lib.data import load_data
from course_lib.tuning import Panel

whole = load_data("reviews")
splits = DatasetDict({"train": whole["train"].select(range(480)),
                      "validation": whole["validation"].select(range(240))})
panel = Panel(splits)
panel.widget"""
PANELS = { # page -> (what its cell ends with, what is done with the panel, the alt text)
    "07_tuning": ("panel.widget", run_a_trial,
                  "A panel: ten settings as sliders and menus, a field to type in beside each "
                  "slider; buttons to run and to stop; a bar that is full. Beside them the loss of "
                  "the run, below them a table with its score."),
    "16_instruction": ("panel.widget", ask_something,
                       "A panel to talk with a model: the conversation so far, a line to type in, "
                       "and buttons to send it and to begin anew."),
    "index": ("widgets.VBox([sentence, answer])", leave,
              "A line to type a sentence in, and below it a table: what the model made of the "
              "sentence before it was fine-tuned, and what after."),
}


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pages", nargs="*", default=list(PANELS))
    p.add_argument("--python", default=sys.executable, help="a Python that has JupyterLab")
    p.add_argument("--chromium",
                   default=shutil.which("chromium") or shutil.which("chromium-browser"))
    args = p.parse_args()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        for name in args.pages: write_code(name, Path(folder) / f"{name}.ipynb")
        command = [args.python, "-m", "jupyterlab", "--no-browser", "--allow-root",
                   f"--port={port}", "--IdentityProvider.token=", "--ServerApp.password=",
                   f"--notebook-dir={folder}"]
        lab = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=args.chromium,
                                               args=["--no-sandbox", "--disable-gpu"])
                for name in args.pages: take(browser, port, name)
        finally:
            lab.terminate()
            lab.wait()


def wait_for(port: int) -> None:
    for _ in range(240):
        try: return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError: time.sleep(0.5)


def write_code(name: str, path: Path) -> None:
    "A notebook with the code of a page up to its panel."
    notebook = json.loads((ROOT / f"nbs/{name}.ipynb").read_text(encoding="utf-8"))
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    last = next(i for i, c in enumerate(cells)
                if "".join(c["source"]).rstrip().endswith(PANELS[name][0]))
    for c in cells: c.update(outputs=[], execution_count=None)
    cells = cells[:last + 1]
    if name == "07_tuning": cells = [{**cells[-1], "source": TUNING}]
    path.write_text(json.dumps({**notebook, "cells": cells}), encoding="utf-8")


def take(browser, port: int, name: str) -> None:
    "Run a notebook up to its panel, use the panel, keep what it shows."
    _, use, alt = PANELS[name]
    page = browser.new_page(viewport={"width": 1300, "height": 1100})
    page.goto(f"http://127.0.0.1:{port}/lab/tree/{name}.ipynb")
    expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible(timeout=120_000)
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    area = page.locator(".jp-OutputArea-output:has(> .jupyter-widgets)").last
    expect(area).to_be_visible(timeout=600_000)
    area.scroll_into_view_if_needed()
    time.sleep(2)
    use(area)
    time.sleep(2)
    picture = Image.open(io.BytesIO(area.screenshot()))
    told = PngInfo()
    told.add_text("Description", alt)
    picture = picture.convert("RGB").quantize(64)
    picture.save(ROOT / f"nbs/images/panel_{name}.png", pnginfo=told, optimize=True)
    page.close()
    print(f"nbs/images/panel_{name}.png: {picture.size}")


if __name__ == "__main__":
    main()
