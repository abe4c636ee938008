"""The verb `ingest`: image files in, once; real rows, groups and folds out, in one commit."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from augkit.engines.local import Backend, ordered_map
from augkit.errors import InputError, NameTaken, OptionError, StoreNotFound
from augkit.ingestion.decode import Decoded, Target, attempt, choose_size, image_size, parse_size
from augkit.ingestion.duplicates import fingerprints, related_pairs
from augkit.ingestion.grouping import assign_folds, equal_pairs, join_groups
from augkit.ingestion.readers import Listing, Refusal, Source, printable, read
from augkit.interfaces import Progress, Shape, silent
from augkit.partitions import HOLDOUT
from augkit.store import DatasetStore, Snapshot, locate
from augkit.store.format import Entry
from augkit.store.locate import DEFAULT_NAME, is_store
from augkit.store.shards import ShardWriter
from augkit.summary import StoreInfo, summarise
from augkit.tables import counted, table

log = logging.getLogger("augkit")

Conflicts = Literal["drop", "keep"]
_BLOCK = 64


@dataclass(frozen=True)
class IngestReport:
    """What an ingest brought, and what the store holds now."""

    info: StoreInfo
    added: int
    refused: tuple[Refusal, ...]
    pairs: int
    """Pairs of near-duplicates found in this ingest."""
    largest_group: int
    stale: tuple[str, ...]
    size_reason: str
    ignored: int
    policy: str = ""
    """What became of the groups of several classes, if this ingest changed it."""

    def to_json(self) -> str:
        """Return the keys of `info`, and what was refused."""
        own = {
            "refused": [{"path": r.path, "reason": r.reason} for r in self.refused],
            "added": self.added,
            "size_reason": self.size_reason,
            "near_duplicate_pairs": self.pairs,
            "largest_group": self.largest_group,
            "stale_runs": list(self.stale),
        }
        return json.dumps({**self.info.values, **own})

    def __str__(self) -> str:
        lines = [self._added(), str(self.info)]
        if self.pairs:
            lines.append(
                f"{counted(self.pairs, 'pair')} of near-duplicates found, which stay together; "
                f"the largest group has {counted(self.largest_group, 'image')}"
            )
        if self.refused:
            rows = [[r.path, r.reason] for r in self.refused]
            lines.append(table(["skipped", "reason"], rows))
        if self.stale:
            lines.append(
                f"made stale, because groups were joined: {', '.join(self.stale)}; "
                "augment again to replace the rows that may no longer be trained on"
            )
        return "\n\n".join(lines)

    def _added(self) -> str:
        if not self.added:
            return f"all images are in the store already: {self.policy or 'nothing to do'}"
        also = f"; {counted(self.ignored, 'other file')} ignored" if self.ignored else ""
        return f"{counted(self.added, 'image')} added{also}. {self.size_reason}"


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
    workers: int | None = None,
    start_method: Backend = "threads",
    progress: Progress = silent,
) -> IngestReport:
    """Read a folder with a subfolder for each class, or a CSV manifest, into a store.

    The store is made if there is none. size: "192x160", width x height, for a new store; by
    default it follows from the images. channels: 1 grey (default) or 3. conflicts: what to do with
    groups of several classes, "drop" (default) or "keep"; given again, it changes what is done
    with those in the store. Files that cannot be read stop the ingest unless `skip_bad`. Raises
    InputError, OptionError or NameTaken; then nothing is written.
    """
    if conflicts not in (None, "drop", "keep"):
        raise OptionError(f"conflicts is {conflicts!r}; it must be 'drop' or 'keep'")
    listing = read(source, dataset=dataset)
    _check_refused(listing.refused, skip_bad)
    opened, target, reason = _prepare(listing, store, size, fit, channels, skip_bad)
    work = _Ingest(opened, listing, conflicts, fit, skip_bad, workers, progress, reason)
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
    """Bring images that are arrays into an existing or created store, in one commit.

    images: blocks uint8 (n, H, W, C) of the store's shape, read one at a time, so that they may
    be more than memory holds. labels, keys, groups: N texts; a group is a patient. masks: blocks
    uint8 (n, H, W) of 0 and 255, beside the images. find_relatives=False trusts the groups and
    spares the search for near-duplicates, which needs 36 kB an image. Raises InputError for
    blocks of another shape, NameTaken for a key that is in use.
    """
    opened = store if isinstance(store, DatasetStore) else DatasetStore.open(store)
    sources = _array_sources(labels, keys, dataset, groups)
    listing = Listing(sources, tuple(sorted(set(labels))), (), 0)
    size = f"Size {opened.shape[1]}x{opened.shape[0]}, as in the store."
    work = _Ingest(opened, listing, conflicts, "as given", False, None, progress, size)
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
        cover = next(beside) if beside is not None else [None] * len(block)
        for image, mask in zip(block, cover, strict=True):
            sha256 = hashlib.sha256(np.ascontiguousarray(image).data).digest()
            yield Decoded(image, mask, sha256, image.shape[2] == 3, image.shape[:2])


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
    sizes = []
    for source in listing.sources:
        try:
            sizes.append(image_size(source.path))
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{error}; --skip-bad leaves such files out") from error
    if not sizes:
        raise _nothing_read(len(listing.sources))
    height, width, reason = choose_size(sizes)
    return height, width, f"Size {reason}."


def _nothing_read(n: int) -> InputError:
    return InputError(
        f"none of the {counted(n, 'file')} can be read as an image: nothing was committed; "
        "augkit ingest without --skip-bad says why"
    )


def _check_refused(refused: tuple[Refusal, ...], skip_bad: bool) -> None:
    if refused and not skip_bad:
        first = "; ".join(f"{r.path}: {r.reason}" for r in refused[:3])
        more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise InputError(
            f"{counted(len(refused), 'file')} cannot be used: {first}{more}. Nothing was "
            "committed; --skip-bad leaves such files out"
        )


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
        same = _digest(source.path) == str(real.sha256[row])
        if not same or snapshot.classes[real.labels[row]] != source.label:
            what = "other bytes" if not same else "another class"
            raise NameTaken(
                f"{printable(source.key)} is in {store.path} already with {what}: "
                "give this data set another name with --dataset NAME"
            )
    return new


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}") from error


@dataclass
class _Ingest:
    """One ingest on its way: what is decided, and what has been read so far."""

    store: DatasetStore
    listing: Listing
    conflicts: Conflicts | None
    fit: str
    skip_bad: bool
    workers: int | None
    progress: Progress
    reason: str
    find_relatives: bool = True
    kept: list[Source] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    """Without their pixels, which are in the shard."""
    refused: list[Refusal] = field(default_factory=list)
    prints: list[np.ndarray] = field(default_factory=list)
    pairs: int = 0
    fresh: list[str] = field(default_factory=list)
    """Runs that were not stale before."""
    policy: str = ""

    def run(
        self, items: Iterator[tuple[Source, Decoded | Refusal]], n: int, *, masks: bool
    ) -> None:
        """Write all items into a shard and commit it; without new images there is none."""
        snapshot = self.store.snapshot()
        stale = snapshot.stale_runs(HOLDOUT)
        self.fresh = [name for name in snapshot.runs if name not in stale]
        if n:
            self._bring(items, n, masks=masks)
        if not self.kept and self.conflicts not in (None, snapshot.grouping.get("conflicts")):
            self.store.commit(self._regroup)
            done = "kept" if self.conflicts == "keep" else "left out"
            self.policy = f"those with relatives of another class are now {done}"

    def _bring(
        self, items: Iterator[tuple[Source, Decoded | Refusal]], n: int, *, masks: bool
    ) -> None:
        writer = self.store.write_shard(self._attributes(), masks=masks)
        try:
            self._read(items, n, writer)
            _check_refused(tuple(self.refused), self.skip_bad)
            if not self.kept:
                writer.discard()
                return
            shard = writer.finish(self._columns())
        except BaseException:
            writer.discard()
            raise
        self.store.commit(partial(self._entry, shard), writer.path)

    def _attributes(self) -> dict[str, Any]:
        return {
            "kind": "real images",
            "classes": list(self.listing.classes),
            "fit": self.fit,
            "resampling": "Lanczos",
        }

    def _read(
        self, items: Iterator[tuple[Source, Decoded | Refusal]], n: int, writer: ShardWriter
    ) -> None:
        """Take all items into the shard, in order, a block at a time."""
        done = 0
        while block := list(islice(items, _BLOCK)):
            self._write(block, writer)
            done += len(block)
            self.progress("read", done, n)
        if n and len(self.refused) == len(self.listing.sources) and self.skip_bad:
            raise _nothing_read(n)

    def _write(self, block: list[tuple[Source, Decoded | Refusal]], writer: ShardWriter) -> None:
        self.refused += [r for _, r in block if isinstance(r, Refusal)]
        good = [(s, d) for s, d in block if isinstance(d, Decoded)]
        if not good:
            return
        images = np.stack([d.image for _, d in good])
        blank = np.zeros(images.shape[1:3], np.uint8)
        masks = np.stack([blank if d.mask is None else d.mask for _, d in good])
        writer.append(images, masks, np.array([d.mask is not None for _, d in good]))
        if self.find_relatives:
            self.prints.append(fingerprints(images))
        for source, d in good:
            self.kept.append(source)
            self.decoded.append(Decoded(np.empty(0, np.uint8), None, d.sha256, d.colour, d.size))

    def _columns(self) -> dict[str, np.ndarray]:
        index = {name: i for i, name in enumerate(self.listing.classes)}
        return {
            "key": np.array([s.key for s in self.kept], str),
            "labels": np.array([index[s.label] for s in self.kept], np.int64),
            "patient": self._patients(),
            "source_sha256": np.array([list(d.sha256) for d in self.decoded], np.uint8),
            "source_size": np.array([d.size for d in self.decoded], np.int32),
            "colour": np.array([d.colour for d in self.decoded], bool),
        }

    def _patients(self) -> np.ndarray:
        """Return the group that the user named, unique beyond its data set; empty if none."""
        return np.array([f"{s.dataset}/{s.group}" if s.group else "" for s in self.kept], str)

    def _entry(self, shard: dict[str, Any], snapshot: Snapshot) -> Entry:
        """Return the log entry, with groups and folds made against the newest snapshot."""
        real = snapshot.real
        taken = set(real.keys.tolist()) & {s.key for s in self.kept}
        if taken:
            raise NameTaken(
                f"another command has just brought {printable(min(taken))} into "
                f"{self.store.path}: run this one again"
            )
        classes = [*snapshot.classes]
        classes += [c for c in self.listing.classes if c not in classes]
        return {
            "kind": "ingest",
            "shard": shard,
            "classes": classes,
            "shard_classes": list(self.listing.classes),
            "grouping": self._grouping(snapshot, classes),
            "mask_files": sum(len(s.masks) for s in self.kept),
            "options": {"fit": self.fit, "skipped": len(self.refused)},
        }

    def _regroup(self, snapshot: Snapshot) -> Entry:
        """Return a log entry that changes only what is done with groups of several classes."""
        old, real, policy = snapshot.grouping, snapshot.real, self.conflicts or "drop"
        _check_classes(real.groups, real.labels, list(snapshot.classes), policy)
        table = {**old, "version": old["version"] + 1, "conflicts": policy}
        return {"kind": "grouping", "grouping": table}

    def _grouping(self, snapshot: Snapshot, classes: list[str]) -> dict[str, Any]:
        real, old = snapshot.real, snapshot.grouping
        labels = np.array([classes.index(s.label) for s in self.kept], np.int64)
        labels = np.concatenate([real.labels, labels]).astype(np.int64)
        datasets = np.array([*real.datasets.tolist(), *(s.dataset for s in self.kept)], str)
        first, second = self._relatives(snapshot)
        patients = np.concatenate([real.patients.astype(str), self._patients()])
        sources = np.array([*real.sha256.tolist(), *(d.sha256.hex() for d in self.decoded)], str)
        copies = equal_pairs(sources)
        groups = join_groups(
            real.groups,
            patients,
            np.concatenate([first, copies[0]]),
            np.concatenate([second, copies[1]]),
        )
        strata = np.unique(np.char.add(datasets + "/", labels.astype(str)), return_inverse=True)[1]
        folds = assign_folds(groups, strata, old["folds"])
        policy = self.conflicts or old.get("conflicts", "drop")
        _check_classes(groups, labels, classes, policy)
        self.pairs = len(first)
        return {
            "version": old["version"] + 1,
            "groups": groups.tolist(),
            "folds": folds,
            "conflicts": policy,
        }

    def _relatives(self, snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of near-duplicates among the new images and between new and old."""
        if not self.find_relatives:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        pairs = related_pairs(
            np.concatenate([*_prints_of(snapshot), *self.prints]),
            known=len(snapshot.real.keys),
            workers=self.workers,
            progress=self.progress,
        )
        return pairs.first, pairs.second

    def report(self) -> IngestReport:
        """Return what this ingest did, and what the store holds now."""
        snapshot = self.store.snapshot()
        stale = snapshot.stale_runs(HOLDOUT)
        return IngestReport(
            info=summarise(snapshot),
            added=len(self.kept),
            refused=(*self.listing.refused, *self.refused),
            pairs=self.pairs,
            largest_group=int(np.bincount(snapshot.real.groups).max(initial=0)),
            stale=tuple(name for name in stale if name in self.fresh),
            size_reason=self.reason,
            ignored=self.listing.ignored,
            policy=self.policy,
        )


def _prints_of(snapshot: Snapshot) -> Iterator[np.ndarray]:
    for images in snapshot.inspect().blocks(_BLOCK):
        yield fingerprints(images)


def _check_classes(groups: np.ndarray, labels: np.ndarray, classes: list[str], policy: str) -> None:
    """Raise InputError for a class that cannot be in training and test at once."""
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    mixed = np.isin(pairs[0], np.flatnonzero(np.bincount(pairs[0]) > 1))
    usable = pairs[1][~mixed] if policy == "drop" else pairs[1]
    for label, count in enumerate(np.bincount(usable, minlength=len(classes)).tolist()):
        if count < 2:
            n = int((labels == label).sum())
            raise InputError(
                f"class {printable(classes[label])!r} has {counted(n, 'image')} in "
                f"{counted(count, 'usable group')} of relatives; it needs at least 2 groups, to "
                "train and to test: add images of it, or leave the class out"
            )
