"""Figures of an outcome: where the marks of the page's drawings lie, and the same as vector PDF.

Figure 6 shows the accuracy of every arm of every cell, as dots with intervals. The ROC curves are
those of the outcome: one versus rest, averaged over the fits.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.reports.exports import Cell, Outcome, curves_of, estimate, interval, read_cells, write

FIGURE_6 = "accuracy"
"""The metric of the paper's Figure 6."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A line of the grid."""

    at: float
    """Pixels."""
    text: str


@dataclass(frozen=True)
class Dot:
    """An estimate with its interval, on a horizontal axis; pixels."""

    name: str
    kind: str
    """`real`, `control` or `augmented`."""
    x: float
    low: float
    high: float
    y: float
    text: str


@dataclass(frozen=True)
class Band:
    """The dots of one cell, below its name."""

    name: str
    y: float
    dots: list[Dot]


@dataclass(frozen=True)
class DotChart:
    """Figure 6; pixels."""

    width: int
    height: float
    left: float
    right: float
    ticks: list[Tick]
    bands: list[Band]


@dataclass(frozen=True)
class Curve:
    """A line of a panel; `number` decides its colour and dashes."""

    name: str
    number: int
    points: str
    """As the attribute of an SVG polyline."""


@dataclass(frozen=True)
class Panel:
    """A small drawing of curves; pixels."""

    title: str
    width: int
    height: int
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the plot."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]


# -- Figure 6 --------------------------------------------------------------------------------------

_WIDTH, _LEFT, _RIGHT, _TOP = 740, 170.0, 580.0, 30.0
_ROW, _NAME, _SPACE = 20.0, 22.0, 12.0


def dot_chart(cells: Sequence[Cell], metric: str = FIGURE_6) -> DotChart | None:
    """Return where the dots of all cells lie; None where no arm has the metric."""
    shown = [(cell, _measured(cell, metric)) for cell in cells]
    shown = [(cell, arms) for cell, arms in shown if arms]
    if not shown:
        return None
    found = [estimate(arm, metric) for _, arms in shown for arm in arms]
    marks = ticks(*_limits(v for f in found for v in _ends(f)))
    first, last = marks[0], marks[-1]

    def x(value: float) -> float:
        return round(_LEFT + (_RIGHT - _LEFT) * (value - first) / (last - first), 1)

    y, bands = _TOP, []
    for cell, arms in shown:
        top, dots = y + 12, []
        y += _NAME
        for arm in arms:
            one = estimate(arm, metric)
            low, high = _ends(one)
            middle = y + _ROW / 2
            at, text = x(one["value"]), interval(one)
            dots.append(Dot(arm["name"], kind_of(arm), at, x(low), x(high), middle, text))
            y += _ROW
        bands.append(Band(cell.name, top, dots))
        y += _SPACE
    grid = [Tick(x(mark), f"{mark:g}") for mark in marks]
    return DotChart(_WIDTH, y, _LEFT, _RIGHT, grid, bands)


def _measured(cell: Cell, metric: str) -> list[dict[str, Any]]:
    return [arm for arm in cell.arms if estimate(arm, metric)]


def _ends(found: dict[str, Any]) -> Point:
    """Return both ends of an interval; the value itself where an end is missing."""
    low, high = found.get("low"), found.get("high")
    value = found["value"]
    return (value if low is None else low, value if high is None else high)


