"""Open chapter 7 in JupyterLab in a real browser, move a slider, press Run, watch the curve:
`python tests/panel_in_browser.py [--shots DIR]`

Needs Chromium and `pip install playwright`, so it is not a part of the test run; the same panel
is driven without a browser there.
"""
import argparse, json, shutil, socket, subprocess, sys, tempfile, time
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--shots", default="runs/shots")
    p.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser")
    )
    args = p.parse_args()
    shots = Path(args.shots)
    shots.mkdir(parents=True, exist_ok=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("nbs", "data"):
            # the notebook is run, not changed
            shutil.copytree(ROOT / name, Path(folder) / name)
        lab = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                "--no-browser",
                "--allow-root",
                f"--port={port}",
                "--IdentityProvider.token=",
                "--ServerApp.password=",
                f"--notebook-dir={folder}/nbs",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try: drive(f"http://127.0.0.1:{port}/lab/tree/07_tuning.ipynb", port, args.chromium, shots)
        finally:
            lab.terminate()
            lab.wait()


def drive(address, port, chromium, shots):
    for _ in range(240):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError: time.sleep(0.5)
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1100})
        page.goto(address)
        expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible(timeout=120_000)
        page.locator(".jp-Notebook .jp-MarkdownCell").first.click()
        cells = json.loads((ROOT / "nbs/07_tuning.ipynb").read_text(encoding="utf-8"))["cells"]
        for _ in range(
            1 + next(i for i, c in enumerate(cells) if "panel.widget" in "".join(c["source"]))
        ):
            page.keyboard.press("Shift+Enter")
            time.sleep(0.3)
        run = page.locator(".jp-OutputArea button.jupyter-button", has_text="Run").first
        expect(run).to_be_visible(timeout=240_000)
        run.scroll_into_view_if_needed()
        time.sleep(2)
        page.screenshot(path=shots / "1_panel.png")
        knob = page.locator(".widget-hbox:has(> .widget-slider)", has_text="epochs")
        knob.locator(".noUi-handle").first.focus()
        for _ in range(2): page.keyboard.press("ArrowRight")
        expect(knob.locator("input")).to_have_value("4")
        knob.locator("input").fill("40")                    # is said, and not changed
        knob.locator("input").press("Enter")
        expect(page.get_by_text("epochs 40 is not between 1 and 12").first).to_be_visible()
        knob.locator("input").fill("4")
        knob.locator("input").press("Enter")
        run.click()
        before = page.locator("img.widget-image").first.get_attribute("src")
        # the curve is drawn
        page.wait_for_function(
            "old => document.querySelector('img.widget-image').src != old", arg=before,
            timeout=240_000,
        )
        run.scroll_into_view_if_needed()
        time.sleep(1)
        page.screenshot(path=shots / "2_running.png")
        expect(page.get_by_text("done: estimated").first).to_be_visible(
            timeout=600_000
        )
        time.sleep(1)
        page.screenshot(path=shots / "3_done.png")
        page.locator(".jp-OutputArea button.jupyter-button", has_text="Run").first.click()
        stop = page.locator(".jp-OutputArea button.jupyter-button", has_text="Stop").first
        expect(stop).to_be_enabled(timeout=60_000)
        time.sleep(6)
        stop.click()
        expect(page.get_by_text("stopped: estimated").first).to_be_visible(
            timeout=240_000
        )
        page.screenshot(path=shots / "4_stopped.png")
        print("the panel ran, drew its curve and stopped when told; screenshots in", shots)
        browser.close()


if __name__ == "__main__":
    main()
