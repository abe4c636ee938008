"""How good made images are beside real ones: numbers of two sets of features, with intervals.

What is drawn at random is a unit: a group of relatives among real images, an image that a generator
made, or all that a traditional augmenter made of relatives. A set has one image of each unit, so
its images are independent; sets of equal size are drawn several times and the numbers averaged, so
that every image counts. What is left out in turn is a unit as well: the errors are jackknife errors
(Efron and Stein 1981, whose inequality says that their square is not too small on average), and the
interval is Student's, or Wilson's for a share. docs/quality.md has the simulations.

The real images that stand beside the made ones, as a yardstick, are compared with the same sets of
the same real images; what the two comparisons share is taken out of the error of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from augkit import stats
from augkit.distances import kernel
from augkit.manifolds import LEAST, Statistic, apart, neighbourhoods

MEASURES = ("kid", "precision", "recall", "density", "coverage", "diversity")
SHARES = ("precision", "recall", "coverage")
"""Measures in 0..1."""

_LARGEST_SET = 1000
_MOST_ROUNDS = 50
_WORK = 20_000
"""Images of all rounds together, about."""


@dataclass(frozen=True)
class Images:
    """Features of some images, and which of them depend on each other."""

    features: np.ndarray
    """float (N, d)."""
    units: np.ndarray
    """int64 (N,): images of one unit are no two draws."""

    @property
    def n_units(self) -> int:
        """Return how many draws they are."""
        return len(np.unique(self.units))


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where there are too few images."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Measured:
    """One measure of made images, of real ones in their place, and how far they are apart."""

    made: Estimate
    real: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Comparison:
    """All measures of one class."""

    set_size: int
    """Images of each set for precision, recall, density and coverage."""
    measures: dict[str, Measured]


def compare(reference: Images, made: Images, beside: Images, *, seed: int = 0) -> Comparison:
    """Return how like the reference the made images are, and how like it other real ones.

    reference, beside: real images without a common unit. seed: draws the sets. Measures that need
    more images than there are come out as NaN.
    """
    size = min(reference.n_units, made.n_units, beside.n_units, _LARGEST_SET)
    found = {
        "kid": (_kid(reference, made), _kid(reference, beside)),
        "diversity": (_diversity(reference, made), _diversity(reference, beside)),
        **_neighbours(reference, made, beside, size, np.random.default_rng(seed)),
    }
    return Comparison(size, {name: _measured(name, size, *found[name]) for name in MEASURES})


def _measured(name: str, size: int, made: Statistic, real: Statistic) -> Measured:
    one, other = _estimate(name, size, made), _estimate(name, size, real)
    return Measured(one, other, _difference(one, other, _shared(made, real)))


def _kid(real: Images, made: Images) -> Statistic:
    """Return the kernel inception distance over pairs of different units, all of one weight."""
    if min(real.n_units, made.n_units) < 3:
        return _nothing(real, made)
    within_real = _Pairs.of(_by_units(kernel, real, real))
    within_made = _Pairs.of(_by_units(kernel, made, made))
    across = _by_units(kernel, real, made)  # (n, m)
    n, m = across.shape
    return Statistic(
        within_real.mean + within_made.mean - 2 * across.mean(),
        within_real.without + within_made.mean - 2 * (across.sum() - across.sum(1)) / ((n - 1) * m),
        within_real.mean + within_made.without - 2 * (across.sum() - across.sum(0)) / (n * (m - 1)),
    )


def _diversity(real: Images, made: Images) -> Statistic:
    """Return the log of the mean distance of two made images over that of two real ones."""
    if min(real.n_units, made.n_units) < 3:
        return _nothing(real, made)
    within_real = _Pairs.of(_by_units(apart, real, real))
    within_made = _Pairs.of(_by_units(apart, made, made))
    if min(within_real.without.min(), within_made.without.min()) <= 0:  # all of them are equal
        return _nothing(real, made)
    a, b = math.log(within_made.mean), math.log(within_real.mean)
    return Statistic(a - b, a - np.log(within_real.without), np.log(within_made.without) - b)


@dataclass(frozen=True)
class _Pairs:
    """The mean over the pairs of different units of a set, and without each unit."""

    mean: float
    without: np.ndarray
    """float64 (n,)."""

    @classmethod
    def of(cls, matrix: np.ndarray) -> _Pairs:
        """matrix: float64 (n, n), symmetric; its diagonal does not count. n > 2."""
        n = len(matrix)
        rows = matrix.sum(1) - np.diagonal(matrix)
        total = rows.sum()
        return cls(total / (n * (n - 1)), (total - 2 * rows) / ((n - 1) * (n - 2)))


def _by_units(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], a: Images, b: Images
) -> np.ndarray:
    """Return the mean of a function of two images over those of two units: float64 (n, m)."""
    found = function(a.features, b.features)
    for axis, units in ((0, a.units), (1, b.units)):
        order = np.argsort(units, kind="stable")
        starts = np.flatnonzero(np.diff(units[order], prepend=units[order[0]] - 1))
        counts = np.diff(starts, append=len(units))
        found = np.add.reduceat(found.take(order, axis), starts, axis)
        found /= counts[:, None] if axis == 0 else counts
    return found


def _neighbours(
    reference: Images, made: Images, beside: Images, size: int, rng: np.random.Generator
) -> dict[str, tuple[Statistic, Statistic]]:
    """Return the measures of neighbourhoods, of the made images and of those beside them.

    Averaged over sets of so many images of each kind; the sets of the reference are the same for
    both.
    """
    names = ("precision", "recall", "density", "coverage")
    if size < LEAST:
        return {n: (_nothing(reference, made), _nothing(reference, beside)) for n in names}
    n_rounds = _n_rounds(size, (reference, made, beside))
    sets = [_sets(images, size, rng) for images in (reference, made, beside)]
    sums = {n: (_Sum(reference, made), _Sum(reference, beside)) for n in names}
    for _ in range(n_rounds):
        real, one, other = (next(s) for s in sets)
        for which, (images, drawn) in enumerate(((made, one), (beside, other))):
            found = neighbourhoods(reference.features[real.rows], images.features[drawn.rows])
            for name in names:
                sums[name][which].add(found[name], real.units, drawn.units)
    return {n: (a.mean(n_rounds), b.mean(n_rounds)) for n, (a, b) in sums.items()}


def _n_rounds(size: int, kinds: tuple[Images, ...]) -> int:
    """Return how many sets are drawn; one where each image is in it."""
    if all(len(images.units) == images.n_units == size for images in kinds):
        return 1
    return max(4, min(_MOST_ROUNDS, _WORK // size))


@dataclass(frozen=True)
class _Set:
    """Rows of a set, one of each unit, and the numbers of these units."""

    rows: np.ndarray
    units: np.ndarray


def _sets(images: Images, size: int, rng: np.random.Generator) -> Iterator[_Set]:
    """Yield sets without end: all units but a remainder are used before one comes again."""
    _, units = np.unique(images.units, return_inverse=True)
    n_units = int(units.max()) + 1
    while True:
        order = rng.permutation(n_units)
        for start in range(0, n_units - size + 1, size):
            shuffled = rng.permutation(len(units))
            _, first = np.unique(units[shuffled], return_index=True)
            chosen = order[start : start + size]
            yield _Set(shuffled[first[chosen]], chosen)


class _Sum:
    """Adds up a statistic of sets, each value without a unit at the place of the unit."""

    def __init__(self, real: Images, made: Images):
        self.value = 0.0
        self.real = np.zeros(real.n_units)
        self.made = np.zeros(made.n_units)

    def add(self, found: Statistic, real: np.ndarray, made: np.ndarray) -> None:
        self.value += found.value
        self.real[real] += found.without_real - found.value
        self.made[made] += found.without_made - found.value

    def mean(self, n: int) -> Statistic:
        value = self.value / n
        return Statistic(value, value + self.real / n, value + self.made / n)


def _nothing(real: Images, made: Images) -> Statistic:
    return Statistic(math.nan, np.full(real.n_units, math.nan), np.full(made.n_units, math.nan))


# -- intervals ---------------------------------------------------------------------------------


def _estimate(name: str, size: int, found: Statistic) -> Estimate:
    """Return a measure with its interval, of the kind that its range asks for."""
    if math.isnan(found.value):
        return Estimate(math.nan)
    error, freedom = _error(found)
    reach = stats.student(0.975, freedom) * error
    if name in SHARES or (name == "density" and found.value < 0.5):
        return _share(found.value, error, size, freedom)
    if name == "diversity":
        return Estimate(*(math.exp(found.value + side * reach) for side in (0, -1, 1)))
    if name == "density":
        times = math.exp(reach / found.value)
        return Estimate(found.value, found.value / times, found.value * times)
    return Estimate(found.value, found.value - reach, found.value + reach)


def _share(value: float, error: float, size: int, freedom: float) -> Estimate:
    """Return a share with Wilson's interval, its error at least that of a set of single images."""
    least = math.sqrt(max(0.0, value * (1 - value)) / size)
    low, high = stats.interval(value, max(error, least), n_groups=size, freedom=freedom)
    return Estimate(value, low, high)


