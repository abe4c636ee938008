"""Make images brighter or darker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augkit.interfaces import Augmenter, Shape
from augkit.options import option


@dataclass
class Brightness(Augmenter):
    """Makes each image brighter or darker: out = clip(rint(gain * in + shift * 255), 0, 255).

    Rounded half to even, in float64; truncation would darken by half a grey level.
    """

    name = "brightness"

    gain_range: tuple[float, float] = option(
        (0.8, 1.2), "factor on the grey levels, drawn uniformly", low=0.01, high=100
    )
    shift_range: tuple[float, float] = option(
        (0.0, 0.0), "added, as a fraction of full white, drawn uniformly", low=-1, high=1
    )

    def plan(self, labels: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        """Return (N,) with the fields `gain` and `shift`, float64, uniform in their ranges."""
        params = np.empty(len(labels), [("gain", np.float64), ("shift", np.float64)])
        params["gain"] = rng.uniform(*self.gain_range, len(labels))
        params["shift"] = rng.uniform(*self.shift_range, len(labels))
        return params

    def as_lut(self, params: np.ndarray) -> np.ndarray:
        """Return uint8 (N, 256), the formula for each grey level."""
        levels = np.outer(params["gain"], np.arange(256.0)) + 255.0 * params["shift"][:, None]
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)
