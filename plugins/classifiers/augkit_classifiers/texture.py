"""Texture features with a support vector machine or AdaBoost, as before there were networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from augkit.errors import OptionError, PluginError
from augkit.interfaces import About, Samples, Shape
from augkit.options import option
from augkit_classifiers.machines import OnFeatures, Recipe

_KEY = "texture-1"
_LEVELS = 32
_DISTANCES = (1, 2, 4)
_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
_PROPERTIES = ("contrast", "dissimilarity", "entropy", "homogeneity", "energy", "correlation")
_RADII = (1, 2, 3)
_POINTS = 8
_WAVELET = "db2"
_MOST_SCALES = 4


@dataclass
class Texture(OnFeatures):
    """A support vector machine or AdaBoost on co-occurrences, binary patterns and wavelets.

    The classical way with breast ultrasound. The classes weigh the same by default and plain
    copies of the data change nothing, for the reasons given in `linear`; the probabilities are
    a softmax of the scores at the temperature that fits the validation part best.
    """

    name = "texture"

    machine: Literal["svm", "adaboost"] = option(
        "svm", "svm: support vector machine; adaboost: AdaBoost on stumps"
    )

    @classmethod
    def about(cls) -> About:
        """Return where the features come from."""
        return About(source="scikit-image, PyWavelets, scikit-learn", licence="BSD-3-Clause, MIT")

    def check(self) -> None:
        """Raise OptionError for an option of the support vector machine given to AdaBoost."""
        if self.machine == "adaboost" and (self.C is not None or self.kernel != "linear"):
            given = f"kernel={self.kernel}" if self.C is None else f"C={self.C:g}"
            raise OptionError(
                f"texture: {given} is for machine=svm; machine=adaboost takes neither C nor kernel"
            )

    def settle(self, shape: Shape, device: str) -> Texture:
        """Return itself. Raises PluginError without its packages."""
        _libraries()
        return self

    def recipe(self) -> Recipe:
        """Return what to make of the features."""
        return replace(super().recipe(), machine=self.machine)

    def features(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, d), see `texture`."""
        return self.context_.cached(_KEY, texture, samples)


def texture(images: np.ndarray) -> np.ndarray:
    """Return float32 (N, d), features of the grey images, each by itself.

    images: uint8 (N, H, W, 1 or 3), H and W at least 8, the least of a store. d is 128 where both
    are at least 48:

    - grey-level co-occurrences (Haralick et al. 1973), 32 levels, 3 distances, 4 angles: logarithm
      of contrast and dissimilarity, entropy, homogeneity, energy, correlation (72). The angles stay
      apart: along the beam ultrasound resolves more than across it.
    - uniform binary patterns of 8 points at radii 1, 2, 3 (Ojala et al. 2002): root of the share
      of each of the 10; without the margin, whose neighbours lie outside (30).
    - wavelets (db2), as many scales as fit, at most 4: logarithm of mean size and spread of the
      coefficients of each band (26).

    A logarithm is that of 1 + x. Raises PluginError without scikit-image and PyWavelets.
    """
    _libraries()
    found = [
        np.concatenate([_cooccurrences(grey), _patterns(grey), _wavelets(grey)])
        for grey in map(_grey, images)
    ]
    return np.stack(found).astype(np.float32)


def _libraries() -> tuple[Any, Any]:
    """Return skimage.feature and pywt. Raises PluginError where they are missing."""
    try:
        import pywt
        import skimage.feature
    except ImportError as error:
        raise PluginError(
            f"texture needs scikit-image and PyWavelets ({error}): "
            "pip install scikit-image PyWavelets"
        ) from error
    return skimage.feature, pywt


def _grey(image: np.ndarray) -> np.ndarray:
    """Return uint8 (H, W)."""
    import cv2

    return image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _cooccurrences(grey: np.ndarray) -> np.ndarray:
    """Return (6 * 3 * 4,): by property, distance and angle."""
    feature, _ = _libraries()
    counts = feature.graycomatrix(
        grey // (256 // _LEVELS), _DISTANCES, _ANGLES, _LEVELS, symmetric=True, normed=True
    )  # (32, 32, 3, 4)
    found = np.stack([feature.graycoprops(counts, name) for name in _PROPERTIES])
    found[:2] = np.log1p(found[:2])
    return found.ravel()


def _patterns(grey: np.ndarray) -> np.ndarray:
    """Return (3 * 10,): by radius and pattern."""
    feature, _ = _libraries()
    found = []
    for radius in _RADII:
        codes = feature.local_binary_pattern(grey, _POINTS, radius, "uniform")
        inner = codes[radius:-radius, radius:-radius].astype(np.int64)
        found.append(np.sqrt(np.bincount(inner.ravel(), minlength=_POINTS + 2) / inner.size))
    return np.concatenate(found)


def _wavelets(grey: np.ndarray) -> np.ndarray:
    """Return (2 * (1 + 3 * scales),): mean size and spread of the coarse band and the others."""
    _, wavelets = _libraries()
    scales = min(_MOST_SCALES, wavelets.dwtn_max_level(grey.shape, _WAVELET))
    coarse, *details = wavelets.wavedec2(grey.astype(np.float64), _WAVELET, level=scales)
    bands = [coarse, *(band for scale in details for band in scale)]
    return np.log1p([[np.abs(band).mean(), band.std()] for band in bands]).ravel()
