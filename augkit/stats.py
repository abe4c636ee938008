"""Standard errors over groups and fits, and intervals that hold what they promise.

Two things are random in a score: which groups (patients) were tested, and the fits. The error
over groups follows from the influences of the rows (`augkit.metrics`), which are linear: for a
difference of two arms on the same test rows, subtract them and ask here again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class FitVariance:
    """What the randomness of the fits adds to the variance of a mean over fits."""

    between: float
    """Variance between the fits, divided by their number; 0 for a single fit, whose interval then
    holds for that fit alone."""

    shared: float
    """The part of `between` that is in the variance over groups as well: how differently the fits
    treat the same groups, which averages out over groups and fits alike."""

    n_fits: int


class FitMean(NamedTuple):
    """The mean of the scores of several fits."""

    value: float
    influence: np.ndarray
    """float64 (N,), of the mean."""
    fit_variance: FitVariance


def standard_error(influence: np.ndarray, groups: np.ndarray) -> float:
    """Return the standard error over groups, sqrt(G / (G - 1) * sum of squared group sums).

    influence: float64 (N,), see `augkit.metrics.Score`; groups: (N,), any labels. Rows of a group
    may depend on each other in any way. NaN for fewer than two groups.
    """
    sums = _group_sums(influence[None, :], groups)[0]
    if len(sums) < 2:
        return math.nan
    return math.sqrt(len(sums) / (len(sums) - 1) * float(np.square(sums).sum()))


def effective_groups(weight: np.ndarray, groups: np.ndarray) -> float:
    """Return the number of equal groups that would carry as much as these.

    weight: float64 (N,) of a Score. For the sensitivity of a class with equal groups it is the
    number of groups that hold the class: three groups decide little, however many others there are.
    For balanced accuracy it is K squared over the sum of 1 / groups of each class, for AUROC half
    the harmonic mean of both sides'. 0 where nothing counts.
    """
    squares = float(np.square(_group_sums(weight[None, :], groups)).sum())
    return 1 / squares if squares > 0 else 0.0


def mean_of_fits(
    values: Sequence[float] | np.ndarray, influences: np.ndarray, groups: np.ndarray | None = None
) -> FitMean:
    """Return the mean score of several fits: each is scored, then averaged; no ensemble.

    values: (S,); influences: (S, N), the same rows for each fit; groups: (N,), None: each row is
    a group. With u[s, g] the sum of influences of group g in fit s, less its mean over the
    fits, `shared` is sum(u^2) / (S (S - 1)).
    """
    values, influences = np.asarray(values, np.float64), np.asarray(influences, np.float64)
    n_fits, n = influences.shape
    value, influence = float(values.mean()), influences.mean(0)
    if n_fits < 2:
        return FitMean(value, influence, FitVariance(0.0, 0.0, n_fits))
    sums = _group_sums(influences, np.arange(n) if groups is None else groups)  # (S, G)
    own = sums - sums.mean(0)
    shared = float(np.square(own).sum()) / (n_fits * (n_fits - 1))
    return FitMean(
        value, influence, FitVariance(float(values.var(ddof=1)) / n_fits, shared, n_fits)
    )


def combine(
    standard_error: float, n_groups: float, fits: FitVariance | None = None
) -> tuple[float, float]:
    """Return the standard error over groups and fits together, and its degrees of freedom.

    The variance is that of the groups plus that between the fits less what both share, and never
    under either; the degrees of freedom are Satterthwaite's. Without fits, or with two, whose
    spread says too little: n_groups - 1.
    """
    over_groups = standard_error**2
    if fits is None or fits.n_fits < 2 or fits.between == 0:
        return standard_error, n_groups - 1
    total = max(over_groups, fits.between, over_groups + fits.between - fits.shared)
    if fits.n_fits == 2:  # one degree of freedom would make every interval the whole range
        return math.sqrt(total), n_groups - 1
    parts = fits.between**2 / (fits.n_fits - 1)
    parts += over_groups**2 / (n_groups - 1) if n_groups > 1 else math.inf
    return math.sqrt(total), total**2 / parts


def interval(
    value: float,
    standard_error: float,
    *,
    n_groups: float,
    fits: FitVariance | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Return the interval (low, high) of a score that lies within bounds.

    Wilson's interval at the effective sample size value * (1 - value) / se^2, with Student's t
    instead of the normal (Dean & Pagano 2015). It never degenerates: without any spread the
    effective size is `n_groups` (take `effective_groups`). For a score that is no proportion, such
    as mcc, give its bounds. The whole range if there are fewer than two groups; NaN for a value
    that is NaN.
    """
    low, high = bounds
    if math.isnan(value):
        return math.nan, math.nan
    error, freedom = combine(standard_error, n_groups, fits)
    if math.isnan(error) or freedom <= 0:
        return bounds
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    variance = (error / (high - low)) ** 2
    spread = share * (1 - share)
    size = spread / variance if variance > 0 and spread > 0 else n_groups
    centre, half = _wilson(share, size, _student(level, freedom))
    ends = (max(centre - half, 0.0), min(centre + half, 1.0))
    return low + (high - low) * ends[0], low + (high - low) * ends[1]


def _wilson(share: float, size: float, t: float) -> tuple[float, float]:
    """Return the centre and half the width of Wilson's interval."""
    shrink = 1 + t * t / size
    centre = (share + t * t / (2 * size)) / shrink
    half = t / shrink * math.sqrt(share * (1 - share) / size + t * t / (4 * size * size))
    return centre, half


def _student(level: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def _group_sums(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return (S, G), the sums of (S, N) over each group."""
    _, index = np.unique(groups, return_inverse=True)
    n_groups = int(index.max()) + 1 if len(index) else 0
    return np.stack([np.bincount(index, row, n_groups) for row in rows])
