"""From probabilities to metrics and their differences: each fit is scored, then averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from augkit.interfaces import Look
from augkit.metrics import Score, score
from augkit.partitions import Protocol
from augkit.stats import Mean, effective_groups, interval, mean_over_fits
from augkit.store import Snapshot

_BOUNDS = {"mcc": (-1.0, 1.0)}
CONTINUOUS = frozenset({"brier", "ece"})
"""Metrics that neither count nor rank: two arms differ a little on every image."""


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
class Fit:
    """The outcome of one fit."""

    partition: int
    """Its number in the protocol."""
    seed: int
    probabilities: np.ndarray
    """float32 (N, classes), of the test images."""
    looks: tuple[Look, ...] = ()
    """At the validation part."""


@dataclass(frozen=True)
class Tested:
    """The real rows that a protocol tests, and where."""

    labels: np.ndarray
    """int64 (N,)."""
    groups: np.ndarray
    """int64 (N,)."""
    rows: tuple[np.ndarray, ...]
    """For each partition, which of the N rows it tests, in the order of its test part."""
    classes: tuple[str, ...]
    repeats: int = 1
    """The partitions are this many rounds, one after another; each round tests a row once."""

    @classmethod
    def under(cls, plan: Protocol, snapshot: Snapshot) -> Tested:
        """Return what this protocol tests in a snapshot."""
        found = [np.flatnonzero(snapshot.parts(p) == 2) for p in plan.partitions]
        index = np.unique(np.concatenate(found))
        return cls(
            snapshot.real.labels[index],
            snapshot.real.groups[index],
            tuple(np.searchsorted(index, rows) for rows in found),
            snapshot.classes,
            plan.repeats,
        )


@dataclass(frozen=True)
class Measured:
    """A metric in every fit of an arm: S seeds under P partitions, N tested rows."""

    values: np.ndarray
    """float64 (S, P)."""
    influences: np.ndarray
    """float64 (S, P, N), see `augkit.stats.mean_over_fits`."""
    weight: np.ndarray
    """float64 (N,), see `augkit.metrics.Score`."""


def measure(fits: Sequence[Fit], tested: Tested) -> dict[str, Measured]:
    """Return each metric of an arm.

    Metrics that count are pooled over the folds of a seed: the value of a fit is what its test rows
    bring to the pooled value, to first order. AUROC is that of the fit.
    """
    by_seed: dict[int, list[Fit]] = {}
    for fit in fits:
        by_seed.setdefault(fit.seed, []).append(fit)
    seeds = [list(_rounds(of_seed, tested)) for of_seed in by_seed.values()]
    return {
        name: _joined([[each[name] for each in rounds] for rounds in seeds]) for name in seeds[0][0]
    }


def _rounds(fits: Sequence[Fit], tested: Tested) -> Iterator[dict[str, Measured]]:
    """Yield the metrics of each round of folds with one seed, as (1, folds) and (1, folds, N)."""
    ordered = sorted(fits, key=lambda fit: fit.partition)
    size = len(tested.rows) // tested.repeats
    for start in range(0, len(ordered), size):
        yield _round(ordered[start : start + size], tested)


def _round(fits: Sequence[Fit], tested: Tested) -> dict[str, Measured]:
    rows = [tested.rows[fit.partition] for fit in fits]
    index, ends = np.concatenate(rows), np.cumsum([len(r) for r in rows])
    chances = np.concatenate([fit.probabilities for fit in fits])
    fold = np.repeat(np.arange(len(fits)), [len(r) for r in rows])
    scored = score(tested.labels[index], chances, tested.classes, fits=fold)
    alone = [
        score(tested.labels[own], fit.probabilities, tested.classes)["auroc"].value
        for own, fit in zip(rows, fits, strict=True)
    ]
    found = {}
    for name, each in scored.items():
        influences = np.zeros((len(fits), len(tested.labels)))
        for k, end in enumerate(ends):
            influences[k, rows[k]] = len(fits) * each.influence[end - len(rows[k]) : end]
        values = each.value + influences.sum(1)
        if name == "auroc":
            values = np.where(np.isnan(alone), each.value, alone)
        found[name] = Measured(values[None], influences[None], _weight(each, index, tested))
    return found


def _weight(found: Score, index: np.ndarray, tested: Tested) -> np.ndarray:
    weight = np.zeros(len(tested.labels))
    weight[index] = found.weight
    return weight


def _joined(seeds: Sequence[Sequence[Measured]]) -> Measured:
    """Return one metric from what each seed (outer) and each round (inner) gave."""
    each = [m for rounds in seeds for m in rounds]
    return Measured(
        np.concatenate([np.concatenate([m.values for m in r], axis=1) for r in seeds]),
        np.concatenate([np.concatenate([m.influences for m in r], axis=1) for r in seeds]),
        np.mean([m.weight for m in each], axis=0),
    )


def within(fits: Sequence[Fit], tested: Tested, chosen: np.ndarray) -> dict[str, Estimate]:
    """Return each metric of an arm on some of the tested rows. chosen: bool (N,)."""
    index = np.cumsum(chosen) - 1
    part = Tested(
        tested.labels[chosen],
        tested.groups[chosen],
        tuple(index[rows[chosen[rows]]] for rows in tested.rows),
        tested.classes,
        tested.repeats,
    )
    kept = [
        Fit(fit.partition, fit.seed, fit.probabilities[chosen[tested.rows[fit.partition]]])
        for fit in fits
    ]
    return estimates(measure(kept, part), part)


ROC_GRID = 101
"""Points of a ROC curve: false positive rates 0, 0.01, ... 1."""


@dataclass(frozen=True)
class Curves:
    """What figures show of an arm."""

    confusion: tuple[tuple[float, ...], ...]
    """(K, K), test images by true class (row) and predicted class, averaged over the seeds."""
    roc: dict[str, tuple[float, ...]]
    """For each class that was tested, one versus rest, the true positive rate at each point of the
    grid, averaged over the fits (Fawcett 2006: vertical averaging)."""
    learning: tuple[Look, ...] = ()
    """Averaged over the fits; those that stopped before a look do not count in it."""


def curves(fits: Sequence[Fit], tested: Tested) -> Curves:
    """Return confusion matrix and ROC curves of an arm."""
    n = len(tested.classes)
    counted = np.zeros((n, n))
    rates: dict[str, list[np.ndarray]] = {}
    for fit in fits:
        labels = tested.labels[tested.rows[fit.partition]]
        np.add.at(counted, (labels, fit.probabilities.argmax(1)), 1.0)
        for index, name in enumerate(tested.classes):
            positive = labels == index
            if positive.any() and not positive.all():
                found = _true_positive_rates(positive, fit.probabilities[:, index])
                rates.setdefault(name, []).append(found)
    counted /= max(1, len({fit.seed for fit in fits})) * tested.repeats
    return Curves(
        tuple(tuple(row) for row in counted.round(3).tolist()),
        {name: tuple(np.mean(each, axis=0).round(4).tolist()) for name, each in rates.items()},
        _mean_looks(fits),
    )


def _mean_looks(fits: Sequence[Fit]) -> tuple[Look, ...]:
    """Return the looks of all fits, those after equally many steps averaged."""
    found: dict[int, list[tuple[float, float]]] = {}
    for look in (look for fit in fits for look in fit.looks):
        found.setdefault(look.step, []).append((look.train_loss, look.validation_loss))
    means = {step: np.mean(losses, axis=0).round(5).tolist() for step, losses in found.items()}
    return tuple(Look(step, *means[step]) for step in sorted(means))


def _true_positive_rates(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return (ROC_GRID,): the ROC curve, drawn straight between thresholds, on the grid."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # ties go together
    hits = np.cumsum(positive[order])[ends] / positive.sum()
    alarms = np.cumsum(~positive[order])[ends] / (~positive).sum()
    hits, alarms = np.append(0.0, hits), np.append(0.0, alarms)
    grid = np.linspace(0, 1, ROC_GRID) + 1e-9  # of a vertical stretch, the upper end
    return np.asarray(np.interp(grid, alarms, hits), np.float64)


def estimates(measured: Mapping[str, Measured], tested: Tested) -> dict[str, Estimate]:
    """Return each metric of an arm with its interval."""
    found = {}
    for name, each in measured.items():
        n_groups = effective_groups(each.weight, tested.groups)
        mean = _mean(each, tested, n_groups, 0.0)
        low, high = interval(
            mean.value,
            mean.error,
            n_groups=n_groups,
            freedom=mean.freedom,
            bounds=_BOUNDS.get(name, (0.0, 1.0)),
        )
        found[name] = Estimate(mean.value, low, high)
    return found


def difference(name: str, arm: Measured, reference: Measured, tested: Tested) -> Mean:
    """Return arm less reference in metric `name`.

    Both were fitted with the same seeds under the same partitions. The error of a metric that
    counts is at least that of one group on which the arms disagree, that of one that ranks at
    least that of one pair of groups.
    """
    weight = np.maximum(arm.weight, reference.weight)
    both = Measured(arm.values - reference.values, arm.influences - reference.influences, weight)
    n_groups = effective_groups(weight, tested.groups)
    return _mean(both, tested, n_groups, _least(name, n_groups, tested))


def _least(name: str, n_groups: float, tested: Tested) -> float:
    """Return the least variance of a difference."""
    if name in CONTINUOUS or not n_groups:
        return 0.0
    at_once = len(np.unique(tested.groups)) if name == "auroc" else 1
    return 1 / (n_groups * at_once) ** 2


def _mean(measured: Measured, tested: Tested, n_groups: float, least: float) -> Mean:
    used = measured.weight > 0
    if np.isnan(measured.values).any() or not used.any():
        return Mean(float("nan"), float("nan"), float("nan"), measured.values.size)
    return mean_over_fits(
        measured.values,
        measured.influences[:, :, used],
        tested.groups[used],
        n_groups=n_groups,
        least=least,
    )
