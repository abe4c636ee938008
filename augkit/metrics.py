"""Scores of a classifier, each with the influence of every row, from which its error follows.

The influence of row i is what the value owes to it, to first order, already divided by the number
of rows: the influences of a metric sum to zero, and those of a difference of two metrics on the
same rows are the differences. `augkit.stats.standard_error` turns them into a standard error over
groups. Values agree with scikit-learn; where it returns a stand-in, here stands NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augkit.errors import PluginFailed

N_BINS = 15
"""Bins of equal width of the expected calibration error."""


@dataclass(frozen=True)
class Score:
    """A metric's value, and how it hangs on the rows."""

    value: float
    """NaN where the metric cannot be computed."""

    influence: np.ndarray
    """float64 (N,), summing to 0; NaN where the value is."""

    weight: np.ndarray
    """float64 (N,), >= 0: the scale of what each row can move; 0 for a row that does not count.
    See `augkit.stats.effective_groups`."""


def score(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    fits: np.ndarray | None = None,
) -> dict[str, Score]:
    """Return every metric of the test rows, by name.

    labels: int64 (N,), indices into classes. probabilities: float (N, K), rows sum to 1. fits:
    int64 (N,), the fit (fold) that each row's probabilities come from; None: one for all.

    accuracy; balanced_accuracy: mean sensitivity of the classes that are there; auroc: one versus
    rest, averaged within each fit over the classes, then over the fits, each weighing the same; a
    class that is missing from a fit's test rows (or is alone there) is left out of that fit's
    mean, and a fit of one class only out of the mean of fits. f1: mean over the classes
    that are there or predicted; mcc: Gorodkin 2004; brier: half the squared distance, 0..1; ece:
    of the predicted class, 15 bins. By class, as in `sensitivity:malignant`: sensitivity,
    specificity, ppv, npv.

    Ties in probability go to the earlier class. Raises PluginFailed for probabilities of another
    shape, or that are not finite.
    """
    labels = np.asarray(labels, np.int64)
    chances = np.asarray(probabilities, np.float64)
    if chances.shape != (len(labels), len(classes)):
        raise PluginFailed(
            f"the classifier gave probabilities of shape {chances.shape} for {len(labels)} "
            f"images of {len(classes)} classes; predict_proba must give one row an image"
        )
    if not np.isfinite(chances).all():
        raise PluginFailed(
            "the classifier gave probabilities that are not finite: it diverged. "
            "Lower its learning rate"
        )
    fits = np.zeros(len(labels), np.int64) if fits is None else np.asarray(fits)
    predicted = chances.argmax(1) if len(labels) else labels
    made = {
        "accuracy": _share(predicted == labels, np.ones(len(labels), bool)),
        "balanced_accuracy": _balanced(labels, predicted, len(classes)),
        "auroc": _over_fits(labels, chances, fits),
        "f1": _f1(labels, predicted, len(classes)),
        "mcc": _mcc(labels, predicted, len(classes)),
        "brier": _brier(labels, chances),
        "ece": _ece(labels, predicted, chances),
    }
    for index, name in enumerate(classes):
        made |= _by_class(labels == index, predicted == index, name)
    return made


def _undefined(n: int) -> Score:
    return Score(float("nan"), np.full(n, np.nan), np.zeros(n))


def _share(hits: np.ndarray, among: np.ndarray) -> Score:
    """Return the share of hits among the chosen rows."""
    n = int(among.sum())
    if n == 0:
        return _undefined(len(among))
    value = int((hits & among).sum()) / n
    return Score(value, np.where(among, hits - value, 0.0) / n, among / n)


def _mean(terms: Sequence[Score], n: int) -> Score:
    """Return the mean of scores over the same n rows; one without a value is left out."""
    known = [term for term in terms if not np.isnan(term.value)]
    if not known:
        return _undefined(n)
    return Score(
        float(np.mean([term.value for term in known])),
        np.mean([term.influence for term in known], axis=0),
        np.mean([term.weight for term in known], axis=0),
    )


def _by_class(positive: np.ndarray, called: np.ndarray, name: str) -> dict[str, Score]:
    return {
        f"sensitivity:{name}": _share(called, positive),
        f"specificity:{name}": _share(~called, ~positive),
        f"ppv:{name}": _share(positive, called),
        f"npv:{name}": _share(~positive, ~called),
    }


