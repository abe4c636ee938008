"""Near-duplicates: images that show the same scan shifted, cropped, marked, or mirrored.

Prints of two images (see `prints`) are correlated, once as they are, once mirrored, and with either
of them shrunk to a few sizes, because a crop that is resized to the common shape is a magnified
copy. The highest of these correlations, made fair to images whose detail lies in few places, is the
score of the pair.

Which pairs are compared: all, among up to 500 images; of more, those on a `shortlist`.
Besides, `keypoints` propose pairs with an alignment, at which the two are then compared: crops to
half of each side, of any shape, mirrored or not.

The threshold was chosen on the 780 images of BUSI at 192 x 160; `docs/ingest.md` says what lies on
either side of it. Over it are 246 of 303,810 pairs, and none of 232,320 that should not be related
(BUSI with BrEaST, BrEaST with itself). The shortlist holds 3 % of the pairs of BUSI, and all 246.

Of 30 images each, changed and put among the others, all were found when cut to 85, 75 or 65 %, cut
to 85 or 75 % and mirrored, turned by 3 degrees, marked with calipers and text, bent by gain and
gamma, or compressed to JPEG of quality 25; 29 cut to 60 x 80 % and 23 to 50 %.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise

import numpy as np

from augkit.ingestion.keypoints import Keypoints, Proposal, proposals
from augkit.ingestion.pace import Pace
from augkit.ingestion.pairs import Pairs
from augkit.ingestion.prints import (
    ALIKE,
    COARSE,
    SIDE,
    THRESHOLD,
    Prints,
    coarse,
    coarse_views,
    concentration,
    extra,
    fingerprints,
    flattened,
    level,
    peaks,
    shrunk,
    spectra,
    strangers,
    turned,
    unit,
    views,
    whitened,
)
from augkit.ingestion.shortlist import N_OUTLINE, outlines, shortlist
from augkit.interfaces import Progress, silent

__all__ = [
    "ALIKE",
    "SIDE",
    "THRESHOLD",
    "Pairs",
    "Traces",
    "coarse",
    "extra",
    "fingerprints",
    "peaks",
    "related_pairs",
    "spectra",
    "strangers",
    "views",
]

_MANY = 500
"""Of more images than this not all pairs are compared."""

_ROWS = 64

# Width and height of a shrunk print; a negative width is a mirrored one. Views of one line are
# sought together, as one template, in the first and coarse comparison.
_VIEWS = (
    ((1.0, 1.0),),
    ((0.92, 1.0), (0.84, 1.0), (0.77, 1.0), (0.71, 1.0)),
    ((1.0, 0.92), (1.0, 0.84), (0.92, 0.92), (0.84, 0.84), (-1.0, 1.0)),
)
_SIZES = tuple(size for group in _VIEWS for size in group)
_ENDS = tuple(np.cumsum([len(group) for group in _VIEWS]).tolist())
_FAIR = 1.123
"""The fourth root of the product of two concentrations from which on a peak counts less: two images
of 1.26, a fifth of them empty."""
_SURE = 0.3
"""Pairs that score more need no alignment by keypoints: they are relatives as they are."""
_MORE = 0.02
"""So much more a pair must score that keypoints propose: it is compared in the best alignment."""
_AROUND = (0.94, 0.97, 1.0, 1.03, 1.06)
"""The sizes that are tried around the one that keypoints propose."""
_MAYBE = 0.12
_ANGLES = (-4.0, -2.0, 2.0, 4.0)
"""Degrees by which an image is turned, where a pair scores more than this without being sure."""

_Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""First, second and score of pairs."""


