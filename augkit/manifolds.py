"""Precision, recall, density and coverage: which images lie where the others do, and how many.

The neighbourhood of an image is a ball in feature space that reaches to its k-th nearest neighbour
among the images of its own set. With it

- precision is the share of made images in the ball of a real one, recall the share of real images
  in the ball of a made one (Kynkaanniemi et al. 2019, equations 1 and 2; k = 3);
- density is how many balls of real images a made one lies in, over k, and coverage the share of
  real images whose ball holds a made one (Naeem et al. 2020, equations 4 and 5; k = 5);
- the realism of a made image is the largest radius of a ball over the distance to its centre,
  among the smaller half of the balls (Kynkaanniemi et al. 2019, equation 3).

All of them depend on how large the sets are: compare only what was measured with equal sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

K_PRECISION = 3
K_DENSITY = 5
LEAST = K_DENSITY + 3
"""Images of a set: with fewer, one left out, a ball would hold nearly all of the set."""


@dataclass(frozen=True)
class Statistic:
    """A number that two sets give, and what it would be without each unit of either set."""

    value: float
    without_real: np.ndarray
    """float64 (n,), without one unit of the real set."""
    without_made: np.ndarray
    """float64 (m,), without one unit of the other set."""


def neighbourhoods(real: np.ndarray, made: np.ndarray) -> dict[str, Statistic]:
    """Return precision, recall, density and coverage of two sets, and each without one image.

    real: (n, d). made: (m, d). Both float and at least `LEAST` long. Holds a few matrices (n, m).
    """
    across = apart(real, made)  # (n, m)
    here = {k: _Balls.of(apart(real, real), k) for k in (K_PRECISION, K_DENSITY)}
    there = _Balls.of(apart(made, made), K_PRECISION)
    precision, _ = _within(here[K_PRECISION], across)
    recall, _ = _within(there, across.T)
    _, density = _within(here[K_DENSITY], across)
    return {
        "precision": precision,
        "recall": Statistic(recall.value, recall.without_made, recall.without_real),
        "density": density,
        "coverage": _coverage(here[K_DENSITY], across),
    }


def realism(real: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Return the realism of each made image: float64 (m,), above 1 in the ball of a real image.

    Balls larger than the median do not count: images that are rare have large ones.
    """
    radii = _Balls.of(apart(real, real), K_PRECISION).radius
    kept = radii <= np.median(radii)
    across = np.maximum(apart(real[kept], made), 1e-12)  # (n / 2, m)
    return (radii[kept, None] / across).max(0)


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float64 (n, m), the Euclidean distance of each row of a (n, d) from each of b (m, d).

    Of rows up to rounding, about 1e-7 of their length, where two are equal.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(squares, 0))


@dataclass(frozen=True)
class _Balls:
    """The ball of each image of a set, and by how much it grows where another image is missing."""

    radius: np.ndarray
    """float64 (n,)."""
    grown: np.ndarray
    """float64 (n,), the radius once one of the k nearest neighbours is missing."""
    among: np.ndarray
    """float32 (n, n), 1 where the second image is one of the k nearest neighbours of the first."""
    k: int

    @classmethod
    def of(cls, within: np.ndarray, k: int) -> _Balls:
        """Return the balls of a set. within: float64 (n, n), its distances; n > k + 1."""
        n = len(within)
        others = within.copy()
        np.fill_diagonal(others, np.inf)
        order = np.argpartition(others, (k - 1, k), axis=1)
        rows = np.arange(n)
        among = np.zeros((n, n), np.float32)
        among[rows[:, None], order[:, :k]] = 1
        return cls(others[rows, order[:, k - 1]], others[rows, order[:, k]], among, k)


def _within(balls: _Balls, across: np.ndarray) -> tuple[Statistic, Statistic]:
    """Return the share of the others that lie in any ball, and in how many of them, over k.

    across: float64 (n, m), from the centres to the others. In the statistics the set of the
    centres stands as real.
    """
    m = across.shape[1]
    held = across <= balls.radius[:, None]  # (n, m)
    also = (across <= balls.grown[:, None]) & ~held
    count = held.sum(0)  # (m,)
    # Without a centre its ball is gone, and those that it was a neighbour of are larger.
    left = count - held + np.rint(balls.among.T @ also.astype(np.float32))  # (n, m)
    inside = count > 0
    share = Statistic(float(inside.mean()), (left > 0.5).mean(1), (inside.sum() - inside) / (m - 1))
    number = Statistic(
        float(count.mean()) / balls.k,
        left.mean(1) / balls.k,
        (count.sum() - count) / (m - 1) / balls.k,
    )
    return share, number


def _coverage(balls: _Balls, across: np.ndarray) -> Statistic:
    """Return the share of the balls that hold at least one of the others."""
    n, m = across.shape
    two = np.partition(across, 1, axis=1)[:, :2]  # (n, 2), the nearest and the next
    covered = two[:, 0] <= balls.radius  # (n,)
    also = (two[:, 0] <= balls.grown) & ~covered
    left = covered.sum() - covered + np.rint(balls.among.T @ also.astype(np.float32))  # (n,)
    lost = covered & (two[:, 1] > balls.radius)  # held one only
    nearest = across.argmin(1)
    losses = np.bincount(nearest[lost], minlength=m)  # (m,)
    return Statistic(float(covered.mean()), left / (n - 1), (covered.sum() - losses) / n)
