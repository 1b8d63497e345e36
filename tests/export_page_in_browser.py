"""Open the page of a run from disk in a real browser, type, read the answer, look for requests:
`python tests/export_page_in_browser.py RUN [--shots DIR] [--axe axe.min.js]`

Needs Chromium and `pip install playwright`, so it is not a part of the test run. The network is
cut; with `--axe`, a copy of axe-core looks for what people who can't see would stumble over.
"""
import argparse, re, shutil, sys, tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from course_lib.page import page_probabilities, read_page, write_page

TEXT = "A warm and funny film with <b>wonderful</b> actors."


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("run")
    p.add_argument("--shots", type=Path, default=Path("runs/shots"))
    p.add_argument("--axe", type=Path)
    p.add_argument(
        "--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser")
    )
    args = p.parse_args()
    args.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_file = Path(folder) / "page.html"
        write_page(args.run, page_file)
        browser = play.chromium.launch(
            executable_path=args.chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        faults = [
            fault for colours in ("light", "dark") for width in (1200, 390)
            for fault in drive(browser, page_file, width, colours, args)
        ]
        browser.close()
    print("screenshots in", args.shots)
    if faults: sys.exit("\n".join(faults))


def drive(browser, page_file, width, colours, args):
    "Use the page by keyboard alone; gives the faults that axe finds."
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=colours, offline=True,
        bypass_csp=bool(args.axe),
    )
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    page.goto(f"file://{page_file}")
    said, shares = page.locator("#said"), page.locator("#shares li")
    assert said.get_attribute("aria-live") == "polite"

    page.keyboard.press("Tab")
    expect(page.get_by_label("Your text")).to_be_focused()
    page.keyboard.press("Control+Enter")
    expect(said).to_have_text("Type a text first.")
    page.keyboard.type(TEXT)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Answer")).to_be_focused()
    page.keyboard.press("Enter")
    probabilities = page_probabilities(page_file, [TEXT])[0]
    labels = read_page(page_file)["labels"]
    best = int(probabilities.argmax())
    expect(said).to_have_text(f"{labels[best]}, with {100 * probabilities[best]:.1f} %.")
    expect(shares).to_have_count(len(labels))
    first = shares.first.locator("div").bounding_box()["width"]
    last = shares.last.locator("div").bounding_box()["width"]
    assert abs(last / first - probabilities.min() / probabilities.max()) < 0.02
    name = f"export_page_{width}_{colours}.png"
    page.screenshot(path=args.shots / name, full_page=True)

    page.get_by_label("Your text").fill("long " * 5000)
    page.keyboard.press("Control+Enter")
    expect(said).to_contain_text("the rest was not read")
    page.get_by_label("Your text").fill("\ud800 half")
    page.keyboard.press("Control+Enter")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0, f"{overflow} pixels too wide at {width}"
    if not args.axe:                    # whatever would reach out is stopped by the policy
        reached = page.evaluate("fetch('https://example.org').then(() => 'yes', () => 'no')")
        assert reached == "no" and any("Content Security Policy" in e for e in errors)
        errors.clear()
    assert [url for url in asked if not url.startswith("file:")] == [], asked
    assert not [e for e in errors if not re.search("axe", e)], errors
    found = axe(page, args.axe) if args.axe else []
    context.close()
    print(f"{width} pixels, {colours}: typed, answered, cut, nothing asked of the network")
    return found


def axe(page, script):
    "What axe-core calls serious."
    page.add_script_tag(path=script)
    found = page.evaluate(
        "async () => (await axe.run()).violations.map(v => [v.impact, v.id, v.nodes[0].html])"
    )
    return [" ".join(map(str, violation)) for violation in found]


if __name__ == "__main__":
    main()