class Traces:
    """What the search keeps of images, 20 kB each; images are added until there is no more room."""

    def __init__(self, room: int) -> None:
        self.n = 0
        self._prints = Prints.empty(room)
        self._outlines = np.zeros((room, N_OUTLINE), np.float16)
        self._keypoints = Keypoints.empty(room)

    @classmethod
    def of(cls, images: np.ndarray) -> Traces:
        """Return the traces of images, uint8 (n, H, W, C), C 1 or 3, any height and width."""
        traces = cls(len(images))
        for start in range(0, len(images), _ROWS):
            traces.add(images[start : start + _ROWS])
        return traces

    def __len__(self) -> int:
        return self.n

    def add(self, images: np.ndarray, workers: int | None = None) -> None:
        """Take in a block of images, on several threads."""
        workers = workers or os.cpu_count() or 1
        ends = np.linspace(0, len(images), min(workers, len(images)) + 1).astype(int).tolist()
        parts = [slice(a, b) for a, b in pairwise(ends)]
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda part: self._put(self.n + part.start, images[part]), parts))
        self.n += len(images)

    def copy(self, other: Traces, begin: int) -> None:
        """Take in the traces that another has from an index on."""
        there, here = slice(begin, other.n), slice(self.n, self.n + other.n - begin)
        self._prints.copy(here, other._prints, there)
        self._outlines[here] = other._outlines[there]
        self._keypoints.copy(here, other._keypoints, there)
        self.n = here.stop

    def _put(self, begin: int, images: np.ndarray) -> None:
        small = np.stack([shrunk(image) for image in images])
        even = flattened(small)
        self._prints.put(slice(begin, begin + len(images)), whitened(even))
        self._outlines[begin : begin + len(images)] = outlines(even)
        for index, one in enumerate(small, begin):
            self._keypoints.find(index, one)

    @property
    def prints(self) -> Prints:
        """Return the prints of the n images."""
        return self._prints.first(self.n)

    @property
    def outlines(self) -> np.ndarray:
        """Return float16 (n, 1152)."""
        return self._outlines[: self.n]

    @property
    def keypoints(self) -> Keypoints:
        """Return the keypoints of the n images."""
        found = self._keypoints
        return Keypoints(
            *(each[: self.n] for each in (found.counts, found.places, found.descriptors))
        )


def related_pairs(
    seen: Traces | np.ndarray,
    *,
    known: int = 0,
    threshold: float = THRESHOLD,
    workers: int | None = None,
    progress: Progress = silent,
    many: int = _MANY,
) -> Pairs:
    """Return the pairs of images that score over the threshold.

    The threshold rises for images that score high with anything, such as very small ones or plain
    shapes on a plain ground. A pair must score `ALIKE` at half of the resolution first, which can
    lose one that is just over that.
    seen: the traces of images; or their prints alone, (n, 96, 96), of which all pairs are compared
    and no keypoints. The first `known` are not compared with each other. threshold: 0..1. workers:
    threads, by default one a core; they do not change the result. many: of more images than this
    only pairs on the shortlist are compared. Besides the traces it needs about 150 MB, and 10 kB an
    image.
    """
    workers, lowest = workers or os.cpu_count() or 1, min(threshold, ALIKE)
    prints = seen.prints if isinstance(seen, Traces) else seen
    told = partial(progress, "near-duplicates")
    with ThreadPoolExecutor(workers) as pool, _one_thread_each():
        if isinstance(seen, Traces) and (len(prints) - known) * len(prints) > many**2:
            listed = shortlist(prints, seen.outlines, known=known, pool=pool, progress=progress)
        else:
            listed = _every_pair(len(prints), known)
        found = _merged(list(_compared(prints, *listed, lowest, pool, told)))
        if isinstance(seen, Traces):
            first, second, score = found
            skip = (first * len(prints) + second)[score > _SURE]
            proposed = proposals(seen.keypoints, known=known, skip=skip, pool=pool)
            also = pool.map(partial(_aligned, prints, threshold=lowest + _MORE), proposed)
            found = _merged([found, *also])
    told(len(prints), len(prints))
    return _fair(found, prints).over(threshold)


