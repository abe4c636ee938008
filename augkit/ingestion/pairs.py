"""Pairs of related images, and the clusters that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairs:
    """Pairs of related images, ordered by first and then by second."""

    first: np.ndarray
    """int64 (n,), index of one image."""
    second: np.ndarray
    """int64 (n,), index of the other, always larger than `first`."""
    score: np.ndarray
    """float32 (n,), peak of the correlation, 1 for equal images."""
    extra: np.ndarray
    """float32 (n,), by how much more than others the pair must score, as of little detail."""

    @classmethod
    def none(cls) -> Pairs:
        """Return no pairs."""
        index, score = np.empty(0, np.int64), np.empty(0, np.float32)
        return cls(index, index, score, score)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)

    def where(self, chosen: np.ndarray) -> Pairs:
        """Return some of the pairs: those of bool (n,), or in the order of int64 (m,)."""
        return Pairs(
            self.first[chosen], self.second[chosen], self.score[chosen], self.extra[chosen]
        )

    def over(self, threshold: float) -> Pairs:
        """Return the pairs that score more than a threshold and what they need besides."""
        return self.where(self.score > threshold + self.extra)


def clusters(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cluster of each of n images: int64 (n,), numbered by their first members.

    first, second: int64 (m,), the related pairs. Images joined through others share a cluster;
    an image without relatives is a cluster by itself.
    """
    if not len(first):
        return np.arange(n)
    from scipy.sparse import coo_array  # takes longer than many an ingest
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    labels = connected_components(edges, directed=False)[1]
    _, where, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(where), np.int64)
    rank[np.argsort(where)] = np.arange(len(where))
    return rank[inverse]
