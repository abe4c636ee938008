"""The outcome of `evaluate`: arms with their metrics, as text, JSON and a pandas frame."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from augkit.budgeting import LIMIT, in_words
from augkit.scoring import Curves, Estimate
from augkit.tables import counted, table
from augkit.verdicts import PRIMARY, Comparison, Verdict

HEADLINE = ("accuracy", "balanced_accuracy", "auroc")


@dataclass(frozen=True)
class Arm:
    """One way to fill the training part, and how well the classifier then did."""

    name: str
    runs: tuple[str, ...]
    rows: int
    """Training rows in the first partition."""
    metrics: dict[str, Estimate]
    steps: int | None = None
    """Most optimiser steps of a fit in the first partition; None: until convergence."""
    same_as: str | None = None
    """Another arm of exactly the same rows."""
    unavailable: str | None = None
    """Why this arm has no numbers under this protocol."""
    control: bool = False
    """Real images repeated: what other arms are held against."""
    over_fitting: bool = False
    """Under the paper's protocol: no more accurate than always naming the most frequent class."""
    curves: Curves | None = None
    by_dataset: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    """The metrics on the test images of each data set, where there are several."""


@dataclass(frozen=True)
class Evaluation:
    """The outcome of `evaluate`."""

    store: str
    classifier: str
    options: dict[str, Any]
    protocol: str
    seeds: int
    classes: tuple[str, ...]
    test_images: int
    test_groups: int
    arms: tuple[Arm, ...]
    fits: int
    computed: int
    """Fits that this call computed; the others were there already."""
    superseded: dict[str, str]
    """Runs that arms of several runs leave out, each with the newer one that replaces it."""
    notes: dict[str, str]
    """What to know of runs: prototypes, models that have not learned their classes."""
    primary: str = PRIMARY
    """The metric that the verdicts are about."""
    positive: str | None = None
    """A class whose sensitivity and specificity stand in the first table."""
    comparisons: tuple[Comparison, ...] = ()
    """Of each augmented arm with `real` and with its control, in every metric."""
    verdicts: tuple[Verdict, ...] = ()
    warnings: tuple[str, ...] = ()
    """What is weak about the protocol."""
    device: str = "cpu"
    steps: int | None = None
    """Most optimiser steps of a fit; None: until convergence."""
    looks: int | None = None
    """How often a fit looks at the validation part."""
    weights: str | None = None
    """Which weights a network starts from."""
    reduced: str | None = None
    """What was cut, in all arms alike, to fit into the time that a CPU gets; None: nothing."""
    caveat: str = ""
    """What the classifier wants every reader to know."""

    def to_json(self) -> str:
        """Return the keys of --json; see docs/json.md."""
        return json.dumps(_finite(asdict(self)))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each arm and metric (needs pandas)."""
        import pandas as pd

        rows = [
            {"arm": arm.name, "rows": arm.rows, "metric": name, **asdict(estimate)}
            for arm in self.arms
            for name, estimate in arm.metrics.items()
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        head = (
            f"{self.classifier} on {self.store}: {self.protocol}, "
            f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}, "
            f"{self.test_images} real test images in {self.test_groups} groups"
        )
        lines = [head, *self._how(), *(f"WARNING: {w}" for w in self.warnings), ""]
        lines += [self._table(), "", self._by_class(), ""]
        if any(arm.by_dataset for arm in self.arms):
            lines += [self._by_dataset(), ""]
        lines += [_CAPTION, ""]
        if self.verdicts:
            lines += [self._compared(), "", *(v.sentence for v in self.verdicts), ""]
        elif not any(arm.runs for arm in self.arms):
            lines.append(_NOTHING_TO_COMPARE)
        lines += [f"note: {a.name} is the same as {a.same_as}" for a in self.arms if a.same_as]
        lines += [f"note: {a.name}: {a.unavailable}" for a in self.arms if a.unavailable]
        lines += [
            f"note: run {old!r} is left out: {new!r} is the same recipe on the images, or by the "
            "model, of today"
            for old, new in self.superseded.items()
        ]
        lines += [f"note: run {run!r}: {note}" for run, note in self.notes.items()]
        return "\n".join(lines)

    def _how(self) -> list[str]:
        """Return what decides how the numbers are to be read: weights, budget, reductions."""
        lines = [f"weights: {self.weights}"] if self.weights else []
        if self.steps is not None:
            fewest = min((arm.steps for arm in self.arms if arm.steps), default=self.steps)
            steps = counted(self.steps, "optimiser step")
            lines.append(
                f"each fit: at most {f'{fewest} to {steps}' if fewest < self.steps else steps} and "
                f"{counted(self.looks or 0, 'look')} at the validation part, the best look kept; "
                f"on {self.device}"
            )
        if self.reduced:
            lines.append(f"REDUCED to fit into {in_words(LIMIT)}: {self.reduced}; --full does all")
        return [*lines, *([f"NOTE: {self.caveat}"] if self.caveat else [])]

    def _distinct(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.metrics and arm.same_as is None]

    def _table(self) -> str:
        names = [*HEADLINE]
        names += [self.primary] if self.primary not in names else []
        if self.positive:
            names += [f"{m}:{self.positive}" for m in ("sensitivity", "specificity")]
        rows = [[a.name, a.rows, *(_cell(a, n) for n in names)] for a in self._distinct()]
        titles = (n.replace("_", " ").replace(":", " ") for n in names)
        return table(["arm", "training images", *titles], rows)

    def _compared(self) -> str:
        """Return the comparisons in the primary metric, a line an arm."""
        decisive = [c for c in self.comparisons if c.metric == self.primary]
        rows = []
        for real, balanced in zip(decisive[::2], decisive[1::2], strict=True):
            same = "is real" if balanced.control == "real" else _difference(balanced)
            p = "" if real.p_holm is None else f"{real.p_holm:.3f}"
            reach = _number(real.smallest_detectable)
            rows.append([real.arm, _difference(real), same, reach, p, real.verdict or "no verdict"])
        metric = self.primary.replace("_", " ")
        head = [
            f"{metric} less that of",
            "real",
            "its control",
            "detectable",
            "p (Holm)",
            "verdict",
        ]
        return table(head, rows)

    def _by_dataset(self) -> str:
        rows = [
            [arm.name, dataset, *(found[name] for name in HEADLINE)]
            for arm in self._distinct()
            for dataset, found in arm.by_dataset.items()
        ]
        return table(["arm", "data set", *(n.replace("_", " ") for n in HEADLINE)], rows)

    def _by_class(self) -> str:
        rows = []
        for arm in self._distinct():
            for name in self.classes:
                found = [arm.metrics[f"{m}:{name}"] for m in ("sensitivity", "specificity")]
                rows.append([arm.name, name, *found])
        return table(["arm", "class", "sensitivity", "specificity"], rows)


_CAPTION = (
    "In brackets: 95 % intervals over test groups, fits and, where there are several, partitions. "
    "Whether\nthe intervals of two arms overlap says little of their difference, for they share "
    "their test images."
)

_NOTHING_TO_COMPARE = (
    "no verdict: real images alone were evaluated. augkit augment --plugin flip makes an arm to "
    "compare them with; without --arms, every arm takes part"
)


def _cell(arm: Arm, name: str) -> str:
    """Return a metric as the table shows it; the paper prints a word for what learned nothing."""
    marked = " over-fitting" if arm.over_fitting and name == "accuracy" else ""
    return f"{arm.metrics[name]}{marked}"


def _difference(found: Comparison) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.3f}"


def _finite(value: Any) -> Any:
    """Return JSON values with null in place of NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
