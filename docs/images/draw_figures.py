"""The drawings of docs/concepts.md: python docs/images/draw_figures.py writes them anew."""

from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
INK, SOFT, PAPER = "#1f2430", "#6b7280", "#ffffff"
TRAIN, VALIDATION, TEST = "#4c72b0", "#dd9a3c", "#b5485d"
MADE = "#a9bfe0"

Marks = list[str]


def text(x: float, y: float, words: str, *, size: int = 15, at: str = "middle", **how: str) -> str:
    """Return words, the middle (or start, end) of their base line at (x, y)."""
    more = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in how.items())
    fill = "" if "fill" in how else f' fill="{INK}"'
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{at}"{fill}{more}>{words}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *, edge: str = "none") -> str:
    """Return a box with round corners."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{fill}" '
        f'stroke="{edge}" stroke-width="1.5"/>'
    )


def arrow(x1: float, y1: float, x2: float, y2: float, *, colour: str = SOFT) -> str:
    """Return an arrow from one point to another."""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="2" '
        f'marker-end="url(#tip)"/>'
    )


def picture(name: str, height: int, title: str, marks: Iterable[str], width: int = 720) -> None:
    """Write an SVG of that size in pixels, with a title for who cannot see it."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'font-family="Helvetica, Arial, sans-serif"><title>{title}</title>'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/></marker></defs>'
    )
    body = [f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>', *marks]
    (HERE / name).write_text("\n".join([head, *body, "</svg>"]) + "\n")


def lineage() -> None:
    """Draw what may be trained on: what derives from the training part alone."""

    def row(y: float, name: str, part: str, colour: str) -> Marks:
        return [
            box(20, y, 150, 46, colour),
            text(95, y + 20, name, fill=PAPER),
            text(95, y + 38, part, size=13, fill=PAPER),
        ]

    def made(y: float, name: str, below: str, good: bool) -> Marks:
        sign, colour = ("may be trained on", "#2e7d4f") if good else ("never", TEST)
        return [
            box(430, y, 130, 46, MADE if good else "#f3d9de", edge=SOFT),
            text(495, y + 20, name),
            text(495, y + 38, below, size=13, fill=SOFT),
            text(578, y + 28, sign, at="start", fill=colour, font_weight="bold"),
        ]

    marks = [
        text(95, 28, "real images", font_weight="bold"),
        text(495, 28, "made images", font_weight="bold"),
        *row(44, "image A", "training", TRAIN),
        *row(104, "image B", "training", TRAIN),
        *row(184, "image C", "validation", VALIDATION),
        *row(244, "image D", "test", TEST),
        *made(44, "flip of A", "parent: A", True),
        *made(104, "generated", "from A and B", True),
        *made(244, "flip of D", "parent: D", False),
        arrow(172, 67, 426, 67),
        text(300, 60, "flip", size=13, fill=SOFT),
        arrow(172, 127, 246, 127),
        arrow(172, 80, 246, 116),
        box(250, 104, 100, 46, PAPER, edge=SOFT),
        text(300, 132, "generator"),
        arrow(352, 127, 426, 127),
        arrow(172, 267, 426, 267),
        text(300, 260, "flip", size=13, fill=SOFT),
        text(192, 212, "only to choose the best look", at="start", size=13, fill=SOFT),
        f'<line x1="20" y1="167" x2="700" y2="167" stroke="{SOFT}" stroke-dasharray="5 5"/>',
    ]
    title = "A made image may be trained on only if all that it derives from lies in training"
    picture("lineage.svg", 310, title, marks)


def folds() -> None:
    """Draw groups as they are dealt into 20 folds, and what protocols make of the folds."""
    left, side, gap = 150, 22, 27

    def band(y: float, name: str, parts: str) -> Marks:
        colours = {"t": TRAIN, "v": VALIDATION, "x": TEST}
        marks = [text(left - 12, y + 16, name, at="end", size=14)]
        return marks + [
            box(left + gap * i, y, side, side, colours[letter]) for i, letter in enumerate(parts)
        ]

    marks = [text(left - 12, 44, "groups", at="end", size=14)]
    for i, n in enumerate([1, 2, 1, 3, 1, 1, 2, 1, 1, 1, 4, 1, 1, 2, 1, 1, 1, 3, 1, 2]):
        x = left + gap * i + side / 2
        marks += [f'<circle cx="{x}" cy="{54 - 11 * k}" r="4.5" fill="{INK}"/>' for k in range(n)]
        marks.append(text(x, 82, str(i), size=12, fill=SOFT))
    marks.append(text(left - 12, 82, "fold", at="end", size=14))
    marks += band(98, "70/15/15", "t" * 14 + "v" * 3 + "x" * 3)
    for k in range(5):
        parts = ["t"] * 20
        for i in range(4):
            parts[4 * k + i] = "x"
        for i in range(3):
            parts[(4 * k + 4 + i) % 20] = "v"
        marks += band(140 + 30 * k, f"five folds: {k + 1}", "".join(parts))
    legend = (("training", TRAIN), ("validation", VALIDATION), ("test", TEST))
    for i, (name, colour) in enumerate(legend):
        marks += [
            box(left + 150 * i, 304, side, side, colour),
            text(left + 150 * i + 30, 320, name, at="start", size=14),
        ]
    title = "Each group lies in one of 20 folds; every protocol is made of whole folds"
    picture("folds.svg", 345, title, marks)


def controls() -> None:
    """Draw the training images of four arms by class, with the control of each."""

    def arm(x: float, name: str, below: str, bars: list[tuple[int, int]], colour: str) -> Marks:
        marks = [
            text(x + 60, 228, name, font_weight="bold"),
            text(x + 60, 248, below, size=13, fill=SOFT),
            f'<line x1="{x}" y1="196" x2="{x + 120}" y2="196" stroke="{SOFT}"/>',
        ]
        for i, (real, new) in enumerate(bars):
            marks += [
                box(x + 8 + 38 * i, 196 - real - new, 30, new, colour) if new else "",
                box(x + 8 + 38 * i, 196 - real, 30, real, TRAIN),
                text(x + 23 + 38 * i, 211, "ABC"[i], size=12, fill=SOFT),
            ]
        return marks

    marks = [
        *arm(20, "real", "the base line", [(40, 0), (20, 0), (10, 0)], MADE),
        *arm(195, "traditional", "control: real", [(40, 120), (20, 60), (10, 30)], MADE),
        *arm(370, "dagan", "control: balanced", [(40, 80), (20, 80), (10, 80)], MADE),
        *arm(545, "balanced", "for dagan", [(40, 80), (20, 80), (10, 80)], "#9aa3b2"),
    ]
    legend = (("real", TRAIN), ("new", MADE), ("real, repeated", "#9aa3b2"))
    for i, (name, colour) in enumerate(legend):
        marks += [
            box(150 + 160 * i, 268, 20, 20, colour),
            text(178 + 160 * i, 284, name, at="start", size=14),
        ]
    title = "An arm is held against real images, and against real images repeated to its balance"
    picture("controls.svg", 305, title, marks)


def verdicts() -> None:
    """Draw intervals of differences, and the word that each leads to."""
    zero, point = 330, 16

    def row(i: int, word: str, why: str, low: float, high: float, colour: str) -> Marks:
        y = 56 + 52 * i
        a, b, middle = zero + point * low, zero + point * high, zero + point * (low + high) / 2
        return [
            text(20, y + 5, word, at="start", font_weight="bold", fill=colour),
            f'<line x1="{a}" y1="{y}" x2="{b}" y2="{y}" stroke="{colour}" stroke-width="4"/>',
            f'<circle cx="{middle}" cy="{y}" r="7" fill="{colour}"/>',
            text(500, y + 5, why, at="start", size=13, fill=SOFT),
        ]

    marks = [
        f'<line x1="{zero}" y1="30" x2="{zero}" y2="282" stroke="{INK}" stroke-dasharray="4 4"/>',
        text(zero, 20, "no difference", size=13, fill=SOFT),
        *row(0, "helps", "better than both", 2, 8, "#2e7d4f"),
        *row(1, "cannot tell", "too few images to see", -6, 9, SOFT),
        *row(2, "cannot tell", "if anything, it is small", -1, 1.4, SOFT),
        *row(3, "cannot tell", "balance does it as well", 1.5, 7, SOFT),
        *row(4, "hurts", "worse than real images", -9, -3, TEST),
    ]
    for x, label in ((-8, "-8"), (-4, "-4"), (4, "+4"), (8, "+8")):
        marks.append(text(zero + point * x, 302, label, size=12, fill=SOFT))
    marks.append(text(zero, 302, "0 points", size=12, fill=SOFT))
    title = "The word follows from the interval of the difference, not from its middle"
    picture("verdicts.svg", 318, title, marks)


if __name__ == "__main__":
    for draw in (lineage, folds, controls, verdicts):
        draw()
