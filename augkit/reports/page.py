"""The report as one HTML page: everything in it, nothing fetched, nothing run.

`write_page` turns an outcome, and the store if there is one, into plain lists and words, which
`page.html.j2` sets in HTML. The template escapes everything, and the page forbids scripts and
requests, so that no name in the data can do anything but be read.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from augkit.outcome import HEADLINE
from augkit.partitions import HOLDOUT
from augkit.reports import figures
from augkit.reports.exports import (
    CAPTION,
    Cell,
    Outcome,
    curves_of,
    difference,
    estimate,
    facts,
    interval,
    methods,
    number,
    read_cells,
    recipe_options,
    spoken,
    write,
)
from augkit.reports.faults import faults
from augkit.reports.paper import table_2
from augkit.reports.sheets import SheetRow, real_over_generated, strip
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import digest_of
from augkit.tables import counted, one_line, typed
from augkit.verdicts import LOWER_IS_BETTER

View = dict[str, Any]

SHEET_IMAGES = 6
"""Images of a class that a sheet shows in a row."""
SHEET_WIDTH = 192
"""Pixels of an image on a sheet, at most."""


def write_page(outcome: Outcome, snapshot: Snapshot | None, path: str | Path) -> Path:
    """Write the report as one HTML file and return its path.

    snapshot: of the store that was evaluated; None: a page without what only the store knows.
    Raises InputError if the file cannot be written.
    """
    return write(Path(path), render(outcome, snapshot).encode())


def render(outcome: Outcome, snapshot: Snapshot | None) -> str:
    """Return the page."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["signed"] = _signed
    return environment.get_template("page.html.j2").render(_page(outcome, snapshot))


def _visible(value: Any) -> Any:
    """Return a text that comes from data with its control characters made visible."""
    return one_line(value) if type(value) is str else value


def _signed(text: str) -> str:
    """Return a text whose negative numbers have a minus sign; other hyphens stay."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def _page(outcome: Outcome, snapshot: Snapshot | None) -> View:
    """Return everything that the template asks for."""
    cells = read_cells(outcome)
    return {
        "headline": headline(cells),
        "tally": _tally(cells),
        "created": str(outcome.get("created") or "")[:10],
        "cells": [_cell(cell) for cell in cells],
        "caption": CAPTION,
        "compared": _compared(cells),
        "primaries": " or ".join(dict.fromkeys(spoken(c.primary) for c in cells)),
        "lower_is_better": any(c.primary in LOWER_IS_BETTER for c in cells),
        "table_2": table_2(cells),
        "chart": figures.dot_chart(cells),
        "chart_metric": figures.FIGURE_6,
        "accuracies": _accuracies(cells),
        "sheets": _sheets(snapshot, cells) if snapshot else [],
        "trainings": _trainings(snapshot) if snapshot else [],
        "faults": faults(snapshot) if snapshot else [],
        "methods": methods(outcome, snapshot),
        "command": outcome.get("command") or "",
        "versions": _versions(outcome),
        "store": _store(snapshot) if snapshot else None,
    }


# -- the verdicts ----------------------------------------------------------------------------------


def headline(cells: Sequence[Cell]) -> str:
    """Return the answer in one line: how many arms help."""
    words = _words(cells)
    n, helps = len(words), words.count("helps")
    if not any(words):
        return "No verdict" if cells else "Nothing was evaluated"
    arms = counted(n, "arm")
    if helps:
        return f"{helps} of {arms} {'helps' if helps == 1 else 'help'}"
    return f"None of {arms} is shown to help" if n > 1 else "The arm is not shown to help"


def _words(cells: Sequence[Cell]) -> list[str | None]:
    return [v.get("word") for cell in cells for v in cell.evaluation.get("verdicts") or []]


def _tally(cells: Sequence[Cell]) -> list[str]:
    """Return how often each verdict was given, and what gave none."""
    words = Counter(_words(cells))
    absent = sum(bool(a.get("unavailable")) for cell in cells for a in cell.all_arms)
    failed = sum(bool(cell.failure) for cell in cells)
    told = [f"{words[word]} {word}" for word in ("helps", "hurts", "cannot tell") if words[word]]
    told += [f"{words[None]} without a verdict"] if words[None] else []
    told += [f"{absent} not available"] if absent else []
    return [*told, *([f"{counted(failed, 'evaluation')} failed"] if failed else [])]


_SIGNS = {"helps": "+", "hurts": "\N{MINUS SIGN}", "cannot tell": "?"}


def _cell(cell: Cell) -> View:
    """Return what is said of one cell."""
    found = cell.evaluation
    arms = [{"name": arm["name"], "number": k} for k, arm in enumerate(cell.arms)]
    panels = figures.roc_panels(cell)
    return {
        "name": cell.name,
        "facts": facts(found),
        "weights": found.get("weights") or "",
        "failure": cell.failure,
        "verdicts": [*_verdicts(cell), *_absent(cell)],
        "marks": _marks(found),
        "notes": _notes(cell),
        "arms": arms,
        "roc": panels,
        "roc_table": _roc_table(cell, [panel.title for panel in panels]),
        "learning": _learning(cell),
        "confusions": _confusions(cell),
        "metrics": _metrics(cell),
        "differences": _differences(cell),
        "options": {k: typed(v) for k, v in (found.get("options") or {}).items()},
    }


def _verdicts(cell: Cell) -> list[View]:
    runs = {arm["name"]: arm.get("runs") or [] for arm in cell.all_arms}
    notes = cell.evaluation.get("notes") or {}
    lines = []
    for verdict in cell.evaluation.get("verdicts") or []:
        word, arm = verdict.get("word"), verdict["arm"]
        lines.append(
            {
                "arm": arm,
                "word": word or "no verdict",
                "sign": _SIGNS.get(word or "", "\N{EN DASH}"),
                "sentence": _without_prefix(verdict.get("sentence") or "", arm),
                "marks": _weak(notes[r] for r in runs.get(arm, []) if r in notes),
            }
        )
    return lines


def _without_prefix(sentence: str, arm: str) -> str:
    """Return a sentence without its beginning, which repeats the word and the name of the arm."""
    for prefix in (f"cannot tell whether {arm} helps", f"{arm} helps", f"{arm} hurts"):
        sentence = sentence.removeprefix(f"{prefix}: ")
    return sentence.removeprefix(f"no verdict on {arm}: ")


def _weak(notes: Iterator[str]) -> list[str]:
    """Return what models say of themselves, in one word each: prototype, undertrained."""
    text = "; ".join(notes)
    return [word for word in ("prototype", "undertrained") if word in text]


def _absent(cell: Cell) -> list[View]:
    return [
        {
            "arm": arm["name"],
            "word": "not available",
            "sign": "\N{EN DASH}",
            "sentence": arm["unavailable"],
            "marks": [],
        }
        for arm in cell.all_arms
        if arm.get("unavailable")
    ]


def _marks(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what weakens all numbers of a cell: a word and a sentence each."""
    marks = []
    for warning in found.get("warnings") or []:
        word, colon, rest = warning.partition(": ")
        leaky = bool(colon) and word == "LEAKY"
        marks.append(("leaky", rest) if leaky else ("weak protocol", warning))
    if found.get("reduced"):
        marks.append(("reduced", f"cut, in all arms alike, to {found['reduced']}"))
    return marks + ([("caveat", found["caveat"])] if found.get("caveat") else [])


