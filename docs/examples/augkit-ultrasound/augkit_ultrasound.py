"""Two plugins for augkit: an augmenter (depth-gain) and a classifier (nearest-mean)."""

from dataclasses import dataclass

import numpy as np

from augkit import Augmenter, Classifier, hookimpl, option


@hookimpl
def register_augmenters():
    return [DepthGain]


@hookimpl
def register_classifiers():
    return [NearestMean]


@dataclass
class DepthGain(Augmenter):
    """Moves the eight gain sliders of a scanner (time-gain compensation).

    A B-mode image shows decibels, so gain is added: with 60 dB from black to white, 6 dB are a
    tenth of full white. Between the sliders, which lie from the first row to the last, the gain
    changes linearly. What is black (no echo, or no image) stays black.
    """

    name = "depth-gain"

    gain_range: tuple[float, float] = option(
        (-6.0, 6.0), "dB at each slider, drawn uniformly", low=-60, high=60
    )
    dynamic_range: float = option(60.0, "dB from black to white", low=20, high=120)

    def plan(self, labels, shape, rng):
        params = np.empty(len(labels), [("gain", np.float64, 8)])
        params["gain"] = rng.uniform(*self.gain_range, params["gain"].shape)
        return params

    def apply(self, images, labels, params):
        depths = np.linspace(0, 7, images.shape[1])
        gain = np.stack([np.interp(depths, np.arange(8), g) for g in params["gain"]])  # (N, H), dB
        shift = gain[:, :, None, None] * (255 / self.dynamic_range)  # (N, H, 1, 1), grey levels
        made = np.clip(np.rint(images + shift), 0, 255)
        return np.where(images > 0, made, 0).astype(np.uint8)

    def apply_masks(self, masks, params):
        return masks


@dataclass
class NearestMean(Classifier):
    """Compares the grey levels at each depth with the mean of each class."""

    name = "nearest-mean"
    family = "classical"
    deterministic = True
    fast = True

    n_bands: int = option(4, "bands of depth, each with a histogram of its own", low=1, high=16)

    def fit(self, train, val, context):
        self.context_ = context
        features = self._features(train)
        self.means_ = np.full((len(context.classes), features.shape[1]), np.inf)
        for label in np.unique(train.labels):  # a class without images stays out of reach
            self.means_[label] = features[train.labels == label].mean(0)
        self.spread_ = np.square(features - self.means_[train.labels]).sum(1).mean() + 1e-9

    def predict_proba(self, samples):
        difference = self._features(samples)[:, None] - self.means_  # (N, classes, d)
        distance = np.square(difference).sum(2) / self.spread_  # (N, classes)
        chances = np.exp(distance.min(1, keepdims=True) - distance)
        return (chances / chances.sum(1, keepdims=True)).astype(np.float32)

    def _features(self, samples):
        """Return float32 (N, d); augkit keeps what was computed under this key before."""
        return self.context_.cached(f"depth-histograms-{self.n_bands}", self._histograms, samples)

    def _histograms(self, images):
        """Return float64 (n, 16 * n_bands): root of the share of 16 grey levels in each band."""
        shares = [
            [np.histogram(band, 16, (0, 256))[0] / band.size for band in bands]
            for bands in (np.array_split(image, self.n_bands) for image in images)
        ]
        return np.sqrt(shares).reshape(len(images), -1)
