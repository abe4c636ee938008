"""augkit: does this augmentation really help my classifier?

import augkit as ak

store = ak.open("busi.store")
ak.augment(store, "flip")
print(ak.evaluate(store, "linear"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` imports when it is first used
    from augkit.appraisal import quality as quality
    from augkit.augmentation import augment as augment
    from augkit.augmentation import augment_all as augment_all
    from augkit.augmentation import retract as retract
    from augkit.demonstration import demo as demo
    from augkit.designs import Design as Design
    from augkit.errors import AugkitError as AugkitError
    from augkit.evaluation import evaluate as evaluate
    from augkit.exporting import export as export
    from augkit.fitting import fit as fit
    from augkit.hookspecs import hookimpl as hookimpl
    from augkit.ingestion.ingest import ingest as ingest
    from augkit.ingestion.ingest import ingest_arrays as ingest_arrays
    from augkit.interfaces import ArraySamples as ArraySamples
    from augkit.interfaces import Augmenter as Augmenter
    from augkit.interfaces import Classifier as Classifier
    from augkit.interfaces import Context as Context
    from augkit.interfaces import Fitted as Fitted
    from augkit.interfaces import Samples as Samples
    from augkit.interfaces import Window as Window
    from augkit.options import option as option
    from augkit.partitions import GIVEN as GIVEN
    from augkit.partitions import HOLDOUT as HOLDOUT
    from augkit.purging import purge as purge
    from augkit.registry import registry as plugins  # noqa: F401
    from augkit.replaying import replay as replay
    from augkit.reports.previewing import preview as preview
    from augkit.reports.reporting import report as report
    from augkit.store import DatasetStore as DatasetStore
    from augkit.store.locate import open_store as open  # noqa: F401
    from augkit.store.pack import pack as pack
    from augkit.store.pack import unpack as unpack
    from augkit.store.verify import verify as verify
    from augkit.studies import plan as plan
    from augkit.studies import run_task as run_task
    from augkit.studies import study as study
    from augkit.summary import info as info

__version__ = "0.1.0"

_WHERE = {
    "ArraySamples": "augkit.interfaces",
    "AugkitError": "augkit.errors",
    "Augmenter": "augkit.interfaces",
    "Classifier": "augkit.interfaces",
    "Context": "augkit.interfaces",
    "DatasetStore": "augkit.store",
    "Design": "augkit.designs",
    "Fitted": "augkit.interfaces",
    "GIVEN": "augkit.partitions",
    "HOLDOUT": "augkit.partitions",
    "Samples": "augkit.interfaces",
    "Window": "augkit.interfaces",
    "augment": "augkit.augmentation",
    "augment_all": "augkit.augmentation",
    "demo": "augkit.demonstration",
    "evaluate": "augkit.evaluation",
    "export": "augkit.exporting",
    "fit": "augkit.fitting",
    "hookimpl": "augkit.hookspecs",
    "info": "augkit.summary",
    "ingest": "augkit.ingestion.ingest",
    "ingest_arrays": "augkit.ingestion.ingest",
    "open": "augkit.store.locate",
    "option": "augkit.options",
    "pack": "augkit.store.pack",
    "plan": "augkit.studies",
    "plugins": "augkit.registry",
    "preview": "augkit.reports.previewing",
    "purge": "augkit.purging",
    "quality": "augkit.appraisal",
    "replay": "augkit.replaying",
    "report": "augkit.reports.reporting",
    "retract": "augkit.augmentation",
    "run_task": "augkit.studies",
    "study": "augkit.studies",
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
