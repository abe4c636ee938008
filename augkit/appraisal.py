"""The verb `quality`: how good the images of a run are, class by class.

They are held against real images of the validation part, never of the test part, and beside them
stand real images of the training part, in their place: what these reach is what can be reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augkit import stats
from augkit.errors import LineageError, OptionError, StoreError
from augkit.feature_space import NETWORK, FeatureSpace
from augkit.fidelity import Comparison, Estimate, Images, compare
from augkit.interfaces import Progress, silent
from augkit.partitions import HOMES, Partition
from augkit.qualities import ClassQuality, Copies, Quality
from augkit.recipes import whole
from augkit.store import DatasetStore, Run, Snapshot
from augkit.store.locate import open_store
from augkit.store.samples import StoredSamples

LOOKED_AT = 1000
"""Images of each class and kind that are looked at by default."""

_MOST = 5000
"""Every pair of these is compared, in memory."""


@dataclass(frozen=True)
class Kind:
    """Images of one kind and one class: made, validation, or training."""

    samples: StoredSamples
    """Those that are looked at."""
    rows: np.ndarray
    """int64 (N,), their rows: within the run, or among all real images."""
    units: np.ndarray
    """int64 (N,), what they are draws of."""
    there: int
    """How many there are in all."""


@dataclass(frozen=True)
class Drawn:
    """What is looked at of one class."""

    label: int
    made: Kind
    validation: Kind
    training: Kind

    def kinds(self) -> dict[str, Kind]:
        """Return the three by name."""
        return {"made": self.made, "validation": self.validation, "training": self.training}


def quality(
    store: DatasetStore | str | Path | None,
    run: str,
    *,
    n: int = LOOKED_AT,
    seed: int = 0,
    features: str = NETWORK,
    sheets: str | Path | None = None,
    device: str | None = None,
    progress: Progress = silent,
) -> Quality:
    """Return how like real validation images the images of a run are, class by class.

    n: the most images of each class and kind that are looked at, drawn by `seed`. features:
    efficientnet-lite0, or descriptors, which need no weights. sheets: a folder for pictures:
    images beside the training images that they are most like, and the best, median and worst.
    device: where the network runs. Raises an AugkitError if the run does not exist, or has no
    images that may be trained on under its own partition.
    """
    if not 1 <= whole("n", n) <= _MOST:
        raise OptionError(f"n is {n}; it must be 1 to {_MOST}")
    if whole("seed", seed) < 0:
        raise OptionError(f"seed is {seed}; it must be at least 0")
    opened = open_store(store)
    snapshot = opened.snapshot()
    found = snapshot.run(run)
    partition = _partition(snapshot, found)
    drawn = list(_draw(snapshot, found, partition, n, seed))
    total = sum(len(kind.rows) for each in drawn for kind in each.kinds().values())
    space = FeatureSpace.open(
        opened, snapshot, features, device=device, total=total, progress=progress
    )
    space = space.centred(_some(snapshot.training(partition), n, seed))
    judged, written = [], []
    for each in drawn:
        images = {name: _features(space, kind) for name, kind in each.kinds().items()}
        judged.append(_judge(snapshot, found, each, images, seed))
        if sheets is not None:
            from augkit.reports.quality_sheets import draw_sheets

            written += draw_sheets(snapshot, found, each, images, Path(sheets))
    return Quality(
        store=snapshot.path,
        run=run,
        family=found.family,
        partition=partition.name,
        features=space.name,
        weights=space.weights,
        seed=seed,
        classes=tuple(judged),
        notes=_notes(snapshot, found, partition),
        sheets=tuple(str(path) for path in written),
    )


def _partition(snapshot: Snapshot, run: Run) -> Partition:
    """Return the partition that a run was made for. Raises an AugkitError if none serves."""
    homes = [partition for partition in HOMES if partition.name == run.partition]
    if not homes:
        raise LineageError(
            f"run {run.name!r} was made for {run.partition}, by an evaluation; quality is about "
            f"runs of augkit augment, made for {' or '.join(p.name for p in HOMES)}"
        )
    if not snapshot.trainable(run.name, homes[0]).any():
        raise LineageError(
            f"no image of run {run.name!r} comes from the training part alone any more: augment "
            "again"
        )
    if not len(snapshot.validation(homes[0])):
        raise StoreError(
            f"{snapshot.path} has no validation images to hold the run against: ingest more"
        )
    return homes[0]


def _draw(snapshot: Snapshot, run: Run, partition: Partition, n: int, seed: int) -> Iterator[Drawn]:
    """Yield for each class what is looked at, by lot."""
    real, parts = snapshot.real, snapshot.parts(partition)
    made = snapshot.training(partition, [run.name], real=False)
    rows = {
        "made": np.flatnonzero(snapshot.trainable(run.name, partition)),
        "validation": np.flatnonzero(parts == 1),
        "training": np.flatnonzero(parts == 0),
    }
    units = {name: real.groups[rows[name]] for name in ("validation", "training")}
    units["made"] = rows["made"]
    if run.family == "traditional":
        units["made"] = real.groups[snapshot.parents(run.name)[rows["made"]]]
    samples = {
        "made": made,
        "validation": snapshot.validation(partition),
        "training": snapshot.training(partition),
    }
    rng = np.random.Generator(np.random.Philox(seed))
    for label in range(len(snapshot.classes)):
        kinds = {}
        for name, them in samples.items():
            here = np.flatnonzero(them.labels == label)
            at = np.sort(rng.permutation(here)[:n])
            kinds[name] = Kind(them.take(at), rows[name][at], units[name][at], len(here))
        yield Drawn(label, **kinds)


def _some(samples: StoredSamples, n: int, seed: int) -> StoredSamples:
    rng = np.random.Generator(np.random.Philox(seed))
    return samples.take(np.sort(rng.permutation(len(samples))[:n]))


def _features(space: FeatureSpace, kind: Kind) -> Images:
    if not len(kind.rows):
        return Images(np.empty((0, 1)), kind.units)
    return Images(space(kind.samples), kind.units)


def _judge(
    snapshot: Snapshot, run: Run, drawn: Drawn, images: dict[str, Images], seed: int
) -> ClassQuality:
    found: Comparison = compare(images["validation"], images["made"], images["training"], seed=seed)
    return ClassQuality(
        name=snapshot.classes[drawn.label],
        images={name: kind.there for name, kind in drawn.kinds().items()},
        looked_at={name: len(kind.rows) for name, kind in drawn.kinds().items()},
        set_size=found.set_size,
        measures=found.measures,
        copies=_copies(run, drawn.label),
    )


def _copies(run: Run, label: int) -> Copies | None:
    """Return what was found when the run was made, of all its images of a class.

    None too for a class that came into the store later.
    """
    if run.memorisation is None or not sum(run.labels[label : label + 1]):
        return None
    n, total = run.memorisation["by_class"][label], run.labels[label]
    share = n / total
    error = math.sqrt(share * (1 - share) / total)
    low, high = stats.interval(share, error, n_groups=total)
    return Copies(n, total, Estimate(share, low, high), run.memorisation["threshold"])


def _notes(snapshot: Snapshot, run: Run, partition: Partition) -> tuple[str, ...]:
    notes = []
    model = snapshot.models.get(run.model or "")
    if model is not None:
        notes.append(f"model {model.name[:12]}" + (f" ({model.note})" if model.note else ""))
    left_out = int((~snapshot.trainable(run.name, partition)).sum())
    if left_out:
        notes.append(f"{left_out} images of the run are stale and were left out: augment again")
    if run.family == "traditional":
        notes.append("its images are made of the training images, so they ought to look like them")
    return tuple(notes)
