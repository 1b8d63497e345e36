"""Try the server's page in a browser: `python tests/serving_in_browser.py ADDRESS [--shots DIR]`

ADDRESS is that of a running server. Types a text, asks with the keyboard alone, reads the answer
where a screen reader would, in a window 390 pixels wide and in a wide one, light and dark. Fails
if the page asks anybody else, runs what its policy forbids, or has to be scrolled sideways. Needs
Chromium and `pip install playwright`, so it is not a part of the test run.
"""
import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

HOSTILE = '<img src=x onerror="document.title=1"> </div><script>document.title = 2</script>'


def try_page(browser, address: str, width: int, scheme: str, shots: Path | None) -> str:
    "What the answer says."
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    title = page.title()
    page.keyboard.press("Tab")                 # the link
    page.keyboard.press("Tab")                 # the text
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(HOSTILE)
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_role("status").get_by_role("table").wait_for()
    said = page.get_by_role("status").inner_text()
    if shots: page.screenshot(path=shots / f"served_{width}_{scheme}.png", full_page=True)
    assert page.title() == title, "a text was run"
    assert not complaints, complaints
    assert all(url.startswith((address, "data:")) for url in asked), asked
    wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, "it has to be scrolled sideways"
    boxes = "[...document.querySelectorAll('textarea, input')]"
    assert page.evaluate(f"{boxes}.every(box => box.labels[0])"), "a box without a label"
    page.close()
    return said


def main() -> None:
    ask = argparse.ArgumentParser()
    ask.add_argument("address")
    ask.add_argument("--shots", type=Path)
    given = ask.parse_args()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium())
        for width in (390, 1200):
            for scheme in ("light", "dark"):
                print(width, scheme, try_page(browser, given.address, width, scheme, given.shots))


def chromium() -> str | None:
    "The system's Chromium, if there is one; else playwright's own."
    path = Path("/usr/bin/chromium")
    return str(path) if path.exists() else None


if __name__ == "__main__": main()
