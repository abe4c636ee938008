"""ResNet (He et al. 2016), from torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from augkit.options import option
from augkit_classifiers.network import Network, with_channels, with_head
from augkit_classifiers.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from augkit_classifiers.weights import Published, TorchvisionWeights

if TYPE_CHECKING:
    from torch import nn

_FILES = {
    "18": "resnet18-f37072fd.pth",
    "34": "resnet34-b627a593.pth",
    "50": "resnet50-0676ba61.pth",
    "101": "resnet101-63fe2227.pth",
    "152": "resnet152-394f9c45.pth",
}


@dataclass
class ResNet(Network):
    """ResNet with a new output layer, from torchvision.

    The paper does not say how deep; the Keras of its day had 50 layers.
    """

    name = "resnet"
    published: ClassVar[Published | None] = TorchvisionWeights("resnet50", _FILES["50"])
    parameters = 25_557_032
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    head = "fc"

    depth: Literal["18", "34", "50", "101", "152"] = option("50", "layers")

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network of this depth."""
        from torchvision.models import get_model

        network = get_model(f"resnet{self.depth}", weights=None)
        return with_head(with_channels(network, channels), self.head, n_classes)

    def _published(self) -> Published | None:
        return TorchvisionWeights(f"resnet{self.depth}", _FILES[self.depth])

    def _architecture(self) -> str:
        return f"resnet{self.depth}"
