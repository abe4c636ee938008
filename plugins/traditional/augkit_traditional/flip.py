"""Mirror images left to right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augkit.interfaces import Augmenter, Shape, Window


@dataclass
class Flip(Augmenter):
    """Mirrors each image left to right, exactly: out[y, x] = in[y, W - 1 - x].

    Nothing is random, so an image has one flip. Text and calipers burned into an image are
    mirrored with it. There is no vertical flip: depth and shadow in ultrasound are physical.
    """

    name = "flip"
    deterministic = True

    def plan(self, labels: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        """Return (N,) with field `mirrored`, always true; nothing is drawn."""
        return np.ones(len(labels), [("mirrored", bool)])

    def as_window(self, params: np.ndarray, shape: Shape) -> Window:
        """Return the whole image, mirrored."""
        N = len(params)  # noqa: N806
        zeros = np.zeros(N, np.int64)
        width, height = np.full(N, shape[1]), np.full(N, shape[0])
        return Window(zeros, zeros, width, height, params["mirrored"].astype(bool))
