"""VGG16 (Simonyan and Zisserman 2015), from torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from augkit_classifiers.network import Network, with_channels, with_head
from augkit_classifiers.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from augkit_classifiers.weights import Published, TorchvisionWeights

if TYPE_CHECKING:
    from torch import nn


@dataclass
class VGG16(Network):
    """VGG16 with a new output layer, from torchvision."""

    name = "vgg16"
    published: ClassVar[Published | None] = TorchvisionWeights("vgg16", "vgg16-397923af.pth")
    parameters = 138_357_544
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    head = "classifier.6"

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network; its two hidden layers belong to the body."""
        from torchvision.models import vgg16

        return with_head(with_channels(vgg16(weights=None), channels), self.head, n_classes)
