"""The classifiers that come with augkit."""

from augkit.hookspecs import hookimpl
from augkit.interfaces import Classifier


@hookimpl
def register_classifiers() -> list[type[Classifier]]:
    """Return the classifier classes of this package."""
    from augkit_classifiers.alexnet import AlexNet
    from augkit_classifiers.efficientnet_lite import (
        EfficientNetLite0,
        EfficientNetLite1,
        EfficientNetLite2,
    )
    from augkit_classifiers.inception import Inception
    from augkit_classifiers.linear import Linear
    from augkit_classifiers.nasnet import NASNet
    from augkit_classifiers.resnet import ResNet
    from augkit_classifiers.svm import Svm
    from augkit_classifiers.texture import Texture
    from augkit_classifiers.timm_network import Timm
    from augkit_classifiers.vgg16 import VGG16

    networks: list[type[Classifier]] = [AlexNet, VGG16, ResNet, Inception, NASNet, Timm]
    on_board: list[type[Classifier]] = [EfficientNetLite0, EfficientNetLite1, EfficientNetLite2]
    return [*networks, *on_board, Svm, Texture, Linear]
