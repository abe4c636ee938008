"""The traditional augmenters: flip, brightness, scale, zoom."""

from augkit.hookspecs import hookimpl
from augkit.interfaces import Augmenter
from augkit_traditional.brightness import Brightness
from augkit_traditional.flip import Flip
from augkit_traditional.scale import Scale
from augkit_traditional.zoom import Zoom

__all__ = ["Brightness", "Flip", "Scale", "Zoom", "register_augmenters"]


@hookimpl
def register_augmenters() -> list[type[Augmenter]]:
    """Return the augmenter classes of this package."""
    return [Flip, Brightness, Scale, Zoom]
