"""augkit: does this augmentation really help my classifier?

import augkit as ak

store = ak.open("busi.store")
ak.augment(store, "flip")
print(ak.evaluate(store, "linear"))
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Augmenter": "augkit.interfaces",
    "ArraySamples": "augkit.interfaces",
    "AugkitError": "augkit.errors",
    "Classifier": "augkit.interfaces",
    "Context": "augkit.interfaces",
    "DatasetStore": "augkit.store",
    "HOLDOUT": "augkit.partitions",
    "Samples": "augkit.interfaces",
    "Window": "augkit.interfaces",
    "augment": "augkit.augmentation",
    "augment_all": "augkit.augmentation",
    "demo": "augkit.demonstration",
    "evaluate": "augkit.evaluation",
    "hookimpl": "augkit.hookspecs",
    "info": "augkit.summary",
    "ingest": "augkit.ingestion.ingest",
    "ingest_arrays": "augkit.ingestion.ingest",
    "open": "augkit.store.locate",
    "option": "augkit.options",
    "pack": "augkit.store.pack",
    "plugins": "augkit.registry",
    "preview": "augkit.report.sheets",
    "retract": "augkit.augmentation",
    "unpack": "augkit.store.pack",
    "verify": "augkit.store.verify",
}
_RENAMED = {"open": "open_store", "plugins": "registry"}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import augkit` costs nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module 'augkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
