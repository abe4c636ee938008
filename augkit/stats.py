"""The error of a mean over fits and partitions, and intervals that hold what they promise.

Three things are random in a score: which groups (patients) were tested, each fit, and what all
fits of a partition have in common (its training images, and what was drawn from them). The error
over groups follows from the influences of the rows (`augkit.metrics`), which are linear: for a
difference of two arms on the same test rows, subtract them and ask here again. docs/statistics.md
has the reasons, and what simulations say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean over fits and partitions, with its standard error."""

    value: float
    error: float
    """NaN for fewer than two groups."""
    freedom: float
    """Degrees of freedom of `error` (Satterthwaite 1946)."""
    n_fits: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return (low, high): the value less and plus t times the error; for a difference."""
        half = student((1 + level) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Return the two-sided p-value of the hypothesis that the truth is 0, by the same t."""
        from scipy.special import stdtr

        if not self.error > 0:  # without an error only "no difference at all" says something
            return 1.0 if self.error == 0 and self.value == 0 else math.nan
        return 2 * float(stdtr(self.freedom, -abs(self.value) / self.error))


@dataclass(frozen=True)
class _Part:
    """One part of a variance; `doubt` is half the variance of its estimate."""

    size: float
    doubt: float


def mean_over_fits(
    values: np.ndarray,
    influences: np.ndarray,
    groups: np.ndarray,
    *,
    n_groups: float,
    least: float = 0.0,
) -> Mean:
    """Return the mean of the scores of all fits: each is scored, then averaged; no ensemble.

    values: (S, P), of the fit with seed s under partition p; influences: (S, P, N), of the same
    rows, 0 where the partition does not test the row, scaled so that their mean over partitions is
    the influence on the mean; groups: (N,), any labels, rows of a group may depend on each other in
    any way. n_groups: see `effective_groups`. least: the variance over groups is at least that.

    The variance is that over groups, plus that between the seeds of a partition, plus what the
    partitions spread beyond both. What two of these share is counted once: how differently fits
    treat the same groups averages out over groups and fits alike.
    """
    n_seeds, n_parts, n_rows = influences.shape
    sums = _group_sums(influences.reshape(-1, n_rows), groups)
    if sums.shape[1] < 2:
        return Mean(float(values.mean()), math.nan, math.nan, values.size)
    sums = sums.reshape(n_seeds, n_parts, -1)  # (S, P, groups)
    over_groups = max(standard_error(influences.mean((0, 1)), groups) ** 2, least)
    parts = [_Part(over_groups, over_groups**2 / max(n_groups - 1, 1.0))]
    seeds = _between_seeds(values, sums)
    if seeds is not None:
        own = max(seeds.size, seeds.total - over_groups)
        parts.append(_Part(own, _doubt(own, seeds.total, n_parts * (n_seeds - 1))))
    beyond = _between_partitions(values, sums, seeds.size if seeds else 0.0)
    if beyond.size > 0:
        parts.append(_Part(beyond.size, _doubt(beyond.size, beyond.total, n_parts - 1)))
    total, doubt = sum(p.size for p in parts), sum(p.doubt for p in parts)
    freedom = total**2 / doubt if doubt > 0 else max(n_groups - 1, 1.0)
    return Mean(float(values.mean()), math.sqrt(total), freedom, values.size)


def _doubt(size: float, total: float, freedom: int) -> float:
    """Return the doubt of a part that is what a total with so many degrees of freedom has over.

    That of the total is total^2 / freedom. It counts in full where the part is the total, and not
    at all where the part is nothing, as if it had not been looked for; simulations (docs) chose how
    fast it comes in between.
    """
    return math.sqrt(size) * total**1.5 / freedom


@dataclass(frozen=True)
class _Excess:
    """What fits or partitions spread, as a part of the variance of the mean."""

    total: float
    size: float
    """What of it is in no other part."""


def _between_seeds(values: np.ndarray, sums: np.ndarray) -> _Excess | None:
    """Return what the seeds of a partition spread; None for a single seed."""
    if len(values) < 2:
        return None
    total = float(values.var(0, ddof=1).mean()) / values.size
    shared = float(sums.var(0, ddof=1).sum(1).mean()) / values.size
    return _Excess(total, max(0.0, total - shared))


