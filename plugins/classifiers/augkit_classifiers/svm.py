"""A support vector machine on the features of a frozen network (after Huynh et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from augkit.errors import OptionError
from augkit.interfaces import About, Classifier, Context, Cost, Samples, Shape
from augkit.options import option
from augkit_classifiers.alexnet import AlexNet
from augkit_classifiers.efficientnet_lite import EfficientNetLite0
from augkit_classifiers.inception import Inception
from augkit_classifiers.machines import Recipe, fit_machine
from augkit_classifiers.nasnet import NASNet
from augkit_classifiers.network import Network
from augkit_classifiers.resnet import ResNet
from augkit_classifiers.vgg16 import VGG16

_BODIES: dict[str, type[Network]] = {
    cls.name: cls for cls in (EfficientNetLite0, AlexNet, VGG16, ResNet, Inception, NASNet)
}


@dataclass
class Svm(Classifier):
    """A support vector machine on the features of a network that saw ImageNet only.

    Huynh et al. took AlexNet, `network=alexnet`; the default is the network whose weights are on
    board. Features, standard and classes are treated as in `texture`.
    """

    name = "svm"
    family = "classical"
    deterministic = True
    fast = True
    uses_device = True

    network: Literal["efficientnet-lite0", "alexnet", "vgg16", "resnet", "inception", "nasnet"] = (
        option("efficientnet-lite0", "whose features")
    )
    weights: str = option("imagenet", "of that network: imagenet, or the path of a file")
    kernel: Literal["linear", "rbf"] = option("linear", "of the support vector machine")
    C: float | None = option(
        None,
        "inverse strength of the penalty on the mean loss; none: chosen on the validation part",
        low=1e-6,
        high=1e6,
    )
    class_weight: Literal["balanced", "none"] = option(
        "balanced", "balanced: every class weighs the same; none: every image does"
    )

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
        """Fit until convergence; what is not given is chosen by the log loss on `val`.

        Ignores the seed and the budget. Raises InputError if `train` holds fewer than two
        classes, PluginFailed if the optimiser does not converge.
        """
        self.context_ = context
        self.body_ = self._body(train.shape)
        self.machine_ = fit_machine(
            self.body_.features(train, context),
            train.labels,
            self.body_.features(val, context),
            val.labels,
            recipe=Recipe(self.name, "svm", self.kernel, self.C, self.class_weight == "balanced"),
            context=context,
        )

    def predict_proba(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, n_classes); a class that was not in training has probability 0."""
        return self.machine_.predict_proba(self.body_.features(samples, self.context_))

    def _body(self, shape: Shape) -> Network:
        """Return the network, whose weights are tried when its features are first computed."""
        return _BODIES[self.network](weights=self.weights, train="head").sized(shape)
