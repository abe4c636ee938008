"""Enlarge or shrink images about their centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augkit.interfaces import Augmenter, Shape, Window
from augkit.options import option
from augkit.windows import WINDOW_FIELDS, recorded_window


@dataclass
class Scale(Augmenter):
    """Enlarges or shrinks each image by one factor about its centre ((W-1)/2, (H-1)/2).

    The size stays H x W: enlarging cuts off the margin, shrinking leaves a black border. The
    output shows the window of W/factor x H/factor pixels about the centre, each edge rounded to
    a whole source pixel alike on both sides: the centre is exact, a corner moves by at most 0.71
    source pixels. The place of a shrunk image in the output is rounded in the same way. Of a side
    of one or two pixels, one is always shown.
    """

    name = "scale"

    factor_range: tuple[float, float] = option(
        (0.8, 1.2), "above 1 enlarges, below 1 shrinks; drawn uniformly", low=0.01, high=100
    )
    exact: bool = option(False, "the same pixels on every machine, at about twice the time")

    def plan(self, labels: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        """Return (N,) with the drawn `factor`, float64, and the window realised, in pixels."""
        params = np.empty(len(labels), [("factor", np.float64), *WINDOW_FIELDS])
        params["factor"] = rng.uniform(*self.factor_range, len(labels))
        params["x"], params["width"] = _centred(shape[1], params["factor"])
        params["y"], params["height"] = _centred(shape[0], params["factor"])
        return params

    def as_window(self, params: np.ndarray, shape: Shape) -> Window:
        """Return the recorded windows, larger than the image where it shrinks."""
        return recorded_window(params, exact=self.exact)


def _centred(size: int, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return start and length of the whole pixels nearest to size/factor about the centre."""
    start = np.minimum(np.rint((size - size / factor) / 2), (size - 1) // 2)
    return start, size - 2 * start
