"""The verb `ingest`: image files in, once; real rows, groups and folds out, in one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from augkit.engines.local import Backend, ordered_map
from augkit.errors import InputError, NameTaken, OptionError, StoreNotFound
from augkit.ingestion.decode import (
    Decoded,
    Target,
    attempt,
    choose_size,
    image_size,
    parse_size,
    refusal,
)
from augkit.ingestion.intake import (
    Conflicts,
    IngestReport,
    Intake,
    check_refused,
    nothing_read,
    patient_of,
)
from augkit.ingestion.readers import Listing, Source, printable, read
from augkit.interfaces import Progress, Shape, silent
from augkit.store import DatasetStore, Snapshot, locate
from augkit.store.locate import DEFAULT_NAME, is_store


def ingest(
    source: str | Path,
    store: DatasetStore | str | Path | None = None,
    *,
    dataset: str | None = None,
    size: str | None = None,
    fit: Literal["stretch", "pad"] = "stretch",
    channels: int | None = None,
    conflicts: Conflicts | None = None,
    skip_bad: bool = False,
    find_relatives: bool = True,
    workers: int | None = None,
    start_method: Backend = "threads",
    progress: Progress = silent,
) -> IngestReport:
    """Read a folder with a subfolder for each class, or a CSV manifest, into a store.

    The store is made if there is none. size: "192x160", width x height, for a new store; by
    default it follows from the images. channels: 1 grey (default) or 3. conflicts: what to do with
    groups of several classes, "drop" (default) or "keep"; given again, it changes what is done
    with those in the store. Files that cannot be read stop the ingest unless `skip_bad`.
    find_relatives=False does not look for near-duplicates and trusts the groups of the manifest.
    Raises InputError, OptionError or NameTaken; then nothing is written.
    """
    if conflicts not in (None, "drop", "keep"):
        raise OptionError(f"conflicts is {conflicts!r}; it must be 'drop' or 'keep'")
    listing = read(source, dataset=dataset)
    check_refused(listing.refused, skip_bad)
    opened, target, reason = _prepare(listing, store, size, fit, channels, skip_bad)
    work = Intake(opened, listing, conflicts, fit, skip_bad, workers, progress, reason)
    work.find_relatives = find_relatives
    try:
        snapshot = opened.snapshot()
        new = _new_sources(opened, snapshot, listing)
        task = partial(attempt, target=target)
        decoded = ordered_map(task, new, workers=workers, backend=start_method)
        work.run(zip(new, decoded, strict=True), len(new), masks=any(s.masks for s in new))
        return work.report()
    finally:
        opened.tidy()


def ingest_arrays(
    store: DatasetStore | str | Path,
    images: Iterable[np.ndarray],
    labels: Sequence[str],
    *,
    keys: Sequence[str],
    dataset: str = "arrays",
    groups: Sequence[str] | None = None,
    masks: Iterable[np.ndarray] | None = None,
    conflicts: Conflicts | None = None,
    find_relatives: bool = True,
    progress: Progress = silent,
) -> IngestReport:
    """Bring images that are arrays into a store, in one commit.

    images: blocks uint8 (n, H, W, C) of the store's shape, read one at a time, so that they may
    be more than memory holds. labels, keys, groups: N texts; a group is a patient. masks: blocks
    bool or uint8 of 0 and 255, (n, H, W), beside the images. store: an open one, such as
    DatasetStore.create returns, or the path of one. find_relatives=False trusts the groups and
    spares the search for near-duplicates, which needs 36 kB an image. Raises InputError for
    blocks of another shape, NameTaken for a key that is in use.
    """
    opened = store if isinstance(store, DatasetStore) else DatasetStore.open(store)
    sources = _array_sources(labels, keys, dataset, groups)
    listing = Listing(sources, tuple(sorted(set(labels))), (), 0)
    size = f"Size {opened.shape[1]}x{opened.shape[0]}, as in the store."
    work = Intake(opened, listing, conflicts, "as given", False, None, progress, size)
    work.find_relatives = find_relatives
    taken = set(opened.snapshot().real.keys.tolist()) & {s.key for s in sources}
    if taken:
        raise NameTaken(f"{printable(min(taken))} is in {opened.path} already: use other keys")
    try:
        pixels = _array_rows(images, masks, opened.shape)
        work.run(_paired(sources, pixels), len(sources), masks=masks is not None)
        return work.report()
    finally:
        opened.tidy()


def _array_sources(
    labels: Sequence[str], keys: Sequence[str], dataset: str, groups: Sequence[str] | None
) -> tuple[Source, ...]:
    given = groups if groups is not None else [""] * len(keys)
    if not dataset or "/" in dataset:
        raise InputError(f"dataset {dataset!r} is no name: it must not be empty or contain /")
    if not all(isinstance(text, str) for text in (*labels, *keys, *given)):
        raise InputError("labels, keys and groups must be texts")
    if not len(labels) == len(keys) == len(given) or len(set(keys)) != len(keys):
        raise InputError("labels, keys and groups must be equally many, and no key twice")
    return tuple(
        Source(f"{dataset}/{key}", Path(key), label, dataset, group or None, ())
        for key, label, group in zip(keys, labels, given, strict=True)
    )


def _array_rows(
    images: Iterable[np.ndarray], masks: Iterable[np.ndarray] | None, shape: Shape
) -> Iterator[Decoded]:
    beside = iter(masks) if masks is not None else None
    for block in images:
        if block.dtype != np.uint8 or block.shape[1:] != shape:
            raise InputError(
                f"a block of images is {block.dtype} {block.shape}; it must be uint8 (n, "
                f"{', '.join(map(str, shape))}), as the store's images are"
            )
        covers = [None] * len(block) if beside is None else _mask_block(next(beside, None), block)
        for image, mask in zip(block, covers, strict=True):
            sha256 = hashlib.sha256(np.ascontiguousarray(image).data).digest()
            yield Decoded(image, mask, sha256, image.shape[2] == 3, image.shape[:2])


def _mask_block(masks: np.ndarray | None, images: np.ndarray) -> np.ndarray:
    """Return a block of masks as uint8 of 0 and 255. Raises InputError unless it is one."""
    if masks is None or masks.shape != images.shape[:3]:
        found = "missing" if masks is None else f"{masks.shape}"
        raise InputError(f"a block of masks is {found}; beside its images it is {images.shape[:3]}")
    if masks.dtype == bool:
        return masks * np.uint8(255)
    if masks.dtype != np.uint8 or not np.isin(masks, (0, 255)).all():
        raise InputError("masks must be bool, or uint8 of 0 and 255 only")
    return masks


def _paired(
    sources: Sequence[Source], pixels: Iterator[Decoded]
) -> Iterator[tuple[Source, Decoded]]:
    for source in sources:
        decoded = next(pixels, None)
        if decoded is None:
            raise InputError(f"there are fewer images than keys: {len(sources)} keys")
        yield source, decoded
    if next(pixels, None) is not None:
        raise InputError(f"there are more images than keys: {len(sources)} keys")


def _prepare(
    listing: Listing,
    store: DatasetStore | str | Path | None,
    size: str | None,
    fit: Literal["stretch", "pad"],
    channels: int | None,
    skip_bad: bool,
) -> tuple[DatasetStore, Target, str]:
    """Return the store, open or new, the shape of its images, and why it is that shape."""
    wanted = parse_size(size) if size is not None else None
    opened = store if isinstance(store, DatasetStore) else _existing(store)
    if opened is None:
        path = _new_path(store)
        height, width, reason = (
            (*wanted, f"Size {size}, as asked.") if wanted else _chosen(listing, skip_bad)
        )
        target = Target(height, width, channels or 1, fit)
        return (
            DatasetStore.create(path, height=height, width=width, channels=target.channels),
            target,
            reason,
        )
    height, width, present = opened.shape
    if (wanted and wanted != (height, width)) or (channels and channels != present):
        raise OptionError(
            f"{opened.path} holds {'grey' if present == 1 else 'colour'} images of "
            f"{width}x{height}: what is to be otherwise needs another store, --store PATH"
        )
    return opened, Target(height, width, present, fit), f"Size {width}x{height}, as in the store."


def _existing(store: str | Path | None) -> DatasetStore | None:
    if store is not None:
        return DatasetStore.open(store) if is_store(Path(store)) else None
    try:
        return DatasetStore.open(path) if is_store(path := locate()) else None
    except StoreNotFound as error:
        if str(error).startswith("several"):
            raise
        return None


def _new_path(store: str | Path | DatasetStore | None) -> Path:
    import os

    return Path(str(store or os.environ.get("AUGKIT_STORE") or DEFAULT_NAME))


def _chosen(listing: Listing, skip_bad: bool) -> tuple[int, int, str]:
    """Return the size that suits the images, from the headers of those that can be read."""
    sizes, refused = [], []
    for source in listing.sources:
        try:
            sizes.append(image_size(source.path))
        except InputError as error:
            refused.append(refusal(source, error))
    check_refused(tuple(refused), skip_bad)
    if not sizes:
        raise nothing_read(len(listing.sources))
    height, width, reason = choose_size(sizes)
    return height, width, f"Size {reason}."


def _new_sources(store: DatasetStore, snapshot: Snapshot, listing: Listing) -> list[Source]:
    """Return what is not in the store. Raises NameTaken for a key with another content."""
    real = snapshot.real
    known = dict(zip(real.keys.tolist(), range(len(real.keys)), strict=True))
    new = []
    for source in listing.sources:
        row = known.get(source.key)
        if row is None:
            new.append(source)
            continue
        what = _difference(source, snapshot, row)
        if what:
            raise NameTaken(
                f"{printable(source.key)} is in {store.path} already with {what}: "
                "give this data set another name with --dataset NAME, or begin another store"
            )
    return new


def _difference(source: Source, snapshot: Snapshot, row: int) -> str | None:
    """Return in what an image that the store has differs from the one that is offered, or None.

    What the store has and this listing does not say is no difference.
    """
    real = snapshot.real
    if _digest(source.path) != str(real.sha256[row]):
        return "other bytes"
    if snapshot.classes[real.labels[row]] != source.label:
        return "another class"
    if source.group and str(real.patients[row]) != patient_of(source):
        return "another group, or none"
    return "no mask" if source.masks and not real.masked[row] else None


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error
