"""Keypoints: copies that were cropped, magnified, or mirrored and cropped, whatever the window.

Where an image has a blob it has a keypoint (SIFT, Lowe 2004, kept upright), with a descriptor of
what surrounds it. Keypoints of two images that resemble each other each vote for how one image lies
in the other. Votes that agree propose a pair and its alignment; whether it is one is for the
correlation of the prints to say.

Descriptors are compared as cosines, each divided by how much it varies over ultrasound images: so
those of a mirrored image are those of the image, with some signs changed. Like meets like through
an index: of all descriptors only those that lie nearest to the same of some centres are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from scipy.fft import dct

from augkit.ingestion.prints import SIDE

N_KEYPOINTS = 64
"""Keypoints of an image, at most: those that stand out most."""

_ALIKE = 0.58
"""Two descriptors with a higher cosine are a match."""
_VOTES = 0.8
"""Matches that agree, each counted by how far it is over `_ALIKE` less 0.1, must sum to more."""
_LEAST = 3
_BATCH = 512
"""Images whose descriptors are held against all others at once, by one worker."""
_ROWS_AT_ONCE = 1024
"""Descriptors that are held against all centres at once: 34 MB with 4096 centres."""
_LARGEST_SCALE = 3.0
_NEAR, _SLANT = 2.0, 0.2
"""Two votes agree within so many pixels, and so many more a pixel that they lie apart."""

# Of the cosines of a descriptor over 4 rows, 4 columns and 8 directions: how much they vary over
# BUSI, as a product of three factors; and the mean of those that are not zero on average.
_ROWS = (1.446, 1.114, 0.937, 0.663)
_COLUMNS = (1.633, 1.160, 0.893, 0.591)
_DIRECTIONS = (0.953, 1.860, 1.769, 1.205, 1.231, 0.701, 0.683, 0.449)
_MEAN = {(0, 0, 0): 0.784, (0, 0, 2): -0.073, (2, 0, 0): -0.081}


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of images, 8.5 kB each."""

    counts: np.ndarray
    """int16 (n,)."""
    places: np.ndarray
    """float16 (n, 64, 3): x, y and size of each, in pixels of a print; only `counts` are valid."""
    descriptors: np.ndarray
    """int8 (n, 64, 128), unit vectors of even cosines in steps of 1/200."""

    @classmethod
    def empty(cls, n: int) -> Keypoints:
        """Return room for n images."""
        return cls(
            np.zeros(n, np.int16),
            np.zeros((n, N_KEYPOINTS, 3), np.float16),
            np.zeros((n, N_KEYPOINTS, 128), np.int8),
        )

    def copy(self, here: slice, other: Keypoints, there: slice) -> None:
        """Take over the keypoints of some images of another."""
        self.counts[here] = other.counts[there]
        self.places[here] = other.places[there]
        self.descriptors[here] = other.descriptors[there]

    def find(self, index: int, small: np.ndarray) -> None:
        """Find the keypoints of one image, float32 (96, 96) in 0..255, and keep them at index."""
        places, descriptors = _detected(small)
        self.counts[index] = len(places)
        self.places[index, : len(places)] = places
        rounded = np.rint(_even(descriptors) / _STEP)
        self.descriptors[index, : len(places)] = np.clip(rounded, -127, 127)


@dataclass(frozen=True)
class Proposal:
    """A pair that keypoints make likely, and how the first image lies in the second."""

    first: int
    second: int
    mirrored: bool
    """The first image is, after it was mirrored, ..."""
    width: float
    """so many times as wide in the second, ..."""
    height: float
    """and so many times as high."""


