"""Another augkit store as the source: its real images, from the pixels that it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from augkit.errors import InputError, OptionError
from augkit.ingestion.readers import Listing, Source, listing, printable
from augkit.partitions import PARTS
from augkit.store import DatasetStore, Snapshot
from augkit.tables import counted

if TYPE_CHECKING:
    from augkit.ingestion.decode import Decoded, Target

_BLOCK = 64


def read_store(path: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the real images of a store, with the keys, classes, groups and masks that they have.

    Relatives that the store knows stay relatives. Its runs are not read: they can be made again.
    Raises OptionError for a data set, since the keys name theirs, InputError for an empty store.
    """
    if dataset is not None:
        raise OptionError("a store brings its own names of data sets: leave --dataset out")
    snapshot = DatasetStore.open(path).snapshot()
    real = snapshot.real
    if not len(real.keys):
        raise InputError(f"{printable(path)} holds no images; name another store")
    sources = [_source(snapshot, row, Path(path)) for row in range(len(real.keys))]
    notes = [f"{counted(len(snapshot.runs), 'run')} of it not read"] if snapshot.runs else []
    return replace(
        listing(sources, (), 0, unread=()),
        read_as="a store of augkit",
        notes=tuple(notes),
        shape=snapshot.shape,
        pixels=StoredPixels(snapshot),
    )


def _source(snapshot: Snapshot, row: int, path: Path) -> Source:
    real = snapshot.real
    key, patient, given = str(real.keys[row]), str(real.patients[row]), int(real.given[row])
    dataset = key.split("/", 1)[0]
    return Source(
        key=key,
        path=path,
        label=snapshot.classes[real.labels[row]],
        dataset=dataset,
        group=patient.removeprefix(f"{dataset}/") or None,
        masks=(),
        part=PARTS[given] if given >= 0 else "",
        row=row,
        relatives=str(real.groups[row]),
    )


@dataclass(frozen=True)
class StoredPixels:
    """The images and masks of a snapshot, read block by block."""

    in_order = False
    snapshot: Snapshot

    @property
    def masked(self) -> bool:
        """Return True if there are masks."""
        return bool(self.snapshot.real.masked.any())

    def decoded(self, sources: Sequence[Source], target: Target) -> Iterator[Decoded]:
        """Yield each image in the target's shape: the same bytes where that is the store's."""
        from augkit.ingestion.decode import fit_array

        real, samples = self.snapshot.real, self.snapshot.inspect()
        sizes = self.snapshot.source_sizes()
        for start in range(0, len(sources), _BLOCK):
            rows = np.array([s.row for s in sources[start : start + _BLOCK]])
            taken = samples.take(rows)
            masks, masked = taken.masks(slice(None))
            for row, image, mask, has in zip(rows, taken[:], masks, masked, strict=True):
                digest = bytes.fromhex(str(real.sha256[row]))
                found = fit_array(image, target=target, sha256=digest, mask=mask if has else None)
                height, width = sizes[row].tolist()
                yield replace(found, colour=bool(real.colour[row]), size=(height, width))

    def digests(self, sources: Sequence[Source]) -> Iterator[str]:
        """Yield the SHA-256 of the file that each image once was."""
        return (str(self.snapshot.real.sha256[source.row]) for source in sources)
