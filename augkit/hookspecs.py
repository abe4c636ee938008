"""The two hooks through which a package offers its plugins."""

import pluggy

from augkit.interfaces import Augmenter, Classifier

hookspec = pluggy.HookspecMarker("augkit")
hookimpl = pluggy.HookimplMarker("augkit")


@hookspec
def register_augmenters() -> list[type[Augmenter]]:  # type: ignore[empty-body]
    """Return the augmenter classes of this package."""


@hookspec
def register_classifiers() -> list[type[Classifier]]:  # type: ignore[empty-body]
    """Return the classifier classes of this package."""