def _notes(cell: Cell) -> list[str]:
    found = cell.evaluation
    twins = [a for a in cell.all_arms if a.get("same_as") and not a.get("control")]
    told = [f"{arm['name']} is the same as {arm['same_as']}" for arm in twins]
    told += [f"run {run}: {note}" for run, note in (found.get("notes") or {}).items()]
    return told + [
        f"run {old} is left out: {new} is the same recipe, newer"
        for old, new in (found.get("superseded") or {}).items()
    ]


# -- comparisons -----------------------------------------------------------------------------------

_FOREST = 140
"""Pixels, the width of the drawing of a difference."""


def _compared(cells: Sequence[Cell]) -> View | None:
    """Return the comparisons in the primary metric, all on one scale; None without any."""
    rows = [(cell, arm, _pair(cell, arm["name"])) for cell in cells for arm in cell.arms]
    rows = [row for row in rows if row[2][0]]
    ends = [abs(f[k]) for *_, pair in rows for f in pair for k in _ENDS if f.get(k) is not None]
    if not rows:
        return None
    marks = figures.ticks(-max(ends, default=0.1), max(ends, default=0.1), 4)
    reach = marks[-1]
    groups: dict[str, list[View]] = {}
    for cell, arm, pair in rows:
        groups.setdefault(cell.name, []).append(_compared_row(arm["name"], pair, reach))
    middle = _FOREST / 2
    return {"groups": groups, "width": _FOREST, "middle": middle, "reach": f"{reach:g}"}


_ENDS = ("difference", "low", "high")


