"""The classifiers that come with augkit."""

from augkit.hookspecs import hookimpl
from augkit.interfaces import Classifier


@hookimpl
def register_classifiers() -> list[type[Classifier]]:
    """Return the classifier classes of this package."""
    from augkit_classifiers.linear import Linear

    return [Linear]
