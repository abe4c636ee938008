"""Prints: small images of what is fine and local in a scan, and how they are correlated.

An image becomes a print of 96 x 96: high-passed, its local contrast evened out, its spectrum
whitened. Two prints are compared by normalised cross-correlation over all shifts (Kuglin and Hines
1975), of which the peak counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter, rotate

SIDE = 96
"""Height and width of a print, in pixels."""

THRESHOLD = 0.2
"""Two images with a higher score show the same scan: they are relatives, of one group."""

ALIKE = 0.12
"""Two with a higher score may show the same lesion: where there is room, they share a fold."""

COARSE = 48
"""Height and width of the prints that are compared first."""

_QUIET, _SLOPE, _HIGHEST = 0.072, 5.0, 0.8
"""Images whose prints resemble anything (few pixels, flat shapes) must score more; see `extra`."""

_BLACK = 4.0
"""Grey levels, up to which a pixel counts as black: resampling leaves so much beside an edge."""

_N_STRANGERS = 17
_ROWS = 64
_COLUMNS = 256
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Prints:
    """Prints in a byte a pixel, 9 kB each; what is taken out of them is float32.

    Rounding to one of 255 levels, spread over the range of each print, moves a correlation by less
    than 0.001.
    """

    codes: np.ndarray
    """int8 (n, 96, 96)."""
    steps: np.ndarray
    """float32 (n, 1, 1), what a level stands for."""

    @classmethod
    def empty(cls, n: int) -> Prints:
        """Return room for n prints."""
        return cls(np.zeros((n, SIDE, SIDE), np.int8), np.zeros((n, 1, 1), np.float32))

    def put(self, here: slice, prints: np.ndarray) -> None:
        """Keep some prints, float32 (m, 96, 96)."""
        step = np.abs(prints).max((1, 2), keepdims=True) / 127
        self.steps[here] = step
        self.codes[here] = np.rint(prints / np.maximum(step, 1e-9))

    def copy(self, here: slice, other: Prints, there: slice) -> None:
        """Take over some prints of another."""
        self.steps[here] = other.steps[there]
        self.codes[here] = other.codes[there]

    def first(self, n: int) -> Prints:
        """Return the first n, in the same memory."""
        return Prints(self.codes[:n], self.steps[:n])

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Return one print, float32 (96, 96), or some, float32 (m, 96, 96)."""
        return np.asarray(self.codes[rows] * self.steps[rows], np.float32)


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Return the prints of images: float32 (n, 96, 96), zero mean, unit norm.

    images: uint8 (n, H, W, C), C 1 or 3; any height and width. A print does not depend on the
    other images. An image without structure, such as a constant one, gives zeros.
    """
    prints = np.zeros((len(images), SIDE, SIDE), np.float32)
    for start in range(0, len(images), _ROWS):
        small = np.stack([shrunk(image) for image in images[start : start + _ROWS]])
        prints[start : start + _ROWS] = whitened(flattened(small))
    return prints


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


def turned(one: np.ndarray, angles: Sequence[float]) -> np.ndarray:
    """Return one print, float32 (96, 96), turned by some degrees: float32 (n, 96, 96)."""
    return np.stack([rotate(one, angle, reshape=False, order=1) for angle in angles])


def coarse(fine: np.ndarray, side: int = COARSE) -> np.ndarray:
    """Return the low frequencies of spectra alone: complex64 (..., side, side / 2 + 1).

    fine: complex64 (..., 96, 49). side: even, height and width of the print that they belong to.
    Each has unit norm: `peaks` of two of them are correlations in -1..1.
    """
    half = side // 2
    low = np.concatenate([fine[..., :half, : half + 1], fine[..., -half:, : half + 1]], axis=-2)
    low[..., half, :] = low[..., half] = 0
    return unit(low)


def coarse_views(prints: np.ndarray, sizes: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return what `coarse` makes of the views of prints: complex64 (n, sizes, 48, 25).

    prints: float32 (n, 96, 96). sizes: as for `views`. Shrinking and the spectrum of a line are
    both products with a matrix, here of both at once.
    """
    half = COARSE // 2
    down = {h: _line(h)[np.r_[: half + 1, -half + 1 : 0]] for _, h in sizes}  # (48, 96) each
    across = {w: _line(w)[: half + 1].T for w, _ in sizes}  # (96, 25) each
    lines = {w: np.asarray(prints, np.float32) @ matrix for w, matrix in across.items()}
    low = np.stack([down[h] @ lines[w] for w, h in sizes], axis=1).conj()
    low[..., half, :] = low[..., half] = 0
    return unit(low)