def _pair(cell: Cell, arm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an arm less `real` and less its control, in the primary metric."""
    return (
        cell.compared(arm, "real", cell.primary),
        cell.compared(arm, "balanced", cell.primary),
    )


def _compared_row(arm: str, pair: tuple[dict[str, Any], dict[str, Any]], reach: float) -> View:
    real, control = pair
    word = real.get("verdict")
    return {
        "arm": arm,
        "real": difference(real),
        "drawn": _drawn(real, reach),
        "control": control.get("control") or "",
        "beyond": difference(control) if control.get("control") != "real" else "",
        "detectable": number(real.get("smallest_detectable")),
        "p": number(real.get("p_holm")),
        "word": word or "no verdict",
        "sign": _SIGNS.get(word or "", "\N{EN DASH}"),
    }


def _drawn(found: dict[str, Any], reach: float) -> dict[str, float] | None:
    """Return in pixels where a difference and its interval lie; None without an interval."""
    if any(found.get(k) is None for k in _ENDS):
        return None
    scale = (_FOREST / 2 - 4) / reach
    return {k: round(_FOREST / 2 + scale * found[k], 1) for k in _ENDS}


# -- each arm --------------------------------------------------------------------------------------


def _accuracies(cells: Sequence[Cell]) -> View:
    """Return the usual metrics of every arm: what Figure 6 says, in words."""
    metrics = list(dict.fromkeys([*HEADLINE, *(c.primary for c in cells)]))
    groups = {
        cell.name: [
            {
                "arm": arm["name"],
                "control": bool(arm.get("control")),
                "rows": number(arm.get("rows"), "d"),
                "values": [interval(estimate(arm, m)) for m in metrics],
            }
            for arm in cell.arms
        ]
        for cell in cells
        if cell.arms
    }
    return {"metrics": [spoken(m) for m in metrics], "groups": groups}


# -- each cell in detail ---------------------------------------------------------------------------

_RATES = (0.05, 0.1, 0.2, 0.5)


def _roc_table(cell: Cell, classes: Sequence[str]) -> View:
    """Return true positive rates at some false positive rates: what the curves say, in words."""
    rows = []
    for name in classes:
        for arm in cell.arms:
            rates = curves_of(arm, "roc").get(name) or []
            if len(rates) > 1:
                grid = np.linspace(0, 1, len(rates))
                values = [f"{np.interp(rate, grid, rates):.2f}" for rate in _RATES]
                rows.append({"class": name, "arm": arm["name"], "values": values})
    return {"rates": [f"{rate:g}" for rate in _RATES], "rows": rows}


_LOSSES = {"validation_loss": "validation part", "train_loss": "training batches"}


def _learning(cell: Cell) -> View | None:
    """Return the learning curves of the arms, and where each was best; None without any."""
    looks = {
        k: found for k, arm in enumerate(cell.arms) if len(found := curves_of(arm, "learning")) > 1
    }
    if not looks:
        return None
    panels = []
    for loss, title in _LOSSES.items():
        lines = [
            (cell.arms[k]["name"], k, [(look["step"], look[loss]) for look in found])
            for k, found in looks.items()
        ]
        panels.append(figures.line_panel(title, lines))
    best = {k: min(found, key=lambda x: x["validation_loss"]) for k, found in looks.items()}
    rows = [
        {
            "arm": cell.arms[k]["name"],
            "step": best[k]["step"],
            "values": [f"{v:.3f}" for v in (best[k][loss] for loss in _LOSSES)]
            + [f"{v:.3f}" for v in (found[-1][loss] for loss in _LOSSES)],
        }
        for k, found in looks.items()
    ]
    return {"panels": panels, "rows": rows}


def _confusions(cell: Cell) -> list[View]:
    """Return the confusion matrix of each arm: rows of (count, share of the row)."""
    classes = cell.evaluation.get("classes") or []
    found = []
    for arm in cell.arms:
        matrix = curves_of(arm, "confusion")
        if len(matrix) == len(classes) and matrix:
            rows = [
                (name, [(f"{n:g}" if n % 1 == 0 else f"{n:.1f}", _share(n, row)) for n in row])
                for name, row in zip(classes, matrix, strict=True)
            ]
            found.append({"arm": arm["name"], "classes": classes, "rows": rows})
    return found


def _share(n: float, row: Sequence[float]) -> int | None:
    """Return n in % of its row; None for an empty row."""
    return round(100 * n / sum(row)) if sum(row) else None


def _metrics(cell: Cell) -> View:
    """Return every metric of every arm with its interval."""
    names = dict.fromkeys(name for arm in cell.arms for name in arm["metrics"])
    return {
        "arms": [arm["name"] for arm in cell.arms],
        "rows": [(spoken(m), [interval(estimate(arm, m)) for arm in cell.arms]) for m in names],
    }


def _differences(cell: Cell) -> View:
    """Return the differences from `real` in every metric but the primary one."""
    found = [f for f in cell.evaluation.get("comparisons") or [] if f["versus"] == "real"]
    arms = list(dict.fromkeys(f["arm"] for f in found))
    names = dict.fromkeys(f["metric"] for f in found if f["metric"] != cell.primary)
    rows = [(spoken(m), [difference(cell.compared(a, "real", m)) for a in arms]) for m in names]
    return {"arms": arms, "rows": rows}


# -- generated images ------------------------------------------------------------------------------


def _sheets(snapshot: Snapshot, cells: Sequence[Cell]) -> list[View]:
    """Return for each class a strip of real images and one of each generative run."""
    used = {run for cell in cells for arm in cell.all_arms for run in arm.get("runs") or []}
    generative = [r.name for r in snapshot.runs.values() if r.family == "generative"]
    shown = [n for n in generative if snapshot.run(n).partition == HOLDOUT.name or n in used]
    if not shown:
        return []
    blocks = real_over_generated(snapshot, shown, n=SHEET_IMAGES)
    return [
        {"class": name, "strips": [s for row in rows if (s := _strip(row, name, snapshot))]}
        for name, rows in blocks.items()
    ]


def _strip(row: SheetRow, of_class: str, snapshot: Snapshot) -> View | None:
    drawn = strip(row, SHEET_WIDTH)
    if drawn is None:
        return None
    n = sum(image is not None for image in row.images)
    run = snapshot.runs.get(row.name)
    note = snapshot.models[run.model].note if run and run.model in snapshot.models else ""
    what = f"made by run {row.name}" if run else "real"
    return {
        "what": what,
        "note": note,
        "uri": _data_uri(drawn),
        "width": drawn.width,
        "height": drawn.height,
        "alt": f"{counted(n, 'image')} of class {of_class}, {what}",
    }


def _data_uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")


# -- trainings of generators -----------------------------------------------------------------------

_CURVE_POINTS = 300


def _trainings(snapshot: Snapshot) -> list[View]:
    """Return the learning curves that trainings left in the store's side folder."""
    folder = DatasetStore.open(snapshot.path).side_folder("training")
    models = {digest_of(m.recipe)[:16]: m for m in snapshot.models.values()}
    found = []
    for path in sorted(folder.glob("*/log.jsonl")):
        curves = _learning_curves(path)
        if not curves:
            continue
        model = models.get(path.parent.name)
        name = (
            f"{model.plugin}, model {model.name[:12]}" if model else f"training {path.parent.name}"
        )
        lines = [(label, k, points) for k, (label, points) in enumerate(curves.items())]
        last = [
            (label, f"{points[-1][0]:g}", f"{points[-1][1]:.3g}")
            for label, points in curves.items()
        ]
        found.append(
            {
                "name": name,
                "partition": model.partition if model else "",
                "note": model.note if model else "",
                "panel": figures.line_panel(name, lines),
                "last": last,
            }
        )
    return found


def _learning_curves(path: Path) -> dict[str, list[figures.Point]]:
    """Return (step, Wasserstein estimate) by class; lines that cannot be read are left out."""
    curves: dict[str, list[figures.Point]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            found = json.loads(line)
            point = (float(found["step"]), float(found["wasserstein"]))
            label = str(found["class"])
        except (ValueError, KeyError, TypeError):
            continue
        if all(map(math.isfinite, point)):
            curves.setdefault(label, []).append(point)
    return {k: p[:: math.ceil(len(p) / _CURVE_POINTS)] for k, p in curves.items() if len(p) > 1}


# -- what was run ----------------------------------------------------------------------------------


def _versions(outcome: Outcome) -> dict[str, str]:
    found = {"augkit": outcome.get("version") or ""} | (outcome.get("environment") or {})
    return {name: str(value) for name, value in found.items() if value}


def _store(snapshot: Snapshot) -> View:
    """Return runs and models with their hashes, as the store has them now."""
    return {
        "path": snapshot.path,
        "commits": snapshot.number,
        "digest": snapshot.entries[-1].get("digest") or "" if snapshot.entries else "",
        "runs": [
            {
                "name": run.name,
                "plugin": run.plugin,
                "rows": run.rows,
                "seed": run.recipe.get("seed", ""),
                "options": " ".join(f"{k}={v}" for k, v in recipe_options(run.recipe).items()),
                "partition": run.partition,
                "model": (run.model or "")[:12],
            }
            for run in snapshot.runs.values()
        ],
        "models": [
            {
                "name": model.name,
                "plugin": model.plugin,
                "partition": model.partition,
                "fitted_on": len(model.fitted_on),
                "state": "complete" if model.complete else "partial",
                "note": model.note,
            }
            for model in snapshot.models.values()
        ],
    }
