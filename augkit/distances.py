"""How like the real images of each class the generated ones are, measured on features.

The distance of two sets of images is the kernel inception distance of Binkowski et al. 2018, here
of any features: 0 on average where both sets show the same things, negative by chance. Features
are standardised by the real images first (`standardised`), because the polynomial kernel would
otherwise see only those that happen to be large, and depends on where the origin lies.

Distances of small sets are noisy and have no intervals here: 'undertrained' says which distance is
the smaller, not by how much more than chance. `augkit.fidelity` has intervals.
"""

from __future__ import annotations

import numpy as np

from augkit.descriptors import LEAST_SPREAD

_ROWS = 1024


def standardised(features: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return features less the mean of the real ones, over their spread: float64 (N, d).

    features: (N, d), of any images. real: (M, d), M > 0, of all real images of the comparison,
    whatever their class. A spread below `LEAST_SPREAD` counts as `LEAST_SPREAD`.
    """
    wide = real.astype(np.float64)
    return (features - wide.mean(0)) / np.maximum(wide.std(0), LEAST_SPREAD)


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float64 (n, m), the kernel (x y / d + 1)^3 of each row of a (n, d) and of b (m, d)."""
    return _kernel(a.astype(np.float64) @ b.astype(np.float64).T, a.shape[1])


def kid(a: np.ndarray, b: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of two sets of features, without bias.

    Binkowski et al. 2018, equation 4, with the kernel (x y / d + 1)^3 and over all pairs of rows,
    not a mean over subsets. a: (n, d). b: (m, d). NaN where one has fewer than two rows.
    """
    return _within(a) + _within(b) - 2 * _between(a, b)


def class_distances(
    generated: np.ndarray,
    labels: np.ndarray,
    real: np.ndarray,
    *,
    real_labels: np.ndarray,
    n_classes: int,
) -> np.ndarray:
    """Return the distance of each generated class from each real one: float64 (K, K).

    Row: generated class, column: real class. NaN where either has fewer than two images.
    generated: (N, d), labels: int64 (N,). real: (M, d), real_labels: int64 (M,).
    """
    made = [generated[labels == c] for c in range(n_classes)]
    true = [real[real_labels == c] for c in range(n_classes)]
    apart = np.array([[_between(a, b) for b in true] for a in made])  # (K, K)
    inside_made = np.array([_within(a) for a in made])
    inside_true = np.array([_within(b) for b in true])
    return inside_made[:, None] + inside_true - 2 * apart


def undertrained(distances: np.ndarray) -> tuple[int, ...]:
    """Return the classes whose generated images are no nearer to their own class than to another.

    distances: (K, K), as `class_distances` gives them. A class whose own distance is NaN, or that
    has nothing to be compared with, is not among them.
    """
    others = np.where(np.eye(len(distances), dtype=bool) | np.isnan(distances), np.inf, distances)
    nearest = others.min(1, initial=np.inf)
    no_nearer = np.isfinite(nearest) & (np.diagonal(distances) >= nearest)
    return tuple(int(c) for c in np.flatnonzero(no_nearer))


def _within(a: np.ndarray) -> float:
    """Return the mean kernel of two different rows of one set."""
    n = len(a)
    if n < 2:
        return float("nan")
    wide = a.astype(np.float64)
    alone = _kernel(np.square(wide).sum(1), a.shape[1]).sum()
    return (_sum(wide, wide) - float(alone)) / (n * (n - 1))


def _between(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean kernel of a row of one set and a row of the other."""
    if not (len(a) and len(b)):
        return float("nan")
    return _sum(a.astype(np.float64), b.astype(np.float64)) / (len(a) * len(b))


def _sum(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of the kernel over all pairs of rows, holding 1024 x 1024 at a time."""
    total = 0.0
    for i in range(0, len(a), _ROWS):
        for j in range(0, len(b), _ROWS):
            total += float(_kernel(a[i : i + _ROWS] @ b[j : j + _ROWS].T, a.shape[1]).sum())
    return total


def _kernel(products: np.ndarray, d: int) -> np.ndarray:
    return (products / d + 1) ** 3
