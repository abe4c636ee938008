"""A support vector machine on the features of a frozen network (after Huynh et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from augkit.errors import OptionError
from augkit.interfaces import About, Context, Cost, Samples, Shape
from augkit.options import option
from augkit_classifiers.alexnet import AlexNet
from augkit_classifiers.efficientnet_lite import EfficientNetLite0
from augkit_classifiers.inception import Inception
from augkit_classifiers.machines import OnFeatures
from augkit_classifiers.nasnet import NASNet
from augkit_classifiers.network import Network
from augkit_classifiers.resnet import ResNet
from augkit_classifiers.vgg16 import VGG16

_BODIES: dict[str, type[Network]] = {
    cls.name: cls for cls in (EfficientNetLite0, AlexNet, VGG16, ResNet, Inception, NASNet)
}


@dataclass
class Svm(OnFeatures):
    """A support vector machine on the features of a network that saw ImageNet only.

    Huynh et al. took AlexNet, `network=alexnet`; the default is the network whose weights are on
    board. Features, standard and classes are treated as in `texture`.
    """

    name = "svm"
    uses_device = True

    network: Literal["efficientnet-lite0", "alexnet", "vgg16", "resnet", "inception", "nasnet"] = (
        option("efficientnet-lite0", "whose features")
    )
    weights: str = option("imagenet", "of that network: imagenet, or the path of a file")

    @classmethod
    def about(cls) -> About:
        """Return what holds for the default network."""
        return EfficientNetLite0.about()

    def check(self) -> None:
        """Raise OptionError where there would be no weights: noise has no features."""
        if self.weights in ("none", "auto"):
            raise OptionError(
                f"option 'weights' of svm is {self.weights!r}; take imagenet or a file"
            )

    def settle(self, shape: Shape, device: str) -> Svm:
        """Return these options with the path of the weights made absolute.

        Raises InputError for weights that cannot be had or do not fit.
        """
        body = _BODIES[self.network](weights=self.weights, train="head")
        return replace(self, weights=body.settle(shape, device).weights)

    def provenance(self) -> dict[str, str]:
        """Return what the weights are, and their SHA-256."""
        return _BODIES[self.network](weights=self.weights).provenance()

    def cost(self, train: Samples, context: Context) -> Cost:
        """Measure what the features cost."""
        return self._body(train.shape).cost(train, context)

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        """Fit until convergence, as all on features; the network is loaded when it is needed."""
        self.body_ = self._body(train.shape)
        super().fit(train, val, context)

    def features(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, d) of the frozen network."""
        return self.body_.features(samples, self.context_)

    def _body(self, shape: Shape) -> Network:
        """Return the network, whose weights are tried when its features are first computed."""
        return _BODIES[self.network](weights=self.weights, train="head").sized(shape)
