"""What an outcome says, as text: CSV, Markdown and LaTeX tables, and a paragraph on the methods.

An outcome is a dict with the keys `kind`, `version`, `command`, `created`, `environment` and
`cells`; each cell is a classifier on a data set, with what `Evaluation.to_json` gives. Keys may be
missing: files of other versions are read as well.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkit.errors import InputError
from augkit.outcome import HEADLINE
from augkit.store import Run, Snapshot
from augkit.tables import counted, one_line, typed
from augkit.verdicts import PRIMARY

Outcome = dict[str, Any]

CAPTION = (
    "In brackets: 95 % intervals over test groups, fits and partitions. Whether the intervals of "
    "two arms overlap says little of their difference, for the arms share their test images."
)


def curves_of(arm: dict[str, Any], kind: str) -> Any:
    """Return `roc`, `confusion` or `learning` of an arm; empty where an outcome has none."""
    return (arm.get("curves") or {}).get(kind) or ({} if kind == "roc" else [])


@dataclass(frozen=True)
class Cell:
    """A classifier on a data set."""

    name: str
    """What people call it; no other cell of the outcome has the same."""
    dataset: str
    classifier: str
    evaluation: dict[str, Any]
    """Empty where there is none."""
    failure: str
    """Why there is none; empty: there is one."""

    @property
    def primary(self) -> str:
        """Return the metric that the verdicts are about."""
        return self.evaluation.get("primary") or PRIMARY

    @property
    def all_arms(self) -> list[dict[str, Any]]:
        """Return the arms, with those that have no numbers."""
        return self.evaluation.get("arms") or []

    @property
    def arms(self) -> list[dict[str, Any]]:
        """Return the arms that have numbers, without those that hold the rows of another."""
        return [a for a in self.all_arms if a.get("metrics") and not a.get("same_as")]

    def compared(self, arm: str, versus: str, metric: str) -> dict[str, Any]:
        """Return an arm less `real`, or less its control (`balanced`); empty if it was not."""
        for found in self.evaluation.get("comparisons") or []:
            if (found["arm"], found["versus"], found["metric"]) == (arm, versus, metric):
                return dict(found)
        return {}


def read_cells(outcome: Outcome) -> list[Cell]:
    """Return the cells of an outcome, in its order."""
    found: list[Cell] = []
    times: Counter[str] = Counter()
    for cell in outcome.get("cells") or []:
        evaluation = cell.get("evaluation") or {}
        dataset = cell.get("dataset") or evaluation.get("store") or "unnamed data"
        classifier = cell.get("classifier") or evaluation.get("classifier") or "unnamed classifier"
        failure = "" if evaluation else cell.get("failure") or "no reason was recorded"
        name = f"{classifier} on {dataset}"
        times[name] += 1
        name += f" ({times[name]})" if times[name] > 1 else ""
        found.append(Cell(name, dataset, classifier, evaluation, failure))
    return found


def estimate(arm: dict[str, Any], metric: str) -> dict[str, Any]:
    """Return `value`, `low` and `high` of a metric of an arm; empty if it is missing or null."""
    found = (arm.get("metrics") or {}).get(metric) or {}
    return found if found.get("value") is not None else {}


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number as it is shown; empty if there is none."""
    return "" if value is None else format(value, form)


def interval(
    found: dict[str, Any], key: str = "value", *, scale: int = 1, form: str = ".3f"
) -> str:
    """Return an estimate or a difference with its interval; empty if there is none."""
    value, low, high = (found.get(name) for name in (key, "low", "high"))
    if value is None:
        return ""
    if low is None or high is None:
        return number(scale * value, form)
    return f"{scale * value:{form}} [{scale * low:{form}}, {scale * high:{form}}]"


def difference(found: dict[str, Any]) -> str:
    """Return a comparison as a signed difference with its interval; empty if there is none."""
    return interval(found, "difference", form="+.3f")


def spoken(metric: str) -> str:
    """Return the name of a metric as people read it."""
    name, _, of = metric.partition(":")
    words = _SPOKEN.get(name, name.replace("_", " "))
    return f"{words} of {of}" if of else words


_SPOKEN = {
    "auroc": "AUROC",
    "f1": "F1",
    "mcc": "MCC",
    "brier": "Brier score",
    "ece": "calibration error",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
}


