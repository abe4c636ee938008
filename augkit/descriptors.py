"""Descriptors: features of images made by hand, for a quick classifier and for comparing sets.

They need no weights and no training, so the same pixels give the same numbers everywhere.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

LEAST_SPREAD = 0.01
"""What to divide by at least when features are standardised: they are about 0.02 to 1 large, and
one that is nearly constant in some images must not become huge where it moves in others."""

_SIDE = 96


def outline(images: np.ndarray) -> np.ndarray:
    """Return float32 (N, 480), what each image shows at 24x20: grey levels, 0..1.

    images: uint8 (N, H, W, C). Blind to sharpness and fine texture, which `describe` is not.
    """
    from PIL import Image

    made = np.empty((len(images), 20, 24), np.float32)
    for small, image in zip(made, images, strict=True):
        grey = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("F")
        small[:] = np.asarray(grey.resize((24, 20), Image.Resampling.BOX))
    return made.reshape(len(images), -1) / 255


def describe(images: np.ndarray) -> np.ndarray:
    """Return float32 (N, d), the features of images uint8 (N, H, W, C), each by itself.

    A 16x16 thumbnail in 0..1 (of each channel), and of the grey image at 96x96: oriented
    gradients in 6x6 cells (8 directions; after Dalal and Triggs 2005), grey-level histograms in
    4x4 cells (8 bins) and uniform local binary patterns in 2x2 cells (59 bins; Ojala et al. 2002).
    d is 908 for one channel and 1420 for three.
    """
    return np.stack([_features(image) for image in images]).astype(np.float32)


def _features(image: np.ndarray) -> np.ndarray:
    import cv2

    thumbnail = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).ravel() / 255
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.concatenate([thumbnail, _gradients(grey), _levels(grey), _patterns(grey)])


def _gradients(grey: np.ndarray) -> np.ndarray:
    """Return (6 * 6 * 8,): log of the mean gradient in each cell and direction."""
    import cv2

    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.125)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.125)
    length, angle = cv2.cartToPolar(across, down)
    direction = angle.ravel() * (8 / np.pi)  # a gradient and its opposite count as one
    length = length.ravel()
    lower = np.floor(direction)
    share = direction - lower
    first = lower.astype(np.int64) % 8
    at = _cells(_SIDE, 6) * 8
    sums = np.bincount(at + first, length * (1 - share), 288)
    sums += np.bincount(at + (first + 1) % 8, length * share, 288)
    return np.log1p(sums / (_SIDE // 6) ** 2)


def _levels(grey: np.ndarray) -> np.ndarray:
    """Return (4 * 4 * 8,): root of the share of each grey level in each cell."""
    counts = np.bincount(_cells(_SIDE, 4) * 8 + grey.ravel() // 32, minlength=128)
    return np.sqrt(counts / (_SIDE // 4) ** 2)


def _patterns(grey: np.ndarray) -> np.ndarray:
    """Return (2 * 2 * 59,): root of the share of each binary pattern, at distance 2."""
    side = _SIDE - 4
    centre = grey[2:-2, 2:-2]
    code = np.zeros(centre.shape, np.uint8)
    ring = ((0, 0), (0, 2), (0, 4), (2, 4), (4, 4), (4, 2), (4, 0), (2, 0))
    for bit, (y, x) in enumerate(ring):
        code |= (grey[y : y + side, x : x + side] > centre).astype(np.uint8) << bit
    counts = np.bincount(_cells(side, 2) * 59 + _uniform()[code.ravel()], minlength=236)
    return np.sqrt(counts / (side // 2) ** 2)


@lru_cache
def _cells(side: int, cells: int) -> np.ndarray:
    """Return int64 (side * side,), the cell of each pixel; `cells` divides `side`."""
    at = np.arange(side) // (side // cells)
    return (at[:, None] * cells + at).ravel()


@lru_cache
def _uniform() -> np.ndarray:
    """Return int64 (256,): 0..57 for the codes with at most two changes around, else 58."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)
    smooth = (bits != np.roll(bits, 1, axis=1)).sum(1) <= 2
    return np.where(smooth, np.cumsum(smooth) - 1, 58)
