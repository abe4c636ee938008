"""Show a part of the image, enlarged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augkit.interfaces import Augmenter, Shape, Window
from augkit.options import option
from augkit.windows import WINDOW_FIELDS, recorded_window


@dataclass
class Zoom(Augmenter):
    """Shows a part of each image, at a random place, enlarged to the whole H x W.

    The part has the sides side * W and side * H, hence the aspect of the image, and its left and
    upper edges are uniform over the places where it lies inside. Each edge is then rounded to a
    whole source pixel, so that a corner moves by at most 0.71; at least one pixel is shown.
    There is never a border.
    """

    name = "zoom"

    side_range: tuple[float, float] = option(
        (0.7, 1.0), "sides of the part, as a fraction of the image's; uniform", low=0.01, high=1
    )
    exact: bool = option(False, "the same pixels on every machine, at about twice the time")

    def plan(self, labels: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        """Return (N,) with the drawn `side`, float64, and the window realised, in pixels."""
        params = np.empty(len(labels), [("side", np.float64), *WINDOW_FIELDS])
        params["side"] = rng.uniform(*self.side_range, len(labels))
        across, down = rng.random((2, len(labels)))
        params["x"], params["width"] = _placed(shape[1], params["side"], across)
        params["y"], params["height"] = _placed(shape[0], params["side"], down)
        return params

    def as_window(self, params: np.ndarray, shape: Shape) -> Window:
        """Return the recorded windows, all inside the image."""
        return recorded_window(params, exact=self.exact)


def _placed(size: int, side: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return start and length, in whole pixels, of a part at `place` (0: first, 1: last)."""
    left = place * (size - size * side)
    near = np.minimum(np.rint(left), size - 1)
    far = np.minimum(np.rint(left + size * side), size)
    return near, np.maximum(far - near, 1)
