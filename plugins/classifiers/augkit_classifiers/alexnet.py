"""AlexNet (Krizhevsky et al. 2012), from torchvision; and what the paper describes by that name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from augkit.errors import OptionError
from augkit.options import option
from augkit_classifiers.network import Network, with_channels, with_head
from augkit_classifiers.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from augkit_classifiers.weights import Published, TorchvisionWeights

if TYPE_CHECKING:
    from torch import nn


@dataclass
class AlexNet(Network):
    """AlexNet from scratch on grey images, with early stopping.

    The paper cites Krizhevsky's network, which `variant=torchvision` is, and describes another
    one: convolution and max-pooling twice, then two fully connected layers, which is
    `variant=paper`.
    """

    name = "alexnet"
    published: ClassVar[Published | None] = TorchvisionWeights(
        "alexnet", "alexnet-owt-7be5be79.pth"
    )
    parameters = 61_100_840
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    head = "classifier.6"
    smallest = 63
    patience = 10

    weights: str = option("none", "none; imagenet; the path of a file; auto: imagenet where here")
    epochs: int = option(60, "passes over the training images, at most", low=1)
    learning_rate: float = option(1e-4, "of Adam", low=1e-7, high=1)
    variant: Literal["torchvision", "paper"] = option("torchvision", "which network; see the docs")
    dropout: float = option(0.3, "share of hidden units that a step leaves out", low=0, high=0.99)

    def check(self) -> None:
        """Raise OptionError for options that contradict each other."""
        super().check()
        if self.variant == "paper" and self.weights == "imagenet":
            raise OptionError(
                "nobody publishes ImageNet weights for variant=paper of alexnet: -o weights=none"
            )

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return one of the two variants."""
        if self.variant == "paper":
            return _as_described(n_classes, channels, self._size(), self.dropout)
        from torchvision.models import alexnet

        network = with_channels(alexnet(weights=None, dropout=self.dropout), channels)
        return with_head(network, self.head, n_classes)

    def _published(self) -> Published | None:
        return self.published if self.variant == "torchvision" else None

    def body_of(self, network: nn.Module) -> nn.Module:
        """Return a network without its output layer."""
        return with_head(network, self._heads()[0], 0)

    def _heads(self) -> tuple[str, ...]:
        return (self.head if self.variant == "torchvision" else "8",)

    def _architecture(self) -> str:
        return f"alexnet-{self.variant}"


def _as_described(
    n_classes: int, channels: int, size: tuple[int, int], dropout: float
) -> nn.Module:
    """Return the network of the paper's description, section on AlexNet.

    Convolution and max-pooling twice and two fully connected layers, ReLU on the first, dropout
    0.30. Kernels and widths are not given: 5x5, 32 and 64, 128 hidden units.
    """
    from torch import nn

    height, width = size[0] // 4, size[1] // 4
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.MaxPool2d(2),  # (N, 32, H/2, W/2)
        nn.Conv2d(32, 64, 5, padding=2),
        nn.MaxPool2d(2),  # (N, 64, H/4, W/4)
        nn.Flatten(),
        nn.Linear(64 * height * width, 128),
        nn.ReLU(),
        nn.Dropout(dropout),
    ]
    return nn.Sequential(*layers, nn.Linear(128, n_classes))
