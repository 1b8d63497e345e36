"""Draw the way of the data, once for each chapter, with its place marked: `python scripts/draw_way.py` writes `nbs/images/way_N.svg`."""
from pathlib import Path

STAGES = ["table", "splits", "tokens", "batches", "model", "AdamW step", "loop", "report", "settings"]
CHAPTERS = {"1": ("table", "splits"), "2": ("tokens", "batches"), "3": ("model",), "4": ("AdamW step",), "5": ("loop",), "6": ("report",), "7": ("settings",), "8": ("loop",), "9": ("model",), "10": ("model",), "11": ("model",)}
WIDTH, HEIGHT, GAP, TOP = 82, 34, 12, 8


def draw(marked: tuple) -> str:
    "The way with some stages marked."
    parts, last = [], len(STAGES) - 2
    for i, name in enumerate(STAGES):
        x, y = (8 + i * (WIDTH + GAP), TOP) if name != "settings" else (8 + 6 * (WIDTH + GAP), TOP + HEIGHT + 20)
        on = name in marked
        parts.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{"#0072B2" if on else "#eeeeee"}" stroke="#555555"/>'
                     f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 5}" text-anchor="middle" font-family="sans-serif" font-size="13" fill="{"#ffffff" if on else "#222222"}">{name}</text>')
        if i < last: parts.append(f'<path d="M{x + WIDTH} {y + HEIGHT / 2} h{GAP - 2}" stroke="#555555" fill="none" marker-end="url(#a)"/>')
    report, loop = 8 + 7 * (WIDTH + GAP) + WIDTH / 2, 8 + 6 * (WIDTH + GAP)
    low = TOP + HEIGHT + 20 + HEIGHT / 2
    parts.append(f'<path d="M{report} {TOP + HEIGHT} V{low} H{loop + WIDTH + 3}" stroke="#555555" fill="none" marker-end="url(#a)"/>'
                 f'<path d="M{loop + WIDTH / 2} {TOP + HEIGHT + 20} v-17" stroke="#555555" fill="none" marker-end="url(#a)"/>')
    w, h = 8 + 8 * (WIDTH + GAP) - GAP + 8, TOP + 2 * HEIGHT + 28
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}"><rect width="{w}" height="{h}" fill="#ffffff"/>'
            '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555555"/></marker></defs>'
            + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    for chapter, marked in CHAPTERS.items(): (Path(__file__).resolve().parents[1] / f"nbs/images/way_{chapter}.svg").write_text(draw(marked), encoding="utf-8")