def _error(found: Statistic) -> tuple[float, float]:
    """Return the jackknife error over both sets, and its degrees of freedom (Satterthwaite)."""
    parts = [(_spread(w, w), len(w) - 1) for w in (found.without_real, found.without_made)]
    return _joined(parts)


def _joined(parts: list[tuple[float, int]]) -> tuple[float, float]:
    total = sum(size for size, _ in parts)
    doubt = sum(size**2 / freedom for size, freedom in parts)
    return math.sqrt(total), total**2 / doubt if doubt > 0 else min(f for _, f in parts)


def _spread(a: np.ndarray, b: np.ndarray) -> float:
    """Return the jackknife covariance of two statistics, from their values without each unit."""
    n = len(a)
    return float(((a - a.mean()) * (b - b.mean())).sum()) * (n - 1) / n


def _shared(made: Statistic, real: Statistic) -> float:
    """Return the correlation of two values that their common reference causes, at least 0."""
    if math.isnan(made.value + real.value):
        return 0.0
    errors = _error(made)[0] * _error(real)[0]
    shared = _spread(made.without_real, real.without_real) / errors if errors > 0 else 0.0
    return min(max(shared, 0.0), 1.0)


def _difference(one: Estimate, other: Estimate, shared: float) -> Estimate:
    """Return one estimate less another.

    The distances from the values to the ends of their intervals are put together (Zou and Donner
    2008), less what is common to both; so shares of 0 and 1 keep an interval.
    """
    value = one.value - other.value
    if math.isnan(value):
        return Estimate(math.nan)
    reach = []
    for a, b in (
        (one.value - one.low, other.high - other.value),
        (one.high - one.value, other.value - other.low),
    ):
        reach.append(math.sqrt(max(0.0, a * a + b * b - 2 * shared * a * b)))
    return Estimate(value, value - reach[0], value + reach[1])