@lru_cache(maxsize=64)
def _line(size: float) -> np.ndarray:
    """Return what turns a line into the spectrum of its view, of its own size: complex64 (96, 96).

    size: as the width of a view.
    """
    line = np.stack([_resized(np.tile(row, (SIDE, 1)), size, 1.0)[0] for row in np.eye(SIDE)])
    matrix: np.ndarray = np.fft.fft(line.T, axis=0).astype(np.complex64)
    matrix.flags.writeable = False
    return matrix


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


def concentration(prints: np.ndarray) -> np.ndarray:
    """Return how far the detail of prints is from being everywhere: float32 (n,), from 1 on.

    prints: float32 (n, 96, 96). About 1.1 for a scan that is full of texture, 2 if half of it is
    black. By chance, two prints correlate as much higher as their energies lie in fewer places:
    by the square root of the mean product of these, at most the fourth root of the product of both
    numbers (Cauchy and Schwarz). A print of zeros has 1.
    """
    energy = gaussian_filter(prints * prints, (0, 6, 6), mode="constant")
    energy /= np.maximum(energy.mean((1, 2), keepdims=True), 1e-12)
    return np.maximum((energy * energy).mean((1, 2)), 1)


def strangers(n: int) -> np.ndarray:
    """Return which of n prints, turned upside down, serve as strangers: int64 (up to 17,)."""
    return np.unique(np.linspace(0, n - 1, _N_STRANGERS).astype(np.int64))


def extra(level: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Return what a relative must score beyond a threshold, given the median score of strangers.

    Prints of full resolution, of BUSI or pure noise, score up to 0.072 with strangers and need no
    more. Noise of 28 x 28 pixels scores 0.10, plain ellipses 0.2; the slope keeps all their
    strangers apart but a few ellipses of one shape.
    """
    more = _SLOPE * np.maximum(level - _QUIET, 0)
    return np.minimum(more, _HIGHEST - threshold).astype(np.float32)


def level(prints: Prints | np.ndarray, members: np.ndarray) -> np.ndarray:
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


def shrunk(image: np.ndarray) -> np.ndarray:
    """Return one image grey and small: float32 (96, 96), 0..255."""
    grey = image[..., 0].astype(np.float32) if image.shape[-1] == 1 else image @ _GREY
    resized = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.float32)


def flattened(small: np.ndarray) -> np.ndarray:
    """Return images without slow changes and with even local contrast, or zeros.

    Means are taken over what is `_inside`. The 4 grey levels keep compression noise in dark regions
    down.
    """
    seen = _inside(small).astype(np.float32)
    share = [np.maximum(gaussian_filter(seen, (0, s, s)), 1e-3) for s in (2, 6)]
    detail = seen * (small - gaussian_filter(seen * small, (0, 2, 2)) / share[0])
    contrast = np.sqrt(gaussian_filter(detail * detail, (0, 6, 6)) / share[1])
    even = detail / (contrast + 4)
    even[np.ptp(small, (1, 2)) < 1] = 0
    return even


def _inside(small: np.ndarray) -> np.ndarray:
    """Return what is not outside of the field of view, nor within 3 pixels of it: bool (n, 96, 96).

    Outside is what is black, and, be it one pixel wide, what is black from a border on: else the
    outline of a sector, or the wedges of turned images, would be the same detail in all of them.
    """
    seen = maximum_filter(small, (1, 5, 5)) > 8
    black = small <= _BLACK
    for axis in (1, 2):
        seen &= ~np.logical_and.accumulate(black, axis)
        back = np.logical_and.accumulate(np.flip(black, axis), axis)
        seen &= ~np.flip(back, axis)
    inside: np.ndarray = minimum_filter(seen, (1, 7, 7))
    return inside


def whitened(even: np.ndarray) -> np.ndarray:
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


def _resized(one: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return one print shrunk about the centre and padded with zeros, float32 (96, 96)."""
    columns, rows = round(SIDE * abs(width)), round(SIDE * height)
    one = np.ascontiguousarray(one[:, ::-1] if width < 0 else one, np.float32)
    small = Image.fromarray(one).resize((columns, rows), Image.Resampling.LANCZOS)
    left, above = (SIDE - columns) // 2, (SIDE - rows) // 2
    padding = ((above, SIDE - rows - above), (left, SIDE - columns - left))
    return np.pad(np.asarray(small), padding)


def unit(low: np.ndarray) -> np.ndarray:
    """Return coarse spectra scaled so that `irfft2` of a product is a correlation in -1..1."""
    twice = np.full(low.shape[-1], 2, np.float32)
    twice[0] = 1
    norm = np.sqrt(((low.real**2 + low.imag**2) * twice).sum((-2, -1), keepdims=True))
    return low * (low.shape[-2] / np.maximum(norm, 1e-6))
