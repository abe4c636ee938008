"""The outcome of `evaluate`: arms with their metrics, as text, JSON and a pandas frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augkit.budgeting import LIMIT, in_words
from augkit.tables import counted, table

HEADLINE = ("accuracy", "balanced_accuracy", "auroc")


@dataclass(frozen=True)
class Estimate:
    """A metric of an arm with its 95 % interval, which covers test groups and fits."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "cannot be computed"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


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
        return json.dumps(_finite({**asdict(self), "comparisons": []}))

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
        lines = [head, *self._how(), "", self._table(HEADLINE), "", self._by_class(), "", _CAPTION]
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

    def _table(self, names: Sequence[str]) -> str:
        rows = [[a.name, a.rows, *(a.metrics[n] for n in names)] for a in self._distinct()]
        return table(["arm", "training images", *(n.replace("_", " ") for n in names)], rows)

    def _by_class(self) -> str:
        rows = []
        for arm in self._distinct():
            for name in self.classes:
                found = [arm.metrics[f"{m}:{name}"] for m in ("sensitivity", "specificity")]
                rows.append([arm.name, name, *found])
        return table(["arm", "class", "sensitivity", "specificity"], rows)


_CAPTION = (
    "In brackets: 95 % intervals over test groups and fits. Whether the intervals of two arms "
    "overlap says\nlittle of their difference, for the arms share their test images. "
    "No verdict is given."
)


def _finite(value: Any) -> Any:
    """Return JSON values with null in place of NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