def proposals(
    points: Keypoints, *, known: int, skip: np.ndarray, pool: ThreadPoolExecutor
) -> Iterator[Proposal]:
    """Yield the pairs that keypoints propose, in order, mirrored ones last.

    The first `known` images are not paired with each other. skip: int64, sorted; pairs, as first
    times n plus second, that need not be looked for.
    """
    n = len(points.counts)
    image = np.repeat(np.arange(n, dtype=np.int32), points.counts)
    slot = np.concatenate([np.arange(c, dtype=np.int16) for c in [*points.counts, 0]])
    if not len(image):
        return
    index = _Index.of(points, image, slot, known, pool)
    for mirrored in (False, True):
        batch = partial(_proposed, index, mirrored, skip)
        for found in pool.map(batch, range(0, n, _BATCH)):
            yield from found


def _proposed(index: _Index, mirrored: bool, skip: np.ndarray, start: int) -> list[Proposal]:
    """Return the pairs that are proposed for a batch of images with later ones, in order."""
    image, n = index.image, len(index.points.counts)
    mine, other, alike = index.matches(start, mirrored)
    pair = image[mine].astype(np.int64) * n + image[other]
    several, counts = np.unique(pair, return_counts=True)
    several = np.setdiff1d(several[counts >= _LEAST], skip, assume_unique=True)
    some = np.flatnonzero(np.isin(pair, several))
    proposed = []
    for a, b, cosine in _by_pair(pair[some], mine[some], other[some], alike[some]):
        ours, theirs = index.places(a), index.places(b)
        if mirrored:
            ours[:, 0] = SIDE - 1 - ours[:, 0]
        fit = _fit(ours, theirs, cosine - _ALIKE + 0.1)
        if fit is not None:
            proposed.append(Proposal(int(image[a[0]]), int(image[b[0]]), mirrored, *fit))
    return proposed


