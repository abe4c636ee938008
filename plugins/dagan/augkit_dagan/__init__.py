"""DAGAN: a generator for each class, after Al-Dhabyani et al. 2019.

dagan       the plugin: options, presets, fit, apply, save, load
networks    generator and critic
training    the loop, its checkpoints, its log
sampling    images from latent seeds, the same whatever the block
"""

from augkit.hookspecs import hookimpl
from augkit.interfaces import Augmenter
from augkit_dagan.dagan import Dagan

__all__ = ["Dagan", "register_augmenters"]


@hookimpl
def register_augmenters() -> list[type[Augmenter]]:
    """Return the augmenter classes of this package."""
    return [Dagan]
