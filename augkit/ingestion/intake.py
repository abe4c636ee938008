"""One intake on its way: images into a shard, groups and folds made anew, one commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np

from augkit.errors import InputError, NameTaken
from augkit.ingestion.decode import Decoded
from augkit.ingestion.duplicates import fingerprints, related_pairs
from augkit.ingestion.grouping import assign_folds, equal_pairs, join_groups
from augkit.ingestion.readers import Listing, Refusal, Source, printable
from augkit.interfaces import Progress
from augkit.partitions import HOLDOUT
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import Entry
from augkit.store.reading import in_conflict
from augkit.store.shards import ShardWriter
from augkit.summary import StoreInfo, summarise
from augkit.tables import counted, table

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
    unread: tuple[str, ...]
    """Endings of ignored files, or columns of a manifest that have no meaning here."""
    policy: str = ""
    """What became of the groups of several classes, if this ingest changed it."""
    untested: bool = False
    """True if near-duplicates were not looked for."""

    def to_json(self) -> str:
        """Return the keys of `info`, and what was refused."""
        own = {
            "refused": [{"path": r.path, "reason": r.reason} for r in self.refused],
            "added": self.added,
            "size_reason": self.size_reason,
            "near_duplicate_pairs": self.pairs,
            "largest_group": self.largest_group,
            "stale_runs": list(self.stale),
            "unread": list(self.unread),
        }
        return json.dumps({**self.info.values, **own})

    def __str__(self) -> str:
        lines = [self._added(), str(self.info)]
        if self.pairs:
            lines.append(
                f"{counted(self.pairs, 'pair')} of near-duplicates found, which stay together; "
                f"the largest group has {counted(self.largest_group, 'image')}"
            )
        if self.unread and not self.ignored:
            lines.append(f"columns of the manifest that were not read: {', '.join(self.unread)}")
        if self.untested:
            lines.append(
                "near-duplicates were not looked for: an image and its copy may lie in training "
                "and in test, unless the manifest puts them in one group"
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
        also += f" ({', '.join(self.unread)})" if self.ignored else ""
        return f"{counted(self.added, 'image')} added{also}. {self.size_reason}"


@dataclass
class Intake:
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
            check_refused(tuple(self.refused), self.skip_bad)
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
            raise nothing_read(n)

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
        return np.array([patient_of(s) for s in self.kept], str)

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
            "options": {
                "fit": self.fit,
                "skipped": len(self.refused),
                "find_relatives": self.find_relatives,
            },
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
        policy = self.conflicts or old.get("conflicts", "drop")
        dropped = in_conflict(groups, labels) if policy == "drop" else None
        folds = assign_folds(groups, strata, old["folds"], classes=labels, dropped=dropped)
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
            unread=self.listing.unread,
            policy=self.policy,
            untested=bool(self.kept) and not self.find_relatives,
        )


def patient_of(source: Source) -> str:
    """Return the group that the user named, unique beyond its data set; empty if none."""
    return f"{source.dataset}/{source.group}" if source.group else ""


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
            n, lost = int((labels == label).sum()), int((pairs[1][mixed] == label).sum())
            raise InputError(
                f"class {printable(classes[label])!r} has {counted(n, 'image')} in "
                f"{counted(count, 'usable group')} of relatives; it needs at least 2 groups, to "
                f"train and to test: {_remedy(lost if policy == 'drop' else 0, n)}"
            )


def _remedy(lost: int, n: int) -> str:
    if lost:
        groups = counted(lost, "group")
        return f"{groups} with images of other classes are left out; --conflicts keep keeps them"
    if n > 1:
        return "add images of it, or leave the class out; --no-find-relatives trusts your groups"
    return "add images of it, or leave the class out"


def check_refused(refused: tuple[Refusal, ...], skip_bad: bool) -> None:
    """Raise InputError that lists files that cannot be read, unless they are to be skipped."""
    if refused and not skip_bad:
        first = "; ".join(f"{r.path}: {r.reason}" for r in refused[:3])
        more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise InputError(
            f"{counted(len(refused), 'file')} cannot be used: {first}{more}. Nothing was "
            "committed; --skip-bad leaves such files out"
        )


def nothing_read(n: int) -> InputError:
    """Return the error for an ingest of n files none of which is an image."""
    return InputError(
        f"none of the {counted(n, 'file')} can be read as an image: nothing was committed; "
        "augkit ingest without --skip-bad says why"
    )
