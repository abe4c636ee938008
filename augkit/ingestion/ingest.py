"""The verb `ingest`: image files in, once; real rows, groups and folds out, in one commit."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
    parse_size,
    refusal,
    source_digest,
    source_size,
)
from augkit.ingestion.intake import (
    Conflicts,
    IngestReport,
    Intake,
    check_refused,
    nothing_read,
    patient_of,
)
from augkit.ingestion.layouts import read
from augkit.ingestion.pseudonyms import Naming, burned_in
from augkit.ingestion.readers import Listing, Refusal, Source, printable
from augkit.ingestion.review import places as review_places
from augkit.ingestion.review import read_decisions, write_review
from augkit.ingestion.windowing import Window
from augkit.interfaces import Progress, Shape, silent
from augkit.partitions import PARTS
from augkit.store import DatasetStore, Snapshot, locate
from augkit.store.locate import DEFAULT_NAME, is_store

log = logging.getLogger("augkit")


def ingest(
    source: str | Path,
    store: DatasetStore | str | Path | None = None,
    *,
    layout: str | None = None,
    dataset: str | None = None,
    size: str | None = None,
    fit: Literal["stretch", "pad"] = "stretch",
    channels: int | None = None,
    window: str | None = None,
    keys: Literal["path", "hash"] | None = None,
    group_by: Literal["patient"] | None = None,
    secret: str | Path | None = None,
    conflicts: Conflicts | None = None,
    skip_bad: bool = False,
    find_relatives: bool = True,
    review: str | Path | None = None,
    decisions: str | Path | None = None,
    workers: int | None = None,
    start_method: Backend = "threads",
    progress: Progress = silent,
) -> IngestReport:
    """Read images into a store: a folder with a subfolder for each class, or another layout.

    The store is made if there is none. layout: one of `augkit.ingestion.layouts.NAMES`; by default
    it is guessed, and said. size: "192x160", width x height, for a new store; by default it follows
    from the images. channels: 1 grey or 3; by default that of arrays, and grey for files. window:
    "LOW,HIGH", "bits" or "percentile", for images of more than 8 bits.

    keys: "hash" makes keys and groups pseudonyms; group_by: "patient" groups DICOM files by their
    PatientID, as a pseudonym; secret: the file that pseudonyms are made with. By default all as in
    the store. conflicts: what to do with groups of several classes, "drop" (default) or "keep";
    given again, it changes what is done with those in the store. Files that cannot be read stop the
    ingest unless `skip_bad`. find_relatives=False does not look for near-duplicates and trusts the
    groups that the data name. Raises InputError, OptionError or NameTaken; then nothing is written.

    review: a page, FILE.html, or a folder; borderline pairs are written there for a person to
    decide on, beside a CSV table. decisions: such a table, filled in. What it says holds for later
    ingests too; given again, it changes the groups of what is in the store.
    """
    if conflicts not in (None, "drop", "keep"):
        raise OptionError(f"conflicts is {conflicts!r}; it must be 'drop' or 'keep'")
    through = Window.parse(window)
    decided = () if decisions is None else read_decisions(decisions)
    if review is not None:
        review_places(review)
    listing = read(source, dataset=dataset, layout=layout)
    check_refused(listing.refused, skip_bad)
    existing = store if isinstance(store, DatasetStore) else _existing(store)
    place = Path(existing.path) if existing else _new_path(store)
    _check_apart(listing, Path(source), place)
    before = existing.snapshot() if existing else None
    naming = Naming.of(before, place, keys=keys, group_by=group_by, secret=secret)
    listing = _named(listing, naming, asked=group_by is not None)
    height, width, depth, reason = _shape(listing, existing, size, channels, skip_bad)
    target = Target(height, width, depth, fit, through)
    opened = existing or DatasetStore.create(
        place, height=target.height, width=target.width, channels=target.channels
    )
    work = Intake(opened, listing, conflicts, fit, skip_bad, workers, progress, reason)
    work.find_relatives, work.decisions = find_relatives, decided
    work.noted = naming.noted() | ({} if window is None else {"window": str(through)})
    try:
        new = _new_sources(opened, opened.snapshot(), listing)
        masks = any(s.masks or s.mask_span for s in new)
        if listing.pixels is not None:
            _say_if_resized(listing, target)
            decoded: Iterator[Decoded | Refusal] = listing.pixels.decoded(new, target)
            masks = listing.pixels.masked
        else:
            task = partial(attempt, target=target)
            decoded = ordered_map(task, new, workers=workers, backend=start_method)
        work.run(zip(new, decoded, strict=True), len(new), masks=masks)
        work.traces = None
        report = work.report()
        if review is None:
            return report
        written = write_review(opened.snapshot(), review, workers=workers, progress=progress)
        return replace(report, review=written)
    finally:
        opened.tidy()


def _check_apart(listing: Listing, source: Path, store: Path) -> None:
    """Raise InputError if a store is to be read into itself."""
    if listing.layout == "store" and source.resolve() == store.resolve():
        raise InputError(f"{printable(source)} is the store itself: name another with --store PATH")


def _named(listing: Listing, naming: Naming, *, asked: bool) -> Listing:
    """Return a listing under the names that its images get, after saying what is to be known."""
    notes = burned_in(listing)
    listing, said = naming.apply(listing, asked=asked)
    for note in (*notes, *said):
        log.warning("note: %s", note)
    return listing


def _say_if_resized(listing: Listing, target: Target) -> None:
    given, wanted = listing.shape, (target.height, target.width, target.channels)
    if listing.layout == "store" and given is not None and given != wanted:
        log.warning(
            "note: made from stored pixels of %dx%d in %s, not from the original files: they are "
            "resampled a second time",
            given[1],
            given[0],
            "grey" if given[2] == 1 else "colour",
        )


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
    spares the search for near-duplicates, which keeps 20 kB an image. Raises InputError for
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
        raise InputError(
            f"there are more images than keys: {len(sources)} keys; give a key for each"
        )


def _shape(
    listing: Listing,
    opened: DatasetStore | None,
    size: str | None,
    channels: int | None,
    skip_bad: bool,
) -> tuple[int, int, int, str]:
    """Return height, width and channels of the images of a store, and why they are such."""
    wanted = parse_size(size) if size is not None else None
    if opened is None:
        channels = channels or (listing.shape[2] if listing.shape else 1)
        height, width, reason = (
            (*wanted, f"Size {size}, as asked.") if wanted else _chosen(listing, skip_bad)
        )
        return height, width, channels, reason
    height, width, present = opened.shape
    if (wanted and wanted != (height, width)) or (channels and channels != present):
        raise OptionError(
            f"{opened.path} holds {'grey' if present == 1 else 'colour'} images of "
            f"{width}x{height}: what is to be otherwise needs another store, --store PATH"
        )
    return height, width, present, f"Size {width}x{height}, as in the store."


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
    if listing.shape:
        height, width, _ = listing.shape
        return height, width, f"Size {width}x{height}, that of the images as they are stored there."
    sizes, refused = [], []
    for source in listing.sources:
        try:
            sizes.append(source_size(source))
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
    new: list[Source] = []
    old: list[Source] = []
    for source in listing.sources:
        (old if source.key in known else new).append(source)
    digests = listing.pixels.digests(old) if listing.pixels else map(source_digest, old)
    for source, digest in zip(old, digests, strict=True):
        what = _difference(source, digest, snapshot, known[source.key])
        if what:
            raise NameTaken(
                f"{printable(source.key)} is in {store.path} already with {what}: "
                "give this data set another name with --dataset NAME, or begin another store"
            )
    return new


def _difference(source: Source, digest: str, snapshot: Snapshot, row: int) -> str | None:
    """Return in what an image that the store has differs from the one that is offered, or None.

    What the store has and this listing does not say is no difference.
    """
    real = snapshot.real
    if digest != str(real.sha256[row]):
        return "other bytes"
    if snapshot.classes[real.labels[row]] != source.label:
        return "another class"
    if source.group and str(real.patients[row]) != patient_of(source):
        return "another group, or none"
    if source.part and real.given[row] != PARTS.index(source.part):
        return "another part of its own split, or none"
    with_mask = bool(source.masks or source.mask_span)
    return "no mask" if with_mask and not real.masked[row] else None
