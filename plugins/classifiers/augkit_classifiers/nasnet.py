"""NASNet-Large (Zoph et al. 2018), from timm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from augkit_classifiers.network import Network
from augkit_classifiers.weights import Published, TimmWeights

if TYPE_CHECKING:
    from torch import nn


@dataclass
class NASNet(Network):
    """NASNet-Large with a new output layer, from timm."""

    name = "nasnet"
    published: ClassVar[Published | None] = TimmWeights("timm/nasnetalarge.tf_in1k")
    parameters = 88_753_150
    made_for = (331, 331)
    head = "last_linear"

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network."""
        import timm

        return timm.create_model(
            "nasnetalarge", pretrained=False, num_classes=n_classes, in_chans=channels
        )
