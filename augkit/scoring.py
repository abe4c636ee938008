"""From probabilities to metrics: each round of folds is scored, then the rounds are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augkit.metrics import Score, score
from augkit.outcome import Estimate
from augkit.partitions import Protocol
from augkit.stats import effective_groups, interval, mean_of_fits, standard_error
from augkit.store import Snapshot

_BOUNDS = {"mcc": (-1.0, 1.0)}


@dataclass(frozen=True)
class Fit:
    """The outcome of one fit."""

    partition: int
    """Its number in the protocol."""
    seed: int
    probabilities: np.ndarray
    """float32 (N, classes), of the test images."""


def metrics_of(fits: Sequence[Fit], snapshot: Snapshot, plan: Protocol) -> dict[str, Estimate]:
    """Return each metric: per seed and repeat over its folds, then averaged."""
    rounds: dict[tuple[int, int], list[Fit]] = {}
    repeats = len({p.name.partition(", repeat ")[2] for p in plan.partitions})
    per_repeat = max(1, len(plan.partitions) // repeats)
    for fit in fits:
        rounds.setdefault((fit.partition // per_repeat, fit.seed), []).append(fit)
    scores = [_score(together, snapshot, plan) for together in rounds.values()]
    groups = snapshot.real.groups
    return {
        name: _estimate([s[name] for s in scores], groups, _BOUNDS.get(name, (0.0, 1.0)))
        for name in scores[0]
    }


def _score(fits: Sequence[Fit], snapshot: Snapshot, plan: Protocol) -> dict[str, Score]:
    """Return the metrics of one round of folds, as scores over all real rows."""
    parts = [snapshot.parts(plan.partitions[fit.partition]) for fit in fits]
    tested = [np.flatnonzero(part == 2) for part in parts]
    index = np.concatenate(tested)
    scored = score(
        snapshot.real.labels[index],
        np.concatenate([fit.probabilities for fit in fits]),
        snapshot.classes,
        fits=np.repeat([fit.partition for fit in fits], [len(rows) for rows in tested]),
    )
    n = len(snapshot.real.keys)
    return {name: _spread(found, index, n) for name, found in scored.items()}


def _spread(found: Score, index: np.ndarray, n: int) -> Score:
    """Return a score of the tested rows as one of all n rows; the others do not move it."""
    influence, weight = np.zeros(n), np.zeros(n)
    influence[index], weight[index] = found.influence, found.weight
    return Score(found.value, influence, weight)


def _estimate(scores: Sequence[Score], groups: np.ndarray, bounds: tuple[float, float]) -> Estimate:
    """Return the mean of the rounds (seeds, repeats) with its interval over groups and fits."""
    weight = np.mean([s.weight for s in scores], axis=0)
    used = weight > 0
    influences = np.stack([s.influence[used] for s in scores])
    values = [s.value for s in scores]
    if np.isnan(values).any() or not used.any():
        return Estimate(float("nan"), float("nan"), float("nan"))
    mean = mean_of_fits(values, influences, groups[used])
    error = standard_error(mean.influence, groups[used])
    n_groups = effective_groups(weight[used], groups[used])
    low, high = interval(
        mean.value, error, n_groups=n_groups, fits=mean.fit_variance, bounds=bounds
    )
    return Estimate(mean.value, low, high)
