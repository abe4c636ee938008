"""A shortlist of pairs that could be relatives, for sets too large to compare every pair well.

An outline says how strong the edges of each direction are around each of 12 x 12 places (after
Dalal and Triggs 2005); two of them are compared by one inner product, so all pairs are by products
of matrices, and of outlines moved by a place or two. Where outlines agree somewhat, prints of
24 x 24 are correlated; each image keeps the pairs in which both together are best. Of 281 pairs
of near-duplicates in BUSI the lowest reach 0.393 and 0.413, and each is among the best five of one
of its images. The bounds below let one pair in seven and one in thirty pass that is not related.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter

from augkit.ingestion.pace import Pace
from augkit.ingestion.prints import SIDE, Prints, coarse, peaks, spectra
from augkit.interfaces import Progress

N_OUTLINE = 12 * 12 * 8
"""Numbers in an outline."""

_OUTLINES_AGREE = 0.3
_COULD_BE = 0.39
_WEIGHT = 0.5
_SIDE = 24
_MOVES = ((0, 1), (0, -1), (0, 2), (0, -2), (1, 0), (-1, 0))
"""Places, down and right, by which an outline is moved, all round, to agree with another."""
_LEAST, _SHARE = 50, 400
"""An image keeps so many pairs, or one in so many of all images: those that agree best."""
_ROWS, _COLUMNS = 256, 2048
_PRUNED = 1_000_000
"""So many pairs more, and those that are not among the best of either image are left out."""
_NONE = np.empty(0, np.int32)


def outlines(even: np.ndarray) -> np.ndarray:
    """Return the outlines of flattened images: float16 (n, 1152).

    even: float32 (n, 96, 96), as `prints.flattened` makes them.
    """
    down, right = np.gradient(gaussian_filter(even, (0, 1.5, 1.5)), axis=(1, 2))
    blur = _blur()
    angles = np.arange(8) * (np.pi / 4)
    edges = [np.maximum(right * np.cos(a) + down * np.sin(a), 0) for a in angles]
    found = [blur @ e.astype(np.float32) @ blur.T for e in edges]  # (n, 12, 12) each
    return np.sqrt(np.stack(found, axis=-1)).reshape(len(even), -1).astype(np.float16)


def shortlist(
    prints: Prints | np.ndarray,
    outlines: np.ndarray,
    *,
    known: int,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return first and second, int32 (m,), of the pairs that could be relatives, in order.

    prints: (n, 96, 96). outlines: (n, 1152). The first `known` are not paired with each other.
    The mean outline of all is taken off each.
    """
    low = np.concatenate([coarse(spectra(some), _SIDE) for some in _blocks(prints)])
    mean = np.asarray(np.mean(outlines, axis=0, dtype=np.float64), np.float32)
    listed, most, n = _Listed(len(prints)), 0, len(prints)
    pace = Pace(f"first look for near-duplicates among {n} images")
    look = partial(_looked_at, low, outlines, mean, known)
    for found in pool.map(look, range(0, len(prints), _ROWS)):
        listed.extend(*found)
        most += _ROWS
        progress("near-duplicates, first look", min(most, n), n)
        pace.at(1 - max(1 - most / n, 0) ** 2)  # each is held against those after it
    return listed.best()


class _Listed:
    """Pairs that were found so far, of which those that cannot stay are left out now and then."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._parts = [(_NONE, _NONE, np.empty(0, np.float32))]
        self._fresh = 0

    def extend(self, first: np.ndarray, second: np.ndarray, score: np.ndarray) -> None:
        """Take in pairs whose first image comes after those of the pairs before."""
        self._parts.append((first, second, score))
        self._fresh += len(first)
        if self._fresh > _PRUNED:
            self.best()

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Return first and second of the pairs that are among the best of either image."""
        first, second, score = (np.concatenate(each) for each in zip(*self._parts, strict=True))
        kept = _best_of_each(first, second, score, self._n)
        self._parts, self._fresh = [(first[kept], second[kept], score[kept])], 0
        return self._parts[0][:2]


def _best_of_each(first: np.ndarray, second: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """Return bool (m,): the pair is among the best of either of its images. first rises."""
    most = max(_LEAST, n // _SHARE)
    by_second = np.argsort(second, kind="stable").astype(np.int32)
    rows = np.searchsorted(first, np.arange(n + 1))
    columns = np.searchsorted(second[by_second], np.arange(n + 1))
    kept = np.zeros(len(first), bool)
    for image in range(n):
        later = np.arange(rows[image], rows[image + 1])
        mine = np.concatenate([later, by_second[columns[image] : columns[image + 1]]])
        if len(mine) > most:
            mine = mine[np.argpartition(-score[mine], most - 1)[:most]]
        kept[mine] = True
    return kept


def _blur() -> np.ndarray:
    """Return the weights that average 96 pixels around 12 places: float32 (12, 96)."""
    places = (np.arange(12) + 0.5) * (SIDE / 12)
    far = (np.arange(SIDE) - places[:, None]) / (0.6 * SIDE / 12)
    weights = np.exp(-(far**2) / 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _blocks(prints: Prints | np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(prints), _ROWS):
        yield prints[start : start + _ROWS]


def _looked_at(
    low: np.ndarray, outlines: np.ndarray, mean: np.ndarray, known: int, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first, second and score of the pairs of a block of images with later ones."""
    rows = np.arange(start, min(start + _ROWS, len(low)))
    alike, begin = _alike(outlines, mean, rows, known)
    found = [
        _promising(low, row, mine, begin=begin, known=known)
        for row, mine in zip(rows.tolist(), alike, strict=True)
    ]
    second, score = (np.concatenate(each) for each in zip(*found, strict=True))
    return np.repeat(rows.astype(np.int32), [len(f[0]) for f in found]), second, score


def _alike(
    outlines: np.ndarray, mean: np.ndarray, rows: np.ndarray, known: int
) -> tuple[np.ndarray, int]:
    """Return the agreement of rows with all later images, and which of these is the first."""
    mine = _unit(outlines[rows], mean)
    places = mine.reshape(-1, 12, 12, 8)
    moved = [np.roll(places, move, axis=(1, 2)).reshape(mine.shape) for move in _MOVES]
    begin = max(int(rows[0]) + 1, known if rows[-1] < known else 0)
    alike = np.empty((len(rows), len(outlines) - begin), np.float32)
    for start in range(begin, len(outlines), _COLUMNS):
        others = _unit(outlines[start : start + _COLUMNS], mean).T
        best = mine @ others
        for each in moved:
            np.maximum(best, each @ others, out=best)
        alike[:, start - begin : start - begin + _COLUMNS] = best
    return alike, begin


def _unit(outlines: np.ndarray, mean: np.ndarray) -> np.ndarray:
    centred = outlines.astype(np.float32) - mean
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def _promising(
    low: np.ndarray, row: int, alike: np.ndarray, *, begin: int, known: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the later images that could be relatives of one, int32 (m,), and how much so."""
    columns = begin + np.flatnonzero(alike > _OUTLINES_AGREE)
    columns = columns[columns > (max(row, known - 1) if row < known else row)]
    together = peaks(low[row].conj(), low[columns], _SIDE) + _WEIGHT * alike[columns - begin]
    passed = together > _COULD_BE
    return columns[passed].astype(np.int32), together[passed]
