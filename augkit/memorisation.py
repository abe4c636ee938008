"""Is a generated image a copy of a training image?

Every generated image is compared with every training image, by the prints and the correlation of
the finder of near-duplicates: over all shifts, mirrored or not, and magnified by up to a ninth.
First with all of them by the low frequencies of the prints alone, then with the eight most alike
in full. What counts is the peak of that correlation, 1 for equal images, less what the finder
raises its bar by for images that resemble anything.

What a score means is measured on the training images: each is compared with those of other folds
in the same way, and at most one in a hundred of them exceeds the threshold, which is never less
than what images of two hospitals reach.

Measured on BUSI at 192 x 160 (`benchmarks/results/memorisation.csv`). One copy of each of the 531
training images was planted: as it is, mirrored, shifted by up to 12 % of a side, cropped to 90 %,
mirrored and cropped, of other gain, under multiplicative noise, with new speckle in place of all
detail below 2.5 pixels, or blurred by 1 pixel. All were found. So were crops to 85 % and turns by
2 degrees; of turns by 5 degrees 41 %, of crops to 80 % 6 %, and of copies shown at 90 % of their
size 10 %. Of 230 images of other groups none was called a copy (95 % interval 0 to 1.6 %), and one
of them blurred by 2 or 4 pixels. A thousand images take 8.5 seconds of one idle core.

Two things to know. A mixture counts as a copy: the mean of 64 training images does, even the mean
of all. And plain shapes on a plain ground, unlike any scan, are told apart badly: 34 % of 200
ellipses were called copies.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from augkit.errors import InputError
from augkit.ingestion import duplicates
from augkit.ingestion.duplicates import SIDE, coarse, peaks, spectra
from augkit.interfaces import Progress, Samples, silent

FALSE_ALARMS = 0.01
"""The share of training images that may exceed the threshold with an image of another fold."""

LEAST = 0.132
"""The least threshold. No image of BUSI scores more with one of another hospital (0.126)."""

_CANDIDATES = 8
_COARSE = 24
_SIZES = (1.0, 0.95, 0.9)
_APART = slice(None, None, 2)  # low frequencies do not tell 0.95 from its neighbours


@dataclass(frozen=True)
class Nearest:
    """For each image the training image that it resembles most."""

    index: np.ndarray
    """int64 (n,), position among the training images."""
    score: np.ndarray
    """float32 (n,), 1 for equal images full of detail, 0 for an image without structure."""


@dataclass(frozen=True)
class Gallery:
    """The training images, ready to be compared with, by several threads at once.

    Holds about 40 kB for each training image.
    """

    waves: np.ndarray
    """complex64 (N, 96, 49), the spectra of the prints."""
    low: np.ndarray
    """complex64 (N, 24, 13), their low frequencies alone."""
    strangers: np.ndarray
    """complex64 (up to 17, 96, 49), the spectra of some of the prints turned upside down."""
    threshold: float = LEAST
    """The score that a copy exceeds."""

    @classmethod
    def of(cls, train: Samples, groups: np.ndarray, progress: Progress = silent) -> Gallery:
        """Return the gallery of the training images, which are read block by block.

        groups: int64 (N,), such as the folds; images of different ones are taken to show different
        things. Where
        all are of one group the threshold stays `LEAST`. Raises InputError if there are no
        images.
        """
        if not len(train):
            raise InputError("the training part holds no images to compare with. Ingest more")
        prints = np.empty((len(train), SIDE, SIDE), np.float32)
        scores: list[float] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = 0
            for block in train.blocks():
                prints[done : done + len(block)] = list(pool.map(_print, block))
                done += len(block)
                progress("prints", done, len(prints))
            gallery = cls._of(prints)
            found = pool.map(lambda one, own: gallery._stranger(one, groups != own), prints, groups)
            for score in found:
                scores.append(score)
                progress("strangers", len(scores), len(prints))
        return replace(gallery, threshold=_threshold(scores))

    @classmethod
    def _of(cls, prints: np.ndarray) -> Gallery:
        waves = spectra(prints)
        upside_down = prints[duplicates.strangers(len(prints)), ::-1]
        return cls(waves, coarse(waves, _COARSE), spectra(upside_down))

    def nearest(self, images: np.ndarray) -> Nearest:
        """Return for each image, by itself, the training image that it resembles most.

        images: uint8 (n, H, W, C), C 1 or 3; any height and width. Works on one thread.
        """
        everything = np.arange(len(self.waves))
        index, score = np.zeros(len(images), np.int64), np.zeros(len(images), np.float32)
        for i, image in enumerate(images):
            index[i], score[i] = self._nearest(_print(image), everything)
        return Nearest(index, score)

    def copies(self, nearest: Nearest) -> np.ndarray:
        """Return which of the images are copies of a training image: bool (n,)."""
        return nearest.score > self.threshold

    def _stranger(self, one: np.ndarray, other: np.ndarray) -> float:
        """Return the score of a print with the nearest of the others, 0 where there is none."""
        among = np.flatnonzero(other)
        return self._nearest(one, among)[1] if len(among) else 0.0

    def _nearest(self, one: np.ndarray, among: np.ndarray) -> tuple[int, float]:
        """Return index and score of the nearest to a print among some of the training images."""
        sizes = [(side * size, size) for side in (1, -1) for size in _SIZES]
        views = duplicates.views(one, sizes).reshape(2, len(_SIZES), *self.waves.shape[1:])
        alike = self._alike(views[:, _APART])[:, among]  # (2, n)
        chosen = np.argsort(-alike.max(0), kind="stable")[:_CANDIDATES]
        sides, chosen = alike[:, chosen].argmax(0), among[chosen]
        fine = [peaks(views[sides, size], self.waves[chosen]) for size in range(len(_SIZES))]
        scores = np.max(fine, axis=0)
        best = int(scores.argmax())
        return int(chosen[best]), max(float(scores[best]) - self._handicap(views[0, 0]), 0.0)

    def _alike(self, views: np.ndarray) -> np.ndarray:
        """Return the peaks at low frequencies, as they are and mirrored: float32 (2, N)."""
        low = coarse(views, _COARSE)  # (2, sizes, 24, 13)
        return np.stack([np.max([peaks(v, self.low, _COARSE) for v in side], 0) for side in low])

    def _handicap(self, view: np.ndarray) -> float:
        """Return by how much an image must score more, having too little detail to be unique."""
        level = np.median(peaks(view, self.strangers)).astype(np.float64)
        return float(duplicates.extra(level, LEAST))


def resemblance(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how much each image resembles its counterpart: float32 (n,), as `Nearest.score`.

    Both uint8 (n, H, W, C), any height and width.
    """
    found = np.zeros(len(images), np.float32)
    only = np.zeros(1, np.int64)
    for i, (image, other) in enumerate(zip(images, others, strict=True)):
        found[i] = Gallery._of(_print(other)[None])._nearest(_print(image), only)[1]
    return found


def _print(image: np.ndarray) -> np.ndarray:
    """Return the print of one image: float32 (96, 96)."""
    return duplicates.fingerprints(image[None])[0]


def _threshold(scores: list[float]) -> float:
    """Return what at most one in a hundred exceeds of the scores with strangers."""
    falling = np.sort(np.array(scores, np.float32))[::-1]
    return max(float(falling[int(FALSE_ALARMS * len(falling))]), LEAST)
