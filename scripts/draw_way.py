"""Draw the way of the data, once for each chapter, with its place marked.

    python scripts/draw_way.py

writes `nbs/images/way_N.svg`. What is marked stands in the chapter itself, in the picture's alt
text: "This chapter is about: ...".
"""
import json
import re
from html import escape

from chapters import ROOT, number_of, pages, source_of

STAGES = ["table", "splits", "tokens", "batches", "model", "AdamW step", "loop", "report"]
SETTINGS = "settings"                                     # stands below, on the way back
MARKED = re.compile(r"This chapter is about: ([^\]]+)\.\]\(images/way_(\d+)\.svg\)")
WIDTH, HEIGHT, GAP, EDGE = 82, 34, 12, 8
BLUE, GREY, WHITE, BLACK, LINE = "#0072B2", "#eeeeee", "#ffffff", "#222222", "#555555"


def places() -> dict: # number of a chapter -> its stages
    "What the chapters are about, as their first page says it."
    found = {}
    for path in pages():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        match = MARKED.search("\n".join(source_of(c) for c in cells))
        if not match: continue
        stages = match[1].split(", ")
        unknown = set(stages) - {*STAGES, SETTINGS}
        if unknown: raise ValueError(f"{path.name}: no stages of the way: {sorted(unknown)}")
        if match[2] != number_of(path): raise ValueError(f"{path.name} shows way_{match[2]}.svg")
        if found.setdefault(match[2], stages) != stages:
            raise ValueError(f"{path.name} marks other stages than the page before it")
    return found


def box(x: float, y: float, name: str, on: bool) -> str:
    "A stage."
    return (f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
            f'fill="{BLUE if on else GREY}" stroke="{LINE}"/>'
            f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 5}" text-anchor="middle" '
            f'font-family="sans-serif" font-size="13" fill="{WHITE if on else BLACK}">'
            f'{escape(name)}</text>')


def arrow(path: str) -> str:
    return f'<path d="{path}" stroke="{LINE}" fill="none" marker-end="url(#a)"/>'


def left_of(stage: int) -> int: return EDGE + stage * (WIDTH + GAP)


def draw(marked: list) -> str:
    "The way with some stages marked."
    below, middle = EDGE + HEIGHT + 20, EDGE + HEIGHT / 2
    parts = []
    for i, name in enumerate(STAGES):
        parts.append(box(left_of(i), EDGE, name, name in marked))
        if i < len(STAGES) - 1: parts.append(arrow(f"M{left_of(i) + WIDTH} {middle} h{GAP - 2}"))
    loop, report = (left_of(STAGES.index(name)) for name in ("loop", "report"))
    parts.append(box(loop, below, SETTINGS, SETTINGS in marked))
    down = f"M{report + WIDTH / 2} {EDGE + HEIGHT} V{below + HEIGHT / 2} H{loop + WIDTH + 3}"
    parts += [arrow(down), arrow(f"M{loop + WIDTH / 2} {below} v-17")]
    w, h = left_of(len(STAGES)) - GAP + EDGE, EDGE + 2 * HEIGHT + 28
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" '
            f'width="{w}" height="{h}"><rect width="{w}" height="{h}" fill="{WHITE}"/>'
            '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>'
            + "".join(parts) + "</svg>\n")


def main():
    for number, marked in places().items():
        (ROOT / f"nbs/images/way_{number}.svg").write_text(draw(marked), encoding="utf-8")


if __name__ == "__main__":
    main()