def kind_of(arm: dict[str, Any]) -> str:
    """Return `real`, `control` or `augmented`."""
    return "control" if arm.get("control") else "real" if arm["name"] == "real" else "augmented"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers in equal steps, about so many, that reach from low to high or beyond."""
    if high - low < 1e-9:
        low, high = low - 0.05, high + 0.05
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _limits(values: Iterable[float]) -> Point:
    there = list(values)
    return min(there), max(there)


# -- curves ----------------------------------------------------------------------------------------


def roc_panels(cell: Cell) -> list[Panel]:
    """Return a panel for each class, with a curve for each arm that has one."""
    classes = list(dict.fromkeys(name for arm in cell.arms for name in _roc(arm)))
    panels = []
    for name in classes:
        lines = [
            (arm["name"], k, roc_points(_roc(arm)[name]))
            for k, arm in enumerate(cell.arms)
            if name in _roc(arm)
        ]
        panels.append(_panel(name, lines, [0, 0.25, 0.5, 0.75, 1], [0, 0.25, 0.5, 0.75, 1]))
    return panels


def _roc(arm: dict[str, Any]) -> dict[str, list[float]]:
    """Return the ROC curve of each class; a curve of fewer than two points is none."""
    return {name: rates for name, rates in curves_of(arm, "roc").items() if len(rates) > 1}


def roc_points(rates: Sequence[float]) -> list[Point]:
    """Return false and true positive rates from (0, 0) on; rates lie on an even grid of 0..1."""
    grid = np.linspace(0, 1, len(rates)).round(6).tolist()
    return [(0.0, 0.0), *zip(grid, rates, strict=True)]


def line_panel(title: str, lines: Sequence[tuple[str, int, Sequence[Point]]]) -> Panel:
    """Return a panel whose axes reach as far as its lines: (name, number, points) each."""
    points = [point for _, _, line in lines for point in line]
    x_marks = ticks(0.0, max(x for x, _ in points), 4)
    return _panel(title, lines, x_marks, ticks(*_limits(y for _, y in points), 4))


def _panel(
    title: str,
    lines: Sequence[tuple[str, int, Sequence[Point]]],
    x_marks: Sequence[float],
    y_marks: Sequence[float],
) -> Panel:
    width, height = 280, 264
    left, top, right, bottom = box = (46.0, 8.0, 262.0, 224.0)

    def x(value: float) -> float:
        return round(left + (right - left) * (value - x_marks[0]) / (x_marks[-1] - x_marks[0]), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * (value - y_marks[0]) / (y_marks[-1] - y_marks[0]), 1)

    drawn = [
        Curve(name, number, " ".join(f"{x(a)},{y(b)}" for a, b in points))
        for name, number, points in lines
    ]
    x_ticks = [Tick(x(mark), f"{mark:g}") for mark in x_marks]
    y_ticks = [Tick(y(mark), f"{mark:g}") for mark in y_marks]
    return Panel(title, width, height, box, x_ticks, y_ticks, drawn)


# -- PDF -------------------------------------------------------------------------------------------

COLOURS = ("#333333", "#0b5fa5", "#b35300", "#007a5e", "#8a4f9e", "#6b7280")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 2), (8, 2, 2, 2), (1, 2), (4, 4))
"""Of curve k, here and in the style of the page; after the last they begin again."""


def write_figures(outcome: Outcome, folder: str | Path) -> list[Path]:
    """Write figure6.pdf and roc.pdf, which has a page for each cell; return the paths.

    A figure for which there are no numbers is not written. The same outcome gives the same bytes
    with the same version of matplotlib. Raises InputError if the folder cannot be written to.
    """
    cells = read_cells(outcome)
    pages = {"figure6.pdf": _figure_6(cells), "roc.pdf": _roc_pages(cells)}
    return [write(Path(folder) / name, pdf) for name, pdf in pages.items() if pdf]


def _as_pdf(figures: Sequence[Any]) -> bytes:
    """Return matplotlib figures as the pages of a PDF without a date."""
    from matplotlib.backends.backend_pdf import PdfPages

    content = io.BytesIO()
    about = {"Creator": "augkit", "Producer": None, "CreationDate": None}
    with PdfPages(content, metadata=about) as pages:
        for figure in figures:
            pages.savefig(figure)
    return content.getvalue()


def _figure_6(cells: Sequence[Cell]) -> bytes:
    chart = dot_chart(cells)
    if chart is None:
        return b""
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.5, (chart.height + 60) / 100), layout="constrained")
        axes = figure.subplots()
        names, at = [], []
        for band in chart.bands:
            axes.text(
                0.01,
                band.y,
                _drawable(band.name),
                weight="bold",
                va="center",
                transform=_left(axes),
            )
            for dot in band.dots:
                filled = "#0b5fa5" if dot.kind == "augmented" else "white"
                marker = "D" if dot.kind == "control" else "o"
                axes.plot([dot.low, dot.high], [dot.y, dot.y], color="#555555", linewidth=1)
                axes.plot([dot.x], [dot.y], marker, color="#0b5fa5", mfc=filled, markersize=5)
                names.append(_drawable(dot.name))
                at.append(dot.y)
        axes.set_yticks(at, names)
        axes.set_xticks([t.at for t in chart.ticks], [t.text for t in chart.ticks])
        axes.set_xlim(chart.left, chart.right)
        axes.set_ylim(chart.height, _TOP - 10)
        axes.set_xlabel(f"{FIGURE_6}, with its 95 % interval")
        _plain(axes)
        return _as_pdf([figure])


def _left(axes: Any) -> Any:
    """Return the coordinates of a text that begins at the left edge of the plot."""
    return axes.get_yaxis_transform()


def _roc_pages(cells: Sequence[Cell]) -> bytes:
    shown = [cell for cell in cells if roc_panels(cell)]
    if not shown:
        return b""
    with _style():
        return _as_pdf([_roc_page(cell) for cell in shown])


def _roc_page(cell: Cell) -> Any:
    """Return a matplotlib figure with a plot for each class."""
    from matplotlib.figure import Figure

    classes = [panel.title for panel in roc_panels(cell)]
    n_columns = min(3, len(classes))
    n_rows = math.ceil(len(classes) / n_columns)
    figure = Figure(figsize=(2.6 * n_columns + 0.4, 2.7 * n_rows + 0.9), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, name in zip(grid, classes, strict=False):
        for k, arm in enumerate(cell.arms):
            if name in _roc(arm):
                x, y = zip(*roc_points(_roc(arm)[name]), strict=True)
                style = {"color": COLOURS[k % len(COLOURS)], "dashes": DASHES[k % len(DASHES)]}
                axes.plot(x, y, linewidth=1.2, label=_drawable(arm["name"]), **style)
        axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        axes.set_title(_drawable(name))
        _plain(axes)
    for axes in grid[len(classes) :]:
        axes.set_visible(False)
    lines, names = _in_legend(grid)
    figure.legend(lines, names, frameon=False, loc="outside lower center", ncols=n_columns)
    figure.suptitle(_drawable(cell.name))
    return figure


def _in_legend(grid: Iterable[Any]) -> tuple[list[Any], list[str]]:
    """Return one line for each name, whichever plots it is in."""
    found: dict[str, Any] = {}
    for axes in grid:
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, line)
    return list(found.values()), list(found)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.grid(color="#e3e5e8", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _style() -> Any:
    """Return a context in which matplotlib draws alike everywhere and takes `$` for a letter."""
    import matplotlib

    ours = {"text.parse_math": False, "pdf.fonttype": 42, "font.size": 8.0}
    plain: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
    found = {k: v for k, v in plain.items() if not k.startswith("backend")}
    return matplotlib.rc_context(found | ours)


def _drawable(text: str) -> str:
    """Return a text of at most 32 letters that the font of the figures has."""
    from augkit.reports.lettering import in_usual_letters

    line = in_usual_letters(text)
    return line if len(line) <= 32 else line[:31] + "…"