def write_tables(outcome: Outcome, folder: str | Path) -> list[Path]:
    """Write metrics.csv, comparisons.csv, outcome.json, table.md and table.tex; return the paths.

    Raises InputError if the folder cannot be written to.
    """
    cells = read_cells(outcome)
    contents = {
        "metrics.csv": _csv(_METRIC_COLUMNS, _metric_rows(cells)),
        "comparisons.csv": _csv(_COMPARISON_COLUMNS, _comparison_rows(cells)),
        "outcome.json": json.dumps(outcome, indent=1) + "\n",
        "table.md": _markdown(cells),
        "table.tex": _latex(cells),
    }
    return [write(Path(folder) / name, text.encode()) for name, text in contents.items()]


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path. Raises InputError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


# -- CSV -------------------------------------------------------------------------------------------

_METRIC_COLUMNS = (
    *("dataset", "classifier", "protocol", "arm", "control", "rows"),
    *("metric", "value", "low", "high"),
)
_COMPARISON_COLUMNS = (
    *("dataset", "classifier", "arm", "versus", "control", "metric", "difference", "low", "high"),
    *("p", "p_holm", "verdict", "smallest_detectable"),
)
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""What a spreadsheet takes for a formula; the last four are the wide forms of the others."""


def _metric_rows(cells: Iterable[Cell]) -> Iterable[list[Any]]:
    for cell in cells:
        protocol = cell.evaluation.get("protocol")
        for arm in cell.all_arms:
            head = [cell.dataset, cell.classifier, protocol, arm.get("name")]
            head += [str(bool(arm.get("control"))).lower(), arm.get("rows")]
            for metric, found in (arm.get("metrics") or {}).items():
                yield [*head, metric, *((found or {}).get(k) for k in ("value", "low", "high"))]


def _comparison_rows(cells: Iterable[Cell]) -> Iterable[list[Any]]:
    for cell in cells:
        for found in cell.evaluation.get("comparisons") or []:
            yield [cell.dataset, cell.classifier, *(found.get(k) for k in _COMPARISON_COLUMNS[2:])]


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return CSV text with every digit of the numbers, and no text that is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_guarded(value) for value in row] for row in rows)
    return text.getvalue()


def _guarded(value: Any) -> Any:
    """Return a value for a spreadsheet: text that it would compute begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if _FORMULA.match(text) else text


# -- Markdown and LaTeX ----------------------------------------------------------------------------


def _metrics_shown(cells: Sequence[Cell]) -> list[str]:
    """Return the metrics of the short table: the usual ones and the primary ones."""
    return list(dict.fromkeys([*HEADLINE, *(c.primary for c in cells)]))


def _head(cells: Sequence[Cell]) -> list[str]:
    metrics = [spoken(m) for m in _metrics_shown(cells)]
    return ["arm", "images", *metrics, "difference from real", "p (Holm)", "verdict"]


def _rows(cell: Cell, metrics: Sequence[str]) -> list[list[str]]:
    rows = []
    for arm in cell.arms:
        found = cell.compared(arm["name"], "real", cell.primary)
        figures = [interval(estimate(arm, m)) for m in metrics]
        judged = [difference(found), number(found.get("p_holm")), found.get("verdict") or ""]
        rows.append([arm["name"], number(arm.get("rows"), "d"), *figures, *judged])
    return rows


def _legend(cells: Sequence[Cell]) -> str:
    primaries = " or ".join(dict.fromkeys(spoken(c.primary) for c in cells)) or spoken(PRIMARY)
    return f"{CAPTION} Differences and verdicts are about {primaries}."


