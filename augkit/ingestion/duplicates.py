"""Near-duplicates: images that show the same scan shifted, cropped, marked, or mirrored.

An image becomes a print of 96 x 96: high-passed, its local contrast evened out, its spectrum
whitened. Two prints are compared by normalised cross-correlation over all shifts (Kuglin and Hines
1975), of which the peak counts, once as they are, once mirrored, and with either of them shrunk
to a few sizes, because a crop that is resized to the common shape is a magnified copy.

The threshold was chosen on the 780 images of BUSI at 192 x 160. Over it lie 281 of 303,810 pairs,
239 of them over 0.3; the lowest twenty, looked at one by one, show the same lesion or region. Of
232,320 pairs that should not be related (BUSI with BrEaST, BrEaST with itself) none lies over it.
Cut to 85 % of both sides, or to 70 % of the width, every image of a sample of 80 was found again;
cut to 75 % of both sides one in thirteen. A copy both mirrored and cropped is mostly missed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from augkit.interfaces import Progress, silent

SIDE = 96
"""Height and width of a print, in pixels."""

THRESHOLD = 0.132
"""Two images with a higher score are relatives."""

_QUIET, _SLOPE, _HIGHEST = 0.072, 5.0, 0.8
"""Images whose prints resemble anything (few pixels, flat shapes) must score higher; see `bar`."""

_N_STRANGERS = 17
_COARSE = 48
_ROWS = 64
_COLUMNS = 256
_GREY = np.array([0.299, 0.587, 0.114], np.float32)

# Width and height of a shrunk print; a negative width is a mirrored one. Views of one line are
# sought together, as one template, in the first and coarse comparison.
_VIEWS = (
    ((1.0, 1.0),),
    ((0.92, 1.0), (0.84, 1.0), (0.77, 1.0), (0.71, 1.0)),
    ((1.0, 0.92), (1.0, 0.84), (0.92, 0.92), (0.84, 0.84), (-1.0, 1.0)),
)
_SIZES = tuple(size for group in _VIEWS for size in group)
_ENDS = tuple(np.cumsum([len(group) for group in _VIEWS]).tolist())


@dataclass(frozen=True)
class Pairs:
    """Pairs of related images, ordered by first and then by second."""

    first: np.ndarray
    """int64 (n,), index of one image."""
    second: np.ndarray
    """int64 (n,), index of the other, always larger than `first`."""
    score: np.ndarray
    """float32 (n,), peak of the correlation, 1 for equal images."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Return the prints of images: float32 (n, 96, 96), zero mean, unit norm.

    images: uint8 (n, H, W, C), C 1 or 3; any height and width. A print does not depend on the
    other images. An image without structure, such as a constant one, gives zeros.
    """
    prints = np.zeros((len(images), SIDE, SIDE), np.float32)
    for start in range(0, len(images), _ROWS):
        small = np.stack([_shrink(image) for image in images[start : start + _ROWS]])
        prints[start : start + _ROWS] = _whiten(_flatten(small))
    return prints


def related_pairs(
    prints: np.ndarray,
    *,
    known: int = 0,
    threshold: float = THRESHOLD,
    workers: int | None = None,
    progress: Progress = silent,
) -> Pairs:
    """Return the pairs of prints that score over the threshold.

    The threshold rises for images that score high with anything, such as very small ones or plain
    shapes on a plain ground. A pair must pass it at half of the resolution first, which can lose
    one that is just over it.
    prints: float32 (n, 96, 96), as `fingerprints` makes them; may be a memory map. The first
    `known` of them are not compared with each other. threshold: 0..1. workers: threads, by default
    one a core; they do not change the result. Besides the prints and the pairs it needs about
    100 MB, whatever n is. The time grows with n squared.
    """
    workers = workers or os.cpu_count() or 1
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(prints), _ROWS):
            some = np.asarray(prints[start : start + _ROWS])
            seen = np.stack(list(pool.map(lambda one: views(one, _SIZES), some)))
            templates = _templates(seen)
            for columns in _column_blocks(len(prints), known, start):
                others = spectra(prints[columns], workers)
                block = _Block(seen, templates, others, coarse(others), start, columns.start)
                rows = range(len(seen))
                jobs = [pool.submit(_search, block, row, known, threshold) for row in rows]
                found.extend(job.result() for job in jobs)
            progress("near-duplicates", min(start + _ROWS, len(prints)), len(prints))
    return _over_the_bar(_merged(found), prints, threshold)


def spectra(prints: np.ndarray, workers: int = 1) -> np.ndarray:
    """Return the spectra of prints (..., 96, 96): complex64 (..., 96, 49)."""
    return fft.rfft2(np.asarray(prints, np.float32), workers=workers)


def views(one: np.ndarray, sizes: Iterable[tuple[float, float]]) -> np.ndarray:
    """Return the conjugate spectra of one print in each size: complex64 (n, 96, 49).

    one: float32 (96, 96). sizes: the width and height, in 0..1 of the print's, that it is shrunk to
    about its centre; a negative width mirrors it. A view has unit norm, that of zeros is zero.
    """
    seen = np.stack([_resized(one, *size) for size in sizes])
    norm = np.sqrt((seen * seen).sum((1, 2), keepdims=True))
    return spectra(seen / np.maximum(norm, 1e-6)).conj()


def coarse(fine: np.ndarray, side: int = _COARSE) -> np.ndarray:
    """Return the low frequencies of spectra alone: complex64 (..., side, side / 2 + 1).

    fine: complex64 (..., 96, 49). side: even, height and width of the print that they belong to.
    Each has unit norm: `peaks` of two of them are correlations in -1..1.
    """
    half = side // 2
    low = np.concatenate([fine[..., :half, : half + 1], fine[..., -half:, : half + 1]], axis=-2)
    low[..., half, :] = low[..., half] = 0
    return _unit(low)


def peaks(view: np.ndarray, others: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the highest correlation over all shifts of a view with each other: float32 (n,).

    view: conjugate spectrum, complex64 (side, side / 2 + 1), or n of them, one for each other.
    others: spectra, complex64 (n, side, side / 2 + 1).
    """
    each = np.broadcast_to(view, others.shape)
    found = np.empty(len(others), np.float32)
    n = 32 * (SIDE // side) ** 2  # about a megabyte, which stays in the cache
    for start in range(0, len(others), n):
        product = each[start : start + n] * others[start : start + n]
        surface = fft.irfft2(product, (side, side), overwrite_x=True, workers=1)
        found[start : start + n] = surface.max((1, 2))
    return found


def strangers(n: int) -> np.ndarray:
    """Return which of n prints, turned upside down, serve as strangers: int64 (up to 17,)."""
    return np.unique(np.linspace(0, n - 1, _N_STRANGERS).astype(np.int64))


def bar(level: np.ndarray, threshold: float) -> np.ndarray:
    """Return the score that a relative must exceed, given the median score of strangers.

    Prints of full resolution, of BUSI or pure noise, score up to 0.072 with strangers and keep the
    threshold. Noise of 28 x 28 pixels scores 0.10, plain ellipses 0.2; the slope keeps all their
    strangers apart but a few ellipses of one shape.
    """
    raised = threshold + _SLOPE * np.maximum(level - _QUIET, 0)
    return np.maximum(np.minimum(raised, _HIGHEST), threshold)


def clusters(n: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cluster of each of n images: int64 (n,), numbered by their first members.

    first, second: int64 (m,), the related pairs. Images joined through others share a cluster;
    an image without relatives is a cluster by itself.
    """
    edges = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    labels = connected_components(edges, directed=False)[1] if n else np.empty(0, np.int64)
    _, where, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(where), np.int64)
    rank[np.argsort(where)] = np.arange(len(where))
    return rank[inverse]


@dataclass(frozen=True)
class _Block:
    """Some prints as rows, in all their views, and some as columns to be compared with."""

    views: np.ndarray
    templates: np.ndarray
    others: np.ndarray
    coarse: np.ndarray
    first_row: int
    first_column: int


def _shrink(image: np.ndarray) -> np.ndarray:
    """Return one image grey and small: float32 (96, 96), 0..255."""
    grey = image[..., 0].astype(np.float32) if image.shape[-1] == 1 else image @ _GREY
    resized = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.float32)


def _flatten(small: np.ndarray) -> np.ndarray:
    """Return images without slow changes and with even local contrast, or zeros.

    What is black counts as outside of the image: means are taken over the rest, so that the
    outline of the field of view, the same in every image of a scanner, leaves no trace. The
    4 grey levels keep compression noise in dark regions down.
    """
    seen = minimum_filter(maximum_filter(small, (1, 5, 5)) > 8, (1, 7, 7)).astype(np.float32)
    share = [np.maximum(gaussian_filter(seen, (0, s, s)), 1e-3) for s in (2, 6)]
    detail = seen * (small - gaussian_filter(seen * small, (0, 2, 2)) / share[0])
    contrast = np.sqrt(gaussian_filter(detail * detail, (0, 6, 6)) / share[1])
    even = detail / (contrast + 4)
    even[np.ptp(small, (1, 2)) < 1] = 0
    return even


def _whiten(even: np.ndarray) -> np.ndarray:
    """Return images whose smoothed power spectrum is flat up to 36 cycles, unit norm.

    Layered tissue otherwise correlates with any other layered tissue.
    """
    spectra = fft.fft2(even)
    power = gaussian_filter(np.abs(spectra) ** 2, (0, 4, 4), mode="wrap")
    cycles = np.fft.fftfreq(SIDE, 1 / SIDE).astype(np.float32)
    band = np.exp(-((np.hypot(cycles[:, None], cycles) / 36) ** 4))
    band[0, 0] = 0
    white = fft.ifft2(spectra * band / np.sqrt(power + 1e-6)).real
    norm = np.sqrt((white * white).sum((1, 2), keepdims=True))
    return white / np.maximum(norm, 1e-6)


def _column_blocks(n: int, known: int, first_row: int) -> Iterator[slice]:
    """Yield the blocks of prints that a block of rows must be compared with."""
    begin = known if first_row + _ROWS <= known else 0
    for start in range(begin, n, _COLUMNS):
        yield slice(start, min(start + _COLUMNS, n))


def _resized(one: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return one print shrunk about the centre and padded with zeros, float32 (96, 96)."""
    columns, rows = round(SIDE * abs(width)), round(SIDE * height)
    one = np.ascontiguousarray(one[:, ::-1] if width < 0 else one)
    small = Image.fromarray(one).resize((columns, rows), Image.Resampling.LANCZOS)
    left, above = (SIDE - columns) // 2, (SIDE - rows) // 2
    padding = ((above, SIDE - rows - above), (left, SIDE - columns - left))
    return np.pad(np.asarray(small), padding)


def _unit(low: np.ndarray) -> np.ndarray:
    """Return coarse spectra scaled so that `irfft2` of a product is a correlation in -1..1."""
    twice = np.full(low.shape[-1], 2, np.float32)
    twice[0] = 1
    norm = np.sqrt(((low.real**2 + low.imag**2) * twice).sum((-2, -1), keepdims=True))
    return low * (low.shape[-2] / np.maximum(norm, 1e-6))


def _templates(views: np.ndarray) -> np.ndarray:
    """Return one coarse template for each group of views: complex64 (n, groups, 48, 25)."""
    groups = np.split(coarse(views), _ENDS[:-1], axis=1)
    return _unit(np.stack([group.sum(1) for group in groups], axis=1))


def _search(
    block: _Block, row: int, known: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first, second and score of the relatives of one row among the columns."""
    index = block.first_row + row
    begin = known if index < known else 0
    ends, firsts = _ENDS, (0, *_ENDS[:-1])
    best = np.zeros(len(block.others), np.float32)
    for group, template in enumerate(block.templates[row]):
        # The first view is the print itself, where the order of two images does not matter.
        skip = max((max(begin, index + 1) if group == 0 else begin) - block.first_column, 0)
        rough = peaks(template, block.coarse[skip:], _COARSE)
        candidates = skip + np.flatnonzero(rough > threshold)
        for view in block.views[row, firsts[group] : ends[group]]:
            fine = peaks(view, block.others[candidates])
            best[candidates] = np.maximum(best[candidates], fine)
    related = np.flatnonzero(best > threshold)
    related = related[related + block.first_column != index]
    columns = related + block.first_column
    return np.minimum(index, columns), np.maximum(index, columns), best[related]


def _merged(found: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Pairs:
    """Return each pair once, with the higher of the scores of its two orders."""
    empty = np.empty(0, np.int64)
    first, second = (np.concatenate([empty, *(part[k] for part in found)]) for k in (0, 1))
    score = np.concatenate([np.empty(0, np.float32), *(part[2] for part in found)])
    order = np.lexsort((-score, second, first))
    first, second, score = first[order], second[order], score[order]
    new = np.ones(len(first), bool)
    new[1:] = (np.diff(first) != 0) | (np.diff(second) != 0)
    return Pairs(first[new], second[new], score[new])


def _over_the_bar(pairs: Pairs, prints: np.ndarray, threshold: float) -> Pairs:
    """Return the pairs that also stand out from what their images score with strangers."""
    if not len(pairs):
        return pairs
    members, where = np.unique([pairs.first, pairs.second], return_inverse=True)
    bars = bar(_level(prints, members), threshold)[where.reshape(2, -1)].max(0)
    kept = pairs.score > bars
    return Pairs(pairs.first[kept], pairs.second[kept], pairs.score[kept])


def _level(prints: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return what each member scores with a stranger: float32 (n,), a median over some of them.

    Strangers are other prints turned upside down: alike in everything but related to nothing.
    """
    chosen = strangers(len(prints))
    levels = np.full((len(members), len(chosen)), np.nan, np.float32)
    upside_down = spectra(np.asarray(prints[chosen])[:, ::-1]).conj()
    for start in range(0, len(members), _COLUMNS):
        others = spectra(np.asarray(prints[members[start : start + _COLUMNS]]))
        for column, stranger in enumerate(upside_down):
            levels[start : start + _COLUMNS, column] = peaks(stranger, others)
    levels[members[:, None] == chosen] = np.nan  # an image may be symmetric to itself
    return np.nanmedian(levels, axis=1)
