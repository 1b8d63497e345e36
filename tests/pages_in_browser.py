"""Open pages that have no kernel in a real browser and move their sliders: `python
tests/pages_in_browser.py [--shots DIR] [--axe axe.min.js]`

The pages are those of the site as `scripts/build_site.py` prepares them, rendered by nbconvert,
since Quarto is not everywhere. Needs
Chromium and `pip install playwright`, so it is not a part of the test run. With `--axe`, a copy
of axe-core looks for what people
who can't see or can't use a mouse would stumble over.
"""
import argparse, re, shutil, sys, tempfile
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import build_site  # noqa: E402
# nbconvert's own colours of code are too pale for many eyes; in the site, Quarto's style a11y takes
# their place
STYLE = (
    ":root { --jp-mirror-editor-comment-color: #3b5f5f; --jp-mirror-editor-number-color: #05600a;"
    " --jp-mirror-editor-keyword-color: #05600a; --jp-mirror-editor-operator-color: #7a1fa2;"
    " --jp-mirror-editor-string-color: #8f1c1c; --jp-mirror-editor-punctuation-color: #0a4a8f; }"
)


def render(path: Path) -> Path:
    "A page as HTML beside its notebook."
    notebook = nbformat.read(path, as_version=4)
    title = next(
        l for c in notebook.cells for l in c.source.splitlines() if l.startswith("title: ")
    )[7:].strip("'\"")
    notebook.cells[0] = nbformat.v4.new_markdown_cell(f"# {title}")
    for output in (o for c in notebook.cells for o in c.get("outputs", [])):
        text = output.get("data", {}).get("text/markdown", "")
        raw = re.fullmatch(r"(?s)`+\{=html\}\n(.*?)\n?`+\s*", text)
        if raw: output.data = {"text/html": raw[1]}     # what Quarto passes on as it is
    html, _ = HTMLExporter(
        exclude_input_prompt=True, exclude_output_prompt=True, require_js_url="", mathjax_url=""
    ).from_notebook_node(notebook)
    out = path.with_suffix(".html")
    html = html.replace("<html>", '<html lang="en">', 1).replace(
        "</head>", f"<style>{(ROOT / 'site/styles.css').read_text()}{STYLE}</style></head>", 1
    )
    out.write_text(html, encoding="utf-8")
    return out


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--shots", type=Path, default=Path("runs/shots"))
    p.add_argument("--axe", type=Path)
    p.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser")
    )
    args = p.parse_args()
    args.shots.mkdir(parents=True, exist_ok=True)
    serious = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        build_site.prepare(Path(folder))
        browser = play.chromium.launch(
            executable_path=args.chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for name, figure in (("c_show", "falling"), ("04_optim", "valley"), ("07_tuning", "rates")):
            page_file = render(Path(folder) / f"_proc/nbs/{name}.ipynb")
            for width in (1280, 390):
                page, errors = browser.new_page(viewport={"width": width, "height": 900}), []
                page.on("pageerror", lambda e: errors.append(str(e)))
                page.goto(f"file://{page_file}", wait_until="domcontentloaded")
                page.screenshot(path=args.shots / f"{name}_{width}_top.png")
                drawn, slider = page.locator(f"#{figure} svg"), page.locator(f"#{figure} input")
                slider.scroll_into_view_if_needed()
                before = drawn.inner_html()
                said = page.locator(f"#{figure} output").inner_text()
                page.screenshot(path=args.shots / f"{name}_{width}_before.png")
                slider.focus()
                page.keyboard.press("ArrowRight")
                page.keyboard.press("ArrowRight")
                assert (
                    drawn.inner_html() != before
                    and page.locator(f"#{figure} output").inner_text() != said
                ), "the curve didn't move"
                box = slider.bounding_box()
                page.mouse.click(box["x"] + 3, box["y"] + box["height"] / 2)
                assert slider.input_value() == "0", "the mouse didn't move it"
                page.screenshot(path=args.shots / f"{name}_{width}_after.png")
                assert drawn.bounding_box()["width"] <= width, "the figure is wider than the page"
                if args.axe and width == 1280:
                    page.add_script_tag(path=args.axe)
                    found = page.evaluate(
                        "async () => (await axe.run()).violations.map(v => [v.impact, v.id,"
                        " v.nodes.length, v.nodes[0].html.slice(0, 160)])"
                    )
                    for violation in found: print(f"  axe, {name}:", *violation)
                    serious += sum(v[0] in ("serious", "critical") for v in found)
                assert not errors, errors
                page.close()
            print(f"{name}: the slider moves by key and by mouse, at 1280 and at 390 pixels")
    print("screenshots in", args.shots)
    if serious: sys.exit(f"axe found {serious} serious faults")


if __name__ == "__main__":
    main()