def _detected(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places float32 (n, 3) and descriptors uint8 (n, 128) of what stands out most."""
    import cv2

    pixels = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    pixels = cv2.createCLAHE(3.0, (6, 6)).apply(pixels)
    sift = cv2.SIFT.create(contrastThreshold=0.0, edgeThreshold=12)
    # A blob of several directions gives several keypoints; upright, they are one.
    upright = {
        (round(k.pt[0], 1), round(k.pt[1], 1), round(k.size, 1)): k for k in sift.detect(pixels)
    }
    best = sorted(upright.items(), key=lambda item: (-item[1].response, item[0]))[:N_KEYPOINTS]
    kept = [cv2.KeyPoint(k.pt[0], k.pt[1], k.size, 0, k.response, k.octave) for _, k in best]
    if not kept:
        return np.empty((0, 3), np.float32), np.empty((0, 128), np.uint8)
    kept, descriptors = sift.compute(pixels, kept)
    places = np.array([[*k.pt, k.size] for k in kept], np.float32)
    return places, descriptors.astype(np.uint8)


def _cosines() -> np.ndarray:
    """Return what turns a descriptor into its cosines over rows, columns and directions."""
    turn = np.arange(8) * (np.pi / 4)
    waves = [f(k * turn) / 2 for k in (1, 2, 3) for f in (np.cos, np.sin)]
    around = np.stack([np.full(8, 8**-0.5), *waves, np.cos(4 * turn) / 8**0.5])
    along = dct(np.eye(4), axis=0, norm="ortho")
    return np.einsum("ar,bc,ko->abkrco", along, along, around).reshape(128, 128).astype(np.float32)


_TURN = _cosines()
_SPREAD = np.einsum("a,b,k->abk", _ROWS, _COLUMNS, _DIRECTIONS).reshape(128).astype(np.float32)
_OFFSET = np.zeros(128, np.float32)
for _place, _value in _MEAN.items():
    _OFFSET[np.ravel_multi_index(_place, (4, 4, 8))] = _value
_STEP = np.float32(1 / 200)
# Mirrored, odd cosines over columns change their sign, and so does each wave over directions that
# is odd about the vertical: cos 1, sin 2 and cos 3.
_MIRROR = np.einsum("b,k->bk", (1, -1, 1, -1), (1, -1, 1, 1, -1, -1, 1, 1))
_MIRROR = np.tile(_MIRROR.reshape(32), 4).astype(np.int8)
"""The signs that the numbers of a descriptor change when the image is mirrored."""


def _even(descriptors: np.ndarray) -> np.ndarray:
    """Return descriptors, uint8 (n, 128), as vectors of unit norm that strangers seldom share."""
    raw = descriptors.astype(np.float32)
    raw = np.sqrt(raw / np.maximum(raw.sum(1, keepdims=True), 1))
    turned = (raw @ _TURN.T - _OFFSET) / _SPREAD
    return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class _Index:
    """All descriptors, listed by the centres that they are near.

    The second half of the centres are the first mirrored, so that the centres near a descriptor say
    which ones are near it mirrored.
    """

    points: Keypoints
    image: np.ndarray
    slot: np.ndarray
    near: np.ndarray
    """int16 (m, up to 2), the nearest centres of each descriptor."""
    n_centres: int
    members: list[np.ndarray]
    """By centre: the descriptors near it, of images that may be second of a pair."""

    @classmethod
    def of(
        cls,
        points: Keypoints,
        image: np.ndarray,
        slot: np.ndarray,
        known: int,
        pool: ThreadPoolExecutor,
    ) -> _Index:
        half = int(np.clip(0.8 * len(image) ** 0.5, 1, 2048))
        sample = np.linspace(0, len(image) - 1, min(len(image), 24 * half)).astype(np.int64)
        centres = _centres(_vectors(points.descriptors[image[sample], slot[sample]]), half, pool)
        both = np.concatenate([centres, centres * _MIRROR]).T
        near = np.empty((len(image), 2), np.int16)

        def find(start: int) -> None:
            some = slice(start, start + _ROWS_AT_ONCE)
            alike = _vectors(points.descriptors[image[some], slot[some]]) @ both
            near[some] = np.argpartition(alike, -2, axis=1)[:, -2:]

        list(pool.map(find, range(0, len(image), _ROWS_AT_ONCE)))
        new = np.flatnonzero(image >= known).astype(np.int32)
        return cls(points, image, slot, near, 2 * half, _lists(new, near[new], 2 * half))

    def places(self, which: np.ndarray) -> np.ndarray:
        return self.points.places[self.image[which], self.slot[which]].astype(np.float32)

    def matches(self, start: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return descriptors of a batch, those of later images that resemble them, and cosines.

        A match is found up to four times, once for each centre that both are near.
        """
        begin, end = np.searchsorted(self.image, (start, start + _BATCH))
        queries = np.arange(begin, end, dtype=np.int32)
        near = self.near[queries]
        if mirrored:
            near = (near + self.n_centres // 2) % self.n_centres
        lists = _lists(queries, near, self.n_centres)
        pairs = zip(lists, self.members, strict=True)
        found = [self._within(mine, other, mirrored) for mine, other in pairs]
        mine, other, alike = (np.concatenate(each) for each in zip(*found, strict=True))
        return mine, other, alike

    def _within(
        self, mine: np.ndarray, other: np.ndarray, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(mine):  # both rise, and so do their images
            other = other[np.searchsorted(other, mine[0]) :]
        if not len(mine) or not len(other):
            return mine[:0], other[:0], np.empty(0, np.float32)
        ours, theirs = (self.points.descriptors[self.image[w], self.slot[w]] for w in (mine, other))
        alike = _vectors(ours * _MIRROR if mirrored else ours) @ _vectors(theirs).T
        a, b = np.divmod(np.flatnonzero(alike > _ALIKE), len(other))
        later = self.image[mine[a]] < self.image[other[b]]
        a, b = a[later], b[later]
        return mine[a], other[b], alike[a, b]


def _vectors(descriptors: np.ndarray) -> np.ndarray:
    """Return descriptors, int8 (n, 128), as float32 vectors of about unit norm."""
    return descriptors * _STEP


def _centres(some: np.ndarray, n: int, pool: ThreadPoolExecutor) -> np.ndarray:
    """Return n centres among unit vectors, by four rounds of k-means on the sphere.

    A vector that is nearest to a mirrored centre counts, mirrored, for the centre.
    """
    centres = some[np.linspace(0, len(some) - 1, n).astype(np.int64)]
    for _ in range(4):
        both = np.concatenate([centres, centres * _MIRROR]).T
        starts = range(0, len(some), _ROWS_AT_ONCE)
        near = pool.map(lambda s, to=both: (some[s : s + _ROWS_AT_ONCE] @ to).argmax(1), starts)
        nearest = np.concatenate(list(near))
        turned = np.where((nearest >= n)[:, None], some * _MIRROR, some)
        order = np.argsort(nearest % n, kind="stable")
        filled, begin = np.unique((nearest % n)[order], return_index=True)
        sums = np.add.reduceat(turned[order], begin, axis=0)
        centres = centres.copy()
        centres[filled] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return centres


def _lists(which: np.ndarray, near: np.ndarray, n_centres: int) -> list[np.ndarray]:
    """Return for each centre those of `which` that are near it, in order."""
    order = np.argsort(near.ravel(), kind="stable")
    ends = np.searchsorted(near.ravel()[order], np.arange(n_centres + 1))
    listed = which[order // near.shape[1]]
    return [listed[a:b] for a, b in pairwise(ends)]


def _by_pair(
    pair: np.ndarray, mine: np.ndarray, other: np.ndarray, alike: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the matches of each pair of images that has enough of them.

    A descriptor keeps the best of its matches within a pair, if it is the best of that one too. A
    match may be there more than once; it counts once.
    """
    if not len(pair):
        return
    both = np.ones(len(pair), bool)
    for ends in (mine, other):
        order = np.lexsort((-alike, ends, pair))
        first = np.ones(len(pair), bool)
        first[1:] = (np.diff(pair[order]) != 0) | (np.diff(ends[order]) != 0)
        both[order] &= first
    kept = np.flatnonzero(both)
    kept = kept[np.argsort(pair[kept], kind="stable")]
    _, begin, count = np.unique(pair[kept], return_index=True, return_counts=True)
    for a, n in zip(begin.tolist(), count.tolist(), strict=True):
        if n >= _LEAST:
            rows = kept[a : a + n]
            yield mine[rows], other[rows], alike[rows]


def _fit(ours: np.ndarray, theirs: np.ndarray, weight: np.ndarray) -> tuple[float, float] | None:
    """Return how many times as wide and high an image is in the other; None if votes disagree.

    ours, theirs: float32 (n, 3), x, y and size of matched keypoints. Each match says by itself how
    large the image is in the other and where; the votes that agree with the best one fit both axes.
    """
    size = np.clip(theirs[:, 2] / ours[:, 2], 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    apart = ours[None, :, :2] - ours[:, None, :2]  # (n, n, 2)
    miss = np.abs(theirs[:, None, :2] + size[:, None, None] * apart - theirs[None, :, :2])
    near = miss < (_NEAR + _SLANT * np.hypot(apart[..., 0], apart[..., 1]))[..., None]
    agree = near.all(2) & (np.abs(np.log(size[:, None] / size)) < 0.5)
    votes = agree @ weight
    best = int(votes.argmax())
    if votes[best] < _VOTES or agree[best].sum() < _LEAST:
        return None
    chosen, scale = agree[best], float(np.median(size[agree[best]]))
    width, height = (_slope(ours[chosen, k], theirs[chosen, k], scale) for k in (0, 1))
    return width, height


def _slope(x: np.ndarray, y: np.ndarray, prior: float) -> float:
    """Return the slope of y over x, drawn to the prior as if by 3 pixels of spread."""
    x, y = x - x.mean(), y - y.mean()
    slope = (float((x * y).mean()) + 9 * prior) / (float((x * x).mean()) + 9)
    return float(np.clip(slope, 1 / _LARGEST_SCALE, _LARGEST_SCALE))
