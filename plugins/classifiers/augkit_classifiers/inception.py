"""Inception v3 (Szegedy et al. 2016), from torchvision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from augkit_classifiers.network import Network, with_channels, with_head
from augkit_classifiers.preprocessing import HALF
from augkit_classifiers.weights import Published, TorchvisionWeights

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Inception(Network):
    """Inception v3 with a new output layer, from torchvision.

    Without its auxiliary classifier, as in the Keras of the paper's day. Its weights come from
    TensorFlow and were made for images scaled to -1..1.
    """

    name = "inception"
    published: ClassVar[Published | None] = TorchvisionWeights(
        "inception_v3", "inception_v3_google-0cc3c7bd.pth"
    )
    parameters = 23_834_568
    made_for = (299, 299)
    mean, std = HALF, HALF
    head = "fc"
    smallest = 75

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network."""
        from torchvision.models import inception_v3

        network = inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=True
        )
        return with_head(with_channels(network, channels), self.head, n_classes)