def _one_thread_each() -> AbstractContextManager[object]:
    """Return a context in which products of matrices use one thread: the workers are enough."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def _every_pair(n: int, known: int) -> tuple[np.ndarray, np.ndarray]:
    """Return first and second of all pairs of n images but of the `known` with each other."""
    first = [np.arange(second, dtype=np.int32) for second in range(known, n)]
    second = np.repeat(np.arange(known, n, dtype=np.int32), [len(each) for each in first])
    return np.concatenate([*first, second[:0]]), second


def _compared(
    prints: Prints | np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    threshold: float,
    pool: ThreadPoolExecutor,
    told: Callable[[int, int], None],
) -> Iterator[_Found]:
    """Yield the relatives among some pairs, each compared in both orders."""
    n = len(prints)
    blocks = [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]
    low = np.empty((n, COARSE, COARSE // 2 + 1, 2), np.float16)
    rows = np.concatenate([first, second])
    order = np.argsort(rows, kind="stable")
    partners = np.concatenate([second, first])[order]
    ends = np.searchsorted(rows[order], np.arange(n + 1))
    del first, second, rows, order

    def fill(block: slice) -> None:
        low[block] = coarse(spectra(prints[block])).view(np.float32).reshape(-1, *low.shape[1:])

    def search(block: slice) -> list[_Found]:
        templates = _templates(prints[block])
        return [
            _search(prints, low, row, np.sort(partners[ends[row] : ends[row + 1]]), each, threshold)
            for row, each in zip(range(block.start, block.stop), templates, strict=True)
        ]

    list(pool.map(fill, blocks))
    pace = Pace(f"comparing {len(partners) // 2} pairs that could be near-duplicates")
    for block, found in zip(blocks, pool.map(search, blocks), strict=True):
        yield from found
        told(block.stop - 1, n)
        pace.at(int(ends[block.stop]) / max(len(partners), 1))


def _templates(prints: np.ndarray) -> np.ndarray:
    """Return one coarse template for each group of views: complex64 (n, groups, 48, 25)."""
    groups = np.split(coarse_views(prints, _SIZES), _ENDS[:-1], axis=1)
    return unit(np.stack([group.sum(1) for group in groups], axis=1))


def _search(
    prints: Prints | np.ndarray,
    low: np.ndarray,
    row: int,
    columns: np.ndarray,
    templates: np.ndarray,
    threshold: float,
) -> _Found:
    """Return first, second and score of the relatives of one image among some others.

    low: float16 (n, 48, 25, 2), the coarse spectra of all. columns: int64 (m,), rising.
    """
    best = np.zeros(len(columns), np.float32)
    there = low[columns].astype(np.float32).view(np.complex64)[..., 0]
    # The first view is the print itself, where the order of two images does not matter.
    later = int(np.searchsorted(columns, row))
    for template, group, skip in zip(templates, _VIEWS, (later, 0, 0), strict=True):
        rough = peaks(template, there[skip:], COARSE)
        candidates = skip + np.flatnonzero(rough > threshold)
        if len(candidates):
            others = spectra(prints[columns[candidates]])
            for view in views(prints[row], group):
                best[candidates] = np.maximum(best[candidates], peaks(view, others))
    related = np.flatnonzero(best > threshold)
    others = columns[related].astype(np.int64)
    return np.minimum(row, others), np.maximum(row, others), best[related]


def _aligned(prints: Prints | np.ndarray, proposal: Proposal, *, threshold: float) -> _Found:
    """Return a proposed pair and its score, or nothing if it does not score over the threshold.

    Where an image would be larger in the other, the other is shrunk instead. Of a pair that could
    be one, the first image is turned a little as well.
    """
    sides = np.array([proposal.width, proposal.height])
    sign = np.array([-1 if proposal.mirrored else 1, 1])
    mine = [tuple(np.minimum(sides * s, 1) * sign) for s in _AROUND]
    theirs = [tuple(np.minimum(1 / (sides * s), 1)) for s in _AROUND]
    first = np.asarray(prints[proposal.first], np.float32)
    one = views(first, mine)
    other = views(np.asarray(prints[proposal.second], np.float32), theirs).conj()
    scores = peaks(one, other)
    size, best = int(scores.argmax()), scores.max(keepdims=True)
    if _MAYBE < best[0] < _SURE:
        turns = np.concatenate([views(each, [mine[size]]) for each in turned(first, _ANGLES)])
        best = np.maximum(best, peaks(turns, other[[size] * len(turns)]).max())
    n = int(best[0] > threshold)
    pair = np.array([[proposal.first], [proposal.second]], np.int64)[:, :n]
    return pair[0], pair[1], best[:n]


def _merged(found: Sequence[_Found]) -> _Found:
    """Return each pair once, with the higher of the scores of its two orders."""
    empty = np.empty(0, np.int64)
    first, second = (np.concatenate([empty, *(part[k] for part in found)]) for k in (0, 1))
    score = np.concatenate([np.empty(0, np.float32), *(part[2] for part in found)])
    order = np.lexsort((-score, second, first))
    first, second, score = first[order], second[order], score[order]
    new = np.ones(len(first), bool)
    new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return first[new], second[new], score[new]


def _fair(found: _Found, prints: Prints | np.ndarray) -> Pairs:
    """Return the pairs with their peaks made fair, and what they must stand out by.

    Peaks of images whose detail lies in few places count less. And pairs must stand out from what
    their images score with strangers.
    """
    if not len(found[0]):
        return Pairs.none()
    members, where = np.unique(found[:2], return_inverse=True)
    first, second = where.reshape(2, -1)
    blocks = np.array_split(members, -(-len(members) // _ROWS))
    spread = np.concatenate([concentration(prints[block]) for block in blocks])
    score = found[2] * np.minimum(_FAIR / (spread[first] * spread[second]) ** 0.25, 1)
    more = extra(level(prints, members))
    return Pairs(*found[:2], score.astype(np.float32), np.maximum(more[first], more[second]))