def _between_partitions(values: np.ndarray, sums: np.ndarray, of_seeds: float) -> _Excess:
    """Return what the partitions spread beyond groups and seeds."""
    n_parts = values.shape[1]
    if n_parts < 2:
        return _Excess(0.0, 0.0)
    total = float(values.mean(0).var(ddof=1)) / n_parts
    shared = float(sums.mean(0).var(0, ddof=1).sum()) / n_parts
    return _Excess(total, max(0.0, total - shared - of_seeds))


def standard_error(influence: np.ndarray, groups: np.ndarray) -> float:
    """Return the standard error over groups, sqrt(G / (G - 1) * sum of squared group sums).

    influence: float64 (N,), see `augkit.metrics.Score`; groups: (N,), any labels. Rows of a group
    may depend on each other in any way. NaN for fewer than two groups.
    """
    sums = _group_sums(influence[None, :], groups)[0]
    n = len(sums)
    return math.sqrt(n / (n - 1) * float(np.square(sums).sum())) if n > 1 else math.nan


def effective_groups(weight: np.ndarray, groups: np.ndarray) -> float:
    """Return the number of equal groups that would carry as much as these.

    weight: float64 (N,) of a Score. For the sensitivity of a class with equal groups it is the
    number of groups that hold the class: three groups decide little, however many others there are.
    For balanced accuracy it is K squared over the sum of 1 / groups of each class, for AUROC half
    the harmonic mean of both sides'. 0 where nothing counts.
    """
    squares = float(np.square(_group_sums(weight[None, :], groups)).sum())
    return 1 / squares if squares > 0 else 0.0


def interval(
    value: float,
    error: float,
    *,
    n_groups: float,
    freedom: float | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Return the interval (low, high) of a score that lies within bounds.

    Wilson's interval at the effective sample size value * (1 - value) / error^2, with Student's t
    instead of the normal (Dean & Pagano 2015). It never degenerates: without any spread the
    effective size is `n_groups` (take `effective_groups`). For a score that is no proportion, such
    as mcc, give its bounds. freedom: by default n_groups - 1. The whole range if there are fewer
    than two groups; NaN for a value that is NaN.
    """
    low, high = bounds
    if math.isnan(value):
        return math.nan, math.nan
    freedom = n_groups - 1 if freedom is None else freedom
    if math.isnan(error) or not freedom > 0:
        return bounds
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    variance = (error / (high - low)) ** 2
    spread = share * (1 - share)
    size = spread / variance if variance > 0 and spread > 0 else n_groups
    centre, half = _wilson(share, size, student((1 + level) / 2, freedom))
    ends = (max(centre - half, 0.0), min(centre + half, 1.0))
    return low + (high - low) * ends[0], low + (high - low) * ends[1]


def smallest_detectable(mean: Mean, *, level: float = 0.05, power: float = 0.85) -> float:
    """Return the true difference that a comparison like this one finds in about 80 of 100 cases.

    (t + t') times the error, t and t' the quantiles for level and power: a little more than 0.80,
    for the error is an estimate and not always as small as here. NaN where the error is.
    """
    reach = student(1 - level / 2, mean.freedom) + student(power, mean.freedom)
    return reach * mean.error


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values (M,) corrected for their number (Holm 1979); NaN stays and does not count."""
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected


def student(share: float, freedom: float) -> float:
    """Return the quantile of Student's t; NaN without degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share)) if freedom > 0 else math.nan


def _wilson(share: float, size: float, t: float) -> tuple[float, float]:
    """Return the centre and half the width of Wilson's interval."""
    shrink = 1 + t * t / size
    centre = (share + t * t / (2 * size)) / shrink
    half = t / shrink * math.sqrt(share * (1 - share) / size + t * t / (4 * size * size))
    return centre, half


def _group_sums(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (S, G), the sums of (S, N) over each group."""
    _, index = np.unique(groups, return_inverse=True)
    n_groups = int(index.max()) + 1 if len(index) else 0
    return np.stack([np.bincount(index, row, n_groups) for row in rows])
