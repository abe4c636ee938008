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
from augkit.report import figures
from augkit.report.exports import (
    CAPTION,
    Cell,
    Outcome,
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
from augkit.report.sheets import SheetRow, real_over_generated, strip
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import digest_of
from augkit.summary import summarise
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
        "table_2": _table_2(cells),
        "chart": figures.dot_chart(cells),
        "chart_metric": figures.FIGURE_6,
        "accuracies": _accuracies(cells),
        "sheets": _sheets(snapshot, cells) if snapshot else [],
        "trainings": _trainings(snapshot) if snapshot else [],
        "faults": _faults(snapshot) if snapshot else [],
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


# -- beside the paper ------------------------------------------------------------------------------

FORMS = {"real": "none", "traditional": "traditional", "dagan": "DAGAN", "all": "both"}
"""Our arms, and what the paper calls them."""

NETWORKS = {
    "alexnet": "AlexNet",
    "vgg16": "VGG16",
    "inception": "Inception",
    "resnet": "ResNet",
    "nasnet": "NASNet",
}

TABLE_2: dict[tuple[str, str], tuple[int | str, ...]] = {
    ("BUSI", "AlexNet"): (58, 62, 73, 78),
    ("BUSI", "VGG16"): (70, 74, 84, 88),
    ("BUSI", "Inception"): (68, 73, 82, 85),
    ("BUSI", "ResNet"): (79, 82, 89, 93),
    ("BUSI", "NASNet"): (83, 85, 91, 94),
    ("B", "AlexNet"): ("over-fitting", 56, 75, 80),
    ("B", "VGG16"): (68, 72, 80, 82),
    ("B", "Inception"): (65, 70, 77, 80),
    ("B", "ResNet"): (75, 79, 86, 90),
    ("B", "NASNet"): (79, 82, 90, 92),
    ("BUSI + B", "AlexNet"): (60, 65, 82, 84),
    ("BUSI + B", "VGG16"): (72, 75, 86, 88),
    ("BUSI + B", "Inception"): (70, 73, 84, 87),
    ("BUSI + B", "ResNet"): (76, 79, 88, 92),
    ("BUSI + B", "NASNet"): (84, 88, 96, 99),
}
"""Accuracy in %, in the order of `FORMS`: Al-Dhabyani et al. 2019, Table II."""


def site_of(dataset: str) -> str | None:
    """Return which of the paper's data sets a name means, or None.

    BrEaST stands for the paper's second site, data set B (UDIAT), which may not be redistributed.
    """
    name = dataset.lower().strip()
    sites = {_one_site(part.strip()) for part in re.split(r"\+|,| and ", name)}
    if name == "both" or sites == {"BUSI", "B"}:
        return "BUSI + B"
    return sites.pop() if len(sites) == 1 else None


def _one_site(name: str) -> str | None:
    if "busi" in name:
        return "BUSI"
    second = name in ("b", "second site", "breast")
    return "B" if second or "udiat" in name or "breast-lesions" in name else None


def _table_2(cells: Sequence[Cell]) -> list[View]:
    """Return the rows of Table II with a data set or network of ours, ours below them.

    Empty where nothing of the paper was evaluated here.
    """
    ours: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.arms:
            network = NETWORKS.get(cell.classifier, cell.classifier)
            ours.setdefault((site_of(cell.dataset) or cell.dataset, network), []).append(cell)
    there = {site for site, _ in TABLE_2}
    sites = {site for site, _ in ours}
    networks = {network for site, network in ours if site not in there}
    wanted = [key for key in TABLE_2 if key[0] in sites or key[1] in networks]
    more = [key for key in ours if key not in TABLE_2]
    return [_beside(key, ours.get(key, [])) for key in [*wanted, *more]] if wanted else []


def _beside(key: tuple[str, str], cells: Sequence[Cell]) -> View:
    """Return what the paper and we have of a network on a data set."""
    lines = [("paper", [str(value) for value in TABLE_2[key]])] if key in TABLE_2 else []
    lines += [(_source(cell, key[0]), [_percent(cell, arm) for arm in FORMS]) for cell in cells]
    return {"site": key[0], "network": key[1], "lines": lines}


def _source(cell: Cell, site: str) -> str:
    """Return `here`, with our name of the data set where it is another than the paper's."""
    return "here" if cell.dataset == site else f"here: {cell.dataset}"


def _percent(cell: Cell, arm: str) -> str:
    found = next((a for a in cell.all_arms if a["name"] == arm), {})
    return interval(estimate(found, "accuracy"), scale=100, form=".1f")


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
            rates = ((arm.get("curves") or {}).get("roc") or {}).get(name) or []
            if len(rates) > 1:
                grid = np.linspace(0, 1, len(rates))
                values = [f"{np.interp(rate, grid, rates):.2f}" for rate in _RATES]
                rows.append({"class": name, "arm": arm["name"], "values": values})
    return {"rates": [f"{rate:g}" for rate in _RATES], "rows": rows}


def _confusions(cell: Cell) -> list[View]:
    """Return the confusion matrix of each arm: rows of (count, share of the row)."""
    classes = cell.evaluation.get("classes") or []
    found = []
    for arm in cell.arms:
        matrix = (arm.get("curves") or {}).get("confusion") or []
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


# -- the data --------------------------------------------------------------------------------------


def _faults(snapshot: Snapshot) -> list[View]:
    """Return what is weak about the data themselves: what, how much, what it means."""
    values = summarise(snapshot).values
    real = values["real"]
    if not real["rows"]:
        return []
    return [
        *_faults_of_groups(snapshot, real),
        *_faults_of_classes(snapshot, real),
        _detectable(real),
        *_faults_of_runs(values["runs"]),
    ]


def _fault(what: str, found: str, meaning: str) -> View:
    return {"what": what, "found": found, "meaning": meaning}


def _faults_of_groups(snapshot: Snapshot, real: dict[str, Any]) -> list[View]:
    sizes = np.bincount(snapshot.real.groups)
    several = int((sizes > 1).sum())
    together = int(sizes[sizes > 1].sum())
    found = "none"
    if several:
        found = f"{together} images in {counted(several, 'group')}, at most {sizes.max()} in one"
    n_out = len(real["conflicts"])
    return [
        _fault(
            "near-duplicates and relatives",
            found,
            "kept in one part; the sample is the groups, not the images",
        ),
        _fault(
            "relatives of different classes",
            f"{counted(n_out, 'image')} left out" if n_out else "none",
            "either a label is wrong or the images cannot be told apart",
        ),
    ]


def _faults_of_classes(snapshot: Snapshot, real: dict[str, Any]) -> list[View]:
    counts = {name: n for name, n in real["by_class"].items() if n}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / counts[least]
    balance = f"{counts[most]} {most} to {counts[least]} {least}: {ratio:.1f} to 1"
    parts, labels, groups = snapshot.parts(HOLDOUT), snapshot.real.labels, snapshot.real.groups
    tested = {
        name: len(np.unique(groups[(parts == 2) & (labels == k)]))
        for k, name in enumerate(snapshot.classes)
    }
    fewest = min(tested, key=tested.__getitem__)
    weight = f"{100 / tested[fewest]:.0f} points" if tested[fewest] else "all"
    return [
        _fault(
            "imbalance of the classes",
            balance if ratio > 1 else f"none: {counts[most]} of each",
            "accuracy favours the larger class; balanced accuracy does not",
        ),
        _fault(
            f"fewest test groups of a class, {HOLDOUT.name}",
            f"{tested[fewest]} {fewest}",
            f"one group moves the sensitivity of its class by {weight}; folds test every group",
        ),
    ]


def _detectable(real: dict[str, Any]) -> View:
    told = [
        f"{100 * low:.1f} to {100 * high:.1f} points with {name}"
        for name, (low, high) in real["smallest_detectable"].items()
        if high < 1
    ]
    return _fault(
        "smallest difference in balanced accuracy that can be expected to show",
        ", ".join(reversed(told)) or "none",
        "for arms that disagree on 4 % and on 15 % of the images; what is smaller stays unseen",
    )


def _faults_of_runs(runs: Sequence[dict[str, Any]]) -> list[View]:
    stale = [r["name"] for r in runs if r["stale"]]
    checked = [r for r in runs if r["copies"] is not None]
    found = []
    if stale:
        meaning = "some rows derive from images that are no longer trained on: augment again"
        found.append(_fault("stale runs", ", ".join(stale), meaning))
    if checked:
        copies = ", ".join(f"{r['copies']} of {r['rows']} in {r['name']}" for r in checked)
        meaning = "a generator that repeats its training images adds nothing"
        found.append(_fault("generated images that look like copies", copies, meaning))
    return found


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
