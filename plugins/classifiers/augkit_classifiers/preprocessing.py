"""From stored images to what a network takes: resized, scaled, and with as many channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Preprocessing:
    """Size and statistics of the images that a network was made for.

    The whole image is resized, its aspect with it: a crop could lose the lesion.
    """

    height: int
    width: int
    channels: int
    """1 or 3; grey images are repeated to 3, coloured ones are made grey by their luma."""
    mean: tuple[float, ...] = HALF
    std: tuple[float, ...] = HALF

    def __call__(self, images: np.ndarray) -> Tensor:
        """Return float32 (N, channels, height, width) from uint8 (N, H, W, C)."""
        import torch

        small = np.stack([self._resized(image) for image in images])  # (N, height, width, C)
        x = torch.from_numpy(small).permute(0, 3, 1, 2)
        x = x.expand(-1, self.channels, -1, -1).to(torch.float32)
        mean = torch.tensor(self.mean[: self.channels]).view(-1, 1, 1)
        std = torch.tensor(self.std[: self.channels]).view(-1, 1, 1)
        x = (x / 255 - mean) / std
        return x.contiguous(memory_format=torch.channels_last)

    def key(self) -> str:
        """Return what names these settings."""
        numbers = [*self.mean[: self.channels], *self.std[: self.channels]]
        return f"{self.width}x{self.height}x{self.channels}-{'-'.join(map(str, numbers))}"

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """Return one image at the right size: uint8 (height, width, 1 or channels)."""
        import cv2

        if image.shape[2] == 3 and self.channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if image.shape[:2] != (self.height, self.width):
            shrinks = self.height * self.width < image.shape[0] * image.shape[1]
            way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, (self.width, self.height), interpolation=way)
        return image.reshape(self.height, self.width, -1)
