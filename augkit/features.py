"""Features of images, computed at most once for each image of a shard.

An evaluation asks for the features of the same images again and again: for every arm, fold and
seed. The cache lives as long as the evaluation and holds N x d x 4 bytes for each key.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from augkit.errors import PluginFailed
from augkit.interfaces import Extractor, Samples, extract
from augkit.store.samples import JoinedSamples, StoredSamples


@dataclass
class _ShardFeatures:
    known: np.ndarray
    """bool (rows,)."""
    values: np.ndarray | None = None
    """float32 (rows, d); meaningful where known."""


@dataclass
class FeatureCache:
    """Remembers features by key and shard; rows that are not stored, by their digest."""

    _shards: dict[tuple[str, str], _ShardFeatures] = field(default_factory=dict)
    _others: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def __call__(self, key: str, function: Extractor, samples: Samples) -> np.ndarray:
        """Return float32 (N, d), computing only what is not known yet."""
        if isinstance(samples, JoinedSamples):
            return np.concatenate([self(key, function, piece) for piece in samples.pieces])
        if isinstance(samples, StoredSamples):
            return self._stored(key, function, samples)
        known = (key, samples.digest)
        if known not in self._others:
            self._others[known] = _checked(extract(key, function, samples), len(samples))
        return self._others[known]

    def forget_unstored(self) -> None:
        """Drop the features of rows that are not stored: another partition has other ones."""
        self._others.clear()

    def _stored(self, key: str, function: Extractor, samples: StoredSamples) -> np.ndarray:
        rows = samples._rows
        pieces: list[np.ndarray] = [np.empty(0)] * len(rows.shards)
        for index in np.unique(rows.shard):
            named, here = rows.shards[index], np.flatnonzero(rows.shard == index)
            found = self._shards.setdefault(
                (key, named.content), _ShardFeatures(np.zeros(named.rows, bool))
            )
            missing = here[~found.known[rows.row[here]]]
            if len(missing):
                self._fill(found, key, function, samples.take(missing))
            assert found.values is not None
            pieces[index] = found.values
        width = next((p.shape[1] for p in pieces if p.size), 0)
        out = np.empty((len(rows.row), width), np.float32)
        for index in np.unique(rows.shard):
            here = rows.shard == index
            out[here] = pieces[index][rows.row[here]]
        return out

    def _fill(
        self, found: _ShardFeatures, key: str, function: Extractor, missing: StoredSamples
    ) -> None:
        made = _checked(extract(key, function, missing), len(missing))
        if found.values is None:
            found.values = np.zeros((len(found.known), made.shape[1]), np.float32)
        found.values[missing._rows.row] = made
        found.known[missing._rows.row] = True


def _checked(features: np.ndarray, n: int) -> np.ndarray:
    if features.ndim != 2 or len(features) != n:
        raise PluginFailed(f"features of {n} images have shape {features.shape}, not ({n}, d)")
    return features