def _balanced(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> Score:
    terms = [_share(predicted == c, labels == c) for c in range(n_classes)]
    return _mean(terms, len(labels))


def _over_fits(labels: np.ndarray, chances: np.ndarray, fits: np.ndarray) -> Score:
    """Return the mean AUROC of the fits: scores of different models are never ranked together."""
    terms = []
    for fit in np.unique(fits):
        rows = np.flatnonzero(fits == fit)
        inner = _auroc(labels[rows], chances[rows])
        influence, weight = np.zeros(len(labels)), np.zeros(len(labels))
        influence[rows], weight[rows] = inner.influence, inner.weight
        terms.append(Score(inner.value, influence, weight))
    return _mean(terms, len(labels))


def _auroc(labels: np.ndarray, chances: np.ndarray) -> Score:
    """Return the mean one-versus-rest AUROC; of two classes, that of the second."""
    n_classes = chances.shape[1]
    tested = (1,) if n_classes == 2 else range(n_classes)
    return _mean([_area(labels == c, chances[:, c]) for c in tested], len(labels))


def _area(positive: np.ndarray, scores: np.ndarray) -> Score:
    """Return the area under one curve, with placements (DeLong et al. 1988) as influence.

    Summed within clusters they give the variance of Obuchowski 1997.
    """
    above, below = scores[positive], scores[~positive]
    m, n = len(above), len(below)
    if m == 0 or n == 0:
        return _undefined(len(scores))
    placed = np.empty(len(scores))
    placed[positive] = _rank(above, below)
    placed[~positive] = 1 - _rank(below, above)
    value = float(placed[positive].mean())
    weight = np.where(positive, 1 / m, 1 / n)
    return Score(value, (placed - value) * weight, weight)


def _rank(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each score the share of the others that lie below it; an equal one is half."""
    others = np.sort(others)
    below, not_above = (np.searchsorted(others, scores, s) for s in ("left", "right"))
    return (below + not_above) / (2 * len(others))


def _f1(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> Score:
    terms = []
    for c in range(n_classes):
        true, called = labels == c, predicted == c
        terms.append(_ratio(2.0 * (true & called), true.astype(float) + called))
    return _mean(terms, len(labels))


def _ratio(upper: np.ndarray, lower: np.ndarray) -> Score:
    """Return sum(upper) / sum(lower), both (N,), with the influence of a ratio estimator."""
    total = lower.sum()
    if total == 0:
        return _undefined(len(lower))
    value = upper.sum() / total
    return Score(float(value), (upper - value * lower) / total, lower / total)


def _mcc(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> Score:
    """Return the correlation of labels and predictions, its influence by the delta method."""
    n = len(labels)
    if n == 0:
        return _undefined(n)
    true, called = (np.bincount(x, minlength=n_classes) / n for x in (labels, predicted))
    chance, spread_true, spread_called = true @ called, 1 - true @ true, 1 - called @ called
    if min(np.count_nonzero(true), np.count_nonzero(called)) < 2:
        return _undefined(n)
    agreed = labels == predicted
    root = np.sqrt(spread_true * spread_called)
    value = (agreed.mean() - chance) / root
    together = agreed - agreed.mean() - called[labels] - true[predicted] + 2 * chance
    alone = (true @ true - true[labels]) / spread_true
    alone += (called @ called - called[predicted]) / spread_called
    return Score(float(value), (together / root - value * alone) / n, np.full(n, 1 / n))


def _brier(labels: np.ndarray, chances: np.ndarray) -> Score:
    n = len(labels)
    truth = np.eye(chances.shape[1])[labels]  # (N, K)
    return _average(np.square(chances - truth).sum(1) / 2, n)


def _ece(labels: np.ndarray, predicted: np.ndarray, chances: np.ndarray) -> Score:
    """Return the expected calibration error; its influence takes the bins as given."""
    n = len(labels)
    if n == 0:
        return _undefined(n)
    confidence = chances[np.arange(n), predicted]
    bins = np.clip(np.ceil(confidence * N_BINS).astype(np.int64) - 1, 0, N_BINS - 1)
    gap = confidence - (predicted == labels)
    sides = np.sign(np.bincount(bins, gap, N_BINS))
    return _average(sides[bins] * gap, n)


def _average(parts: np.ndarray, n: int) -> Score:
    if n == 0:
        return _undefined(n)
    value = float(parts.mean())
    return Score(value, (parts - value) / n, np.full(n, 1 / n))
