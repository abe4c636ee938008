"""DiffAugment: what the critic is shown is changed at random, and the generator learns through it.

After Zhao et al. 2020. Cutout is left out, for it leaks into the samples; rotation and vertical
flips too, since depth and shadow are physical in ultrasound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_SHIFT = 0.125
"""Of a side: the farthest translation."""


@dataclass(frozen=True)
class Policies:
    """One draw of the chosen policies for a batch; None where a policy was not chosen."""

    shift: np.ndarray | None = None
    """float32 (N, 2), down and right, -1/8..1/8 of a side."""
    brightness: np.ndarray | None = None
    """float32 (N,), added, -0.5..0.5 of the half range."""
    contrast: np.ndarray | None = None
    """float32 (N,), factor about the mean, 0.5..1.5."""
    flip: np.ndarray | None = None
    """bool (N,)."""

    @classmethod
    def draw(cls, names: Sequence[str], n: int, rng: np.random.Generator) -> Policies:
        """Return a draw for a batch of n."""
        return cls(
            _uniform(rng, (n, 2), _SHIFT) if "translation" in names else None,
            _uniform(rng, (n,), 0.5) if "brightness" in names else None,
            _uniform(rng, (n,), 0.5) + 1 if "contrast" in names else None,
            rng.random(n) < 0.5 if "flip" in names else None,
        )


def augment(x: Tensor, policies: Policies) -> Tensor:
    """Return images (N, C, H, W) in -1..1 changed by the policies, differentiable by the images."""
    if policies.brightness is not None:
        x = x + _column(policies.brightness, x)
    if policies.contrast is not None:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * _column(policies.contrast, x) + mean
    if policies.flip is not None:
        mirrored = torch.from_numpy(policies.flip).to(x.device)[:, None, None, None]
        x = torch.where(mirrored, x.flip(3), x)
    if policies.shift is not None:
        x = _translated(x, policies.shift)
    return x


def _translated(x: Tensor, shift: np.ndarray) -> Tensor:
    """Return each image moved by whole pixels; what comes in from outside is black, -1."""
    height, width = x.shape[2:]
    pixels = np.rint(shift * (height, width)).astype(int)
    down, right = int(_SHIFT * height) + 1, int(_SHIFT * width) + 1
    padded = F.pad(x, (right, right, down, down), value=-1.0)
    moved = [
        padded[i, :, down - dy : down - dy + height, right - dx : right - dx + width]
        for i, (dy, dx) in enumerate(pixels.tolist())
    ]
    return torch.stack(moved)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], reach: float) -> np.ndarray:
    return (rng.random(shape, np.float32) * 2 - 1) * np.float32(reach)


def _column(values: np.ndarray, x: Tensor) -> Tensor:
    return torch.from_numpy(values).to(x.device)[:, None, None, None]