def _markdown(cells: Sequence[Cell]) -> str:
    head = ["cell", *_head(cells)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for cell in cells:
        rows = _rows(cell, _metrics_shown(cells)) or [[f"failed: {cell.failure}"]]
        for row in rows:
            filled = [cell.name, *row, *[""] * (len(head) - 1 - len(row))]
            lines.append("| " + " | ".join(map(to_markdown, filled)) + " |")
    return "\n".join([*lines, "", _legend(cells), ""])


def _latex(cells: Sequence[Cell]) -> str:
    head = _head(cells)
    lines = [
        "% needs \\usepackage{booktabs}; names in letters other than Latin need LuaLaTeX",
        "\\begin{table*}",
        "\\centering\\footnotesize",
        f"\\caption{{{to_latex(_legend(cells))}}}",
        f"\\begin{{tabular}}{{lr{'l' * (len(head) - 2)}}}",
        "\\toprule",
        " & ".join(map(to_latex, head)) + " \\\\",
    ]
    for cell in cells:
        name = cell.name if cell.arms else f"{cell.name}: failed: {cell.failure}"
        lines += ["\\midrule", f"\\multicolumn{{{len(head)}}}{{l}}{{{to_latex(name)}}} \\\\"]
        for row in _rows(cell, _metrics_shown(cells)):
            figures = [text.replace("-", "$-$") for text in row[1:-1]]
            lines.append(" & ".join([to_latex(row[0]), *figures, to_latex(row[-1])]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table*}", ""])


def to_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, also within a table."""
    plain = re.sub(r"([\\`*_{}\[\]#!|$~:@^])", r"\\\1", one_line(text))
    return html.escape(plain, quote=False)


def to_latex(text: str) -> str:
    """Return text that LaTeX sets as it is, also at the beginning of a row."""
    return "".join(_LATEX.get(c, c) for c in one_line(text))


_LATEX = {
    **{c: f"\\{c}" for c in "{}$&%#_"},
    **{c: f"{{{c}}}" for c in "[]*"},  # what an end of row would take for its arguments
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    '"': "''",
    "\ufffd": "?",
}


# -- the methods -----------------------------------------------------------------------------------


def methods(outcome: Outcome, snapshot: Snapshot | None = None) -> str:
    """Return a paragraph on how the numbers came about: recorded facts, and nothing else."""
    cells = read_cells(outcome)
    parts = [_software(outcome)]
    if snapshot is not None:
        parts += [_data(snapshot), _new_images(snapshot, cells)]
    parts += [_how(cell) for cell in cells if cell.evaluation]
    parts += [_judged(cells), *_limits(cells)]
    return " ".join(one_line(part) for part in parts if part)


def _software(outcome: Outcome) -> str:
    version = outcome.get("version")
    if not version:
        return ""
    there = (outcome.get("environment") or {}).items()
    others = ", ".join(f"{name} {value}" for name, value in there if name != "augkit")
    day = str(outcome.get("created") or "")[:10]
    made = f"The evaluation was made with augkit {version}"
    return made + (f" ({others})" if others else "") + (f" on {day}" if day else "") + "."


def _data(snapshot: Snapshot) -> str:
    real = snapshot.real
    height, width, channels = snapshot.shape
    counts = snapshot.count_by_class(real.labels >= 0)
    by_class = ", ".join(f"{n} {name}" for name, n in counts.items())
    groups = counted(len(set(real.groups.tolist())), "group")
    text = (
        f"The store holds {counted(len(real.keys), 'real image')} ({by_class}) of {width}x{height} "
        f"pixels, {'grey' if channels == 1 else 'in colour'}, in {groups}."
    )
    n_out = int(real.conflict.sum())
    if n_out:
        images = counted(n_out, "image")
        text += (
            f" {images} with relatives of another class {'was' if n_out == 1 else 'were'} left out."
        )
    return text


def _new_images(snapshot: Snapshot, cells: Sequence[Cell]) -> str:
    used = {run for cell in cells for arm in cell.arms for run in arm.get("runs") or []}
    told = [_told(snapshot, run) for run in snapshot.runs.values() if run.name in used]
    if not told:
        return ""
    text = f"New images came from these runs: {'; '.join(told)}."
    made_for = {run.partition for run in snapshot.runs.values() if run.name in used}
    others = {c.evaluation.get("protocol") for c in cells if c.evaluation} - {*made_for, None}
    if others:
        text += (
            f" They are as made for {' and '.join(sorted(made_for))}; a partition that trains on "
            "other images had its own, made anew from its training part."
        )
    return text


def _told(snapshot: Snapshot, run: Run) -> str:
    """Return a run with its recipe, and the models that were fitted by it."""
    words = [f"plugin {run.plugin}", counted(run.rows, "image"), f"seed {run.recipe['seed']}"]
    words += [f"{k}={v}" for k, v in recipe_options(run.recipe).items()]
    words += [f"model {run.model[:12]}"] if run.model else []
    for other in snapshot.runs.values():
        anew = other.model and other.name != run.name and other.partition != run.partition
        if anew and all(other.recipe.get(k) == run.recipe.get(k) for k in ("plugins", "seed")):
            words.append(f"for {other.partition} model {(other.model or '')[:12]}")
    return f"{run.name} ({', '.join(words)})"


def recipe_options(recipe: dict[str, Any]) -> dict[str, str]:
    """Return the options of a run as they are typed, `PLUGIN.KEY` where there are several."""
    plugins = recipe.get("plugins") or []
    return {
        f"{p['name']}.{key}" if len(plugins) > 1 else key: typed(value)
        for p in plugins
        for key, value in (p.get("options") or {}).items()
    }


def _how(cell: Cell) -> str:
    """Return how a cell was evaluated: options, protocol, arms, what a fit was given."""
    found = cell.evaluation
    options = ", ".join(f"{k}={typed(v)}" for k, v in (found.get("options") or {}).items())
    owner = f"The classifier {cell.classifier}" + (f" ({options})" if options else "")
    known = facts(found)
    text = f"{owner} was evaluated on {cell.dataset}" + (f": {known}." if known else ".")
    if found.get("protocol") and not _is_leaky(found):
        text += " Images of one group were never divided between training, validation and test."
    names = [_filled(arm) for arm in cell.arms]
    text += f" Training images in the first partition: {'; '.join(names)}." if names else ""
    return text + _fitted(found)


def facts(found: dict[str, Any]) -> str:
    """Return protocol, seeds and test images of an evaluation, as far as they are recorded."""
    known = [found["protocol"]] if found.get("protocol") else []
    known += [counted(found["seeds"], "seed")] if found.get("seeds") else []
    if found.get("test_images"):
        groups = found.get("test_groups")
        within = f" in {counted(groups, 'group')}" if groups else ""
        known.append(counted(found["test_images"], "real test image") + within)
    return ", ".join(known)


def _is_leaky(found: dict[str, Any]) -> bool:
    warnings = found.get("warnings") or []
    return "split by image" in found["protocol"] or any(w.startswith("LEAKY") for w in warnings)


def _filled(arm: dict[str, Any]) -> str:
    """Return an arm with its number of training images, and where they come from."""
    runs = arm.get("runs") or []
    what = "real images repeated" if arm.get("control") else ", ".join(runs)
    rows = "not recorded" if arm.get("rows") is None else str(arm["rows"])
    return f"{arm['name']} {rows}" + (f" ({what})" if what else "")


def _fitted(found: dict[str, Any]) -> str:
    text = ""
    if found.get("fits"):
        where = f" on {found['device']}" if found.get("device") else ""
        text += f" This took {counted(found['fits'], 'fit')}{where}."
    if found.get("steps"):
        looks = found.get("looks")
        text += f" A fit had at most {counted(found['steps'], 'optimiser step')}"
        text += f" and {counted(looks, 'look')} at the validation part." if looks else "."
    if found.get("weights"):
        text += f" Weights at the start: {found['weights']}."
    return text


def _judged(cells: Sequence[Cell]) -> str:
    judged = [c for c in cells if c.evaluation.get("verdicts")]
    if not judged:
        return ""
    primaries = " or ".join(dict.fromkeys(spoken(c.primary) for c in judged))
    text = (
        f"The verdicts are about {primaries}, each arm held against real images alone and against "
        "its control on the same test images, with 95 % intervals over test groups, fits and "
        "partitions."
    )
    found = [f for c in judged for f in c.evaluation.get("comparisons") or []]
    if any(f.get("p_holm") is not None for f in found):
        text += " P-values are corrected by Holm's method for all arms that were judged together."
    return text


def _limits(cells: Sequence[Cell]) -> list[str]:
    """Return a sentence for everything that weakens the numbers."""
    said = []
    for cell in cells:
        found = cell.evaluation
        if cell.failure:
            said.append(f"{cell.name} failed: {cell.failure}")
        if found.get("reduced"):
            said.append(f"{cell.name} was reduced to {found['reduced']}")
        said += [f"{cell.name}: {w}" for w in found.get("warnings") or []]
        said += [f"{cell.name}: {found['caveat']}"] if found.get("caveat") else []
        said += [f"Run {run}: {note}" for run, note in (found.get("notes") or {}).items()]
        absent = [a for a in cell.all_arms if a.get("unavailable")]
        said += [f"{cell.name} has no {a['name']}: {a['unavailable']}" for a in absent]
    return [sentence.rstrip(".") + "." for sentence in dict.fromkeys(said)]
