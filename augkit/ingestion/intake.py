"""One intake on its way: images into a shard, groups and folds made anew, one commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from augkit.errors import InputError, NameTaken
from augkit.ingestion.decode import Decoded
from augkit.ingestion.grouping import assign_folds, equal_pairs, join_groups, part_groups
from augkit.ingestion.pairs import Pairs
from augkit.ingestion.readers import Listing, Refusal, Source, printable
from augkit.ingestion.review import (
    Decision,
    Review,
    Row,
    as_rows,
    joined,
    split,
    traces_of,
    without,
)
from augkit.interfaces import Progress
from augkit.partitions import HOMES, PARTS
from augkit.store import DatasetStore, Snapshot
from augkit.store.format import Entry
from augkit.store.reading import in_conflict
from augkit.store.shards import ShardWriter
from augkit.summary import StoreInfo, summarise
from augkit.tables import counted, table

if TYPE_CHECKING:  # SciPy, which it is made of, takes longer to import than many an ingest takes
    from augkit.ingestion.duplicates import Traces

Conflicts = Literal["drop", "keep"]
_BLOCK = 64
_NO_PIXELS = np.empty(0, np.uint8)


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
    layout: str = ""
    """As what the source was read; see `augkit.ingestion.layouts`."""
    review: Review | None = None
    """The borderline pairs that were written for a person to decide on, if asked for."""
    overruled: tuple[tuple[str, str], ...] = ()
    """Keys of pairs that were decided to be different, and are together through others."""
    alike: int = 0
    """Pairs that may show the same lesion without being copies, and share a fold for that."""

    def to_json(self) -> str:
        """Return the keys of `info`, and what was refused."""
        own = {
            "refused": [{"path": r.path, "reason": r.reason} for r in self.refused],
            "added": self.added,
            "size_reason": self.size_reason,
            "near_duplicate_pairs": self.pairs,
            "alike_pairs": self.alike,
            "largest_group": self.largest_group,
            "stale_runs": list(self.stale),
            "unread": list(self.unread),
            "layout": self.layout,
            "review": str(self.review.page) if self.review else None,
            "borderline_pairs": self.review.pairs if self.review else None,
            "still_together": [list(keys) for keys in self.overruled],
        }
        return json.dumps({**self.info.values, **own})

    def __str__(self) -> str:
        lines = [self._added(), str(self.info)]
        if self.pairs:
            lines.append(
                f"{counted(self.pairs, 'pair')} of near-duplicates found, which stay together; "
                f"the largest group has {counted(self.largest_group, 'image')}"
            )
        if self.alike:
            lines.append(
                f"{counted(self.alike, 'pair')} that may show the same thing without being copies; "
                "each lies in one fold (ingest SOURCE --review FILE.html shows them)"
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
        for first, second in self.overruled:
            lines.append(
                f"decided to be different, yet together through others: {printable(first)} and "
                f"{printable(second)}"
            )
        if self.review:
            lines.append(str(self.review))
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
    noted: dict[str, Any] = field(default_factory=dict)
    """What else the log is to say of how it was done."""
    kept: list[Source] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    """Without their pixels, which are in the shard."""
    refused: list[Refusal] = field(default_factory=list)
    traces: Traces | None = None
    """Of all images in the store, then of the new ones."""
    decisions: tuple[Decision, ...] = ()
    """What a person decided about pairs."""
    pairs: int = 0
    alike: int = 0
    fresh: list[str] = field(default_factory=list)
    """Runs that were not stale before."""
    policy: str = ""

    def run(
        self, items: Iterator[tuple[Source, Decoded | Refusal]], n: int, *, masks: bool
    ) -> None:
        """Write all items into a shard and commit it; without new images there is none."""
        snapshot = self.store.snapshot()
        stale = snapshot.stale_runs(*HOMES)
        self.fresh = [name for name in snapshot.runs if name not in stale]
        if n:
            self._bring(items, n, masks=masks)
        if self.decisions and not self.kept:
            self._decide(snapshot)
        elif not self.kept and self.conflicts not in (None, snapshot.grouping.get("conflicts")):
            self.store.commit(self._regroup)
            done = "kept" if self.conflicts == "keep" else "left out"
            self.policy = f"those with relatives of another class are now {done}"

    def _decide(self, snapshot: Snapshot) -> None:
        """Make the groups anew where decisions came in; the same ones again change nothing."""
        old = snapshot.decisions
        new = joined(old, as_rows(self.decisions, snapshot.real.keys.tolist()))
        if new == old and self.conflicts in (None, snapshot.grouping.get("conflicts")):
            return
        before = len(set(snapshot.real.groups.tolist()))
        self.store.commit(self._regroup)
        after = len(set(self.store.snapshot().real.groups.tolist()))
        said = counted(len(self.decisions), "decision")
        self.policy = f"{said} taken in, {counted(before, 'group')} became {after}"

    def _bring(
        self, items: Iterator[tuple[Source, Decoded | Refusal]], n: int, *, masks: bool
    ) -> None:
        if self.find_relatives:
            self.traces = traces_of(self.store.snapshot(), room=n)
        with self.store.new_shard(self._attributes(), masks=masks) as writer:
            self._read(items, n, writer)
            check_refused(tuple(self.refused), self.skip_bad)
            if self.kept:
                shard = writer.finish(self._columns())
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
        if self.traces is not None:
            self.traces.add(images, self.workers)
        for source, d in good:
            self.kept.append(source)
            self.decoded.append(Decoded(_NO_PIXELS, None, d.sha256, d.colour, d.size))

    def _columns(self) -> dict[str, np.ndarray]:
        index = {name: i for i, name in enumerate(self.listing.classes)}
        sha256 = b"".join(d.sha256 for d in self.decoded)
        return {
            "key": np.array([s.key for s in self.kept], str),
            "labels": np.array([index[s.label] for s in self.kept], np.int64),
            "patient": self._patients(),
            "source_sha256": np.frombuffer(sha256, np.uint8).reshape(-1, 32),
            "source_size": np.array([d.size for d in self.decoded], np.int32),
            "colour": np.array([d.colour for d in self.decoded], bool),
            **self._given(),
        }

    def _given(self) -> dict[str, np.ndarray]:
        """Return the parts that the images came with, if any came with one."""
        if not any(s.part for s in self.kept):
            return {}
        return {
            "given": np.array([PARTS.index(s.part) if s.part else -1 for s in self.kept], np.int8)
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
                **self.noted,
            },
        }

    def _regroup(self, snapshot: Snapshot) -> Entry:
        """Return a log entry that changes only groups, or what is done with mixed ones."""
        if self.decisions:
            grouping = self._grouping(snapshot, list(snapshot.classes))
            return {"kind": "grouping", "grouping": grouping}
        old, real, policy = snapshot.grouping, snapshot.real, self.conflicts or "drop"
        _check_classes(real.groups, real.labels, list(snapshot.classes), policy)
        table = {**old, "version": old["version"] + 1, "conflicts": policy}
        return {"kind": "grouping", "grouping": table}

    def _grouping(self, snapshot: Snapshot, classes: list[str]) -> dict[str, Any]:
        real, old = snapshot.real, snapshot.grouping
        labels = np.array([classes.index(s.label) for s in self.kept], np.int64)
        labels = np.concatenate([real.labels, labels]).astype(np.int64)
        datasets = np.array([*real.datasets.tolist(), *(s.dataset for s in self.kept)], str)
        keys = [*real.keys.tolist(), *(s.key for s in self.kept)]
        decided = joined(snapshot.decisions, as_rows(self.decisions, keys))
        same, different = split(decided, "same"), split(decided, "different")
        pairs, alike = (without(each, *different) for each in self._relatives(snapshot))
        patients = np.concatenate([real.patients.astype(str), self._patients()])
        sources = np.array([*real.sha256.tolist(), *(d.sha256.hex() for d in self.decoded)], str)
        copies, known = equal_pairs(sources), self._known_relatives(snapshot)
        first = np.concatenate([pairs.first, copies[0], known[0], same[0]])
        second = np.concatenate([pairs.second, copies[1], known[1], same[1]])
        persons = equal_pairs(patients, ignore="")
        apart = self._taken_apart(snapshot, decided, persons, first, second)
        groups = join_groups(apart, patients, first, second)
        strata = np.unique(np.char.add(datasets + "/", labels.astype(str)), return_inverse=True)[1]
        policy = self.conflicts or old.get("conflicts", "drop")
        dropped = in_conflict(groups, labels) if policy == "drop" else None
        near = (alike.first, alike.second)
        folds = assign_folds(
            groups, strata, old["folds"], classes=labels, dropped=dropped, alike=near
        )
        _check_classes(groups, labels, classes, policy)
        self.pairs = len(pairs)
        home = np.array([-1 if fold is None else fold for fold in folds], np.int64)
        a, b = groups[alike.first], groups[alike.second]
        self.alike = int(((a != b) & (home[a] == home[b])).sum())
        return {
            "version": old["version"] + 1,
            "groups": groups.tolist(),
            "folds": folds,
            "conflicts": policy,
            "decisions": [list(row) for row in decided],
        }

    def _taken_apart(
        self,
        snapshot: Snapshot,
        decided: list[Row],
        patients: tuple[np.ndarray, np.ndarray],
        first: np.ndarray,
        second: np.ndarray,
    ) -> np.ndarray:
        """Return the old groups, those taken apart that hold images decided to be different.

        What still holds these together: being of one patient or file, looking alike otherwise, or
        a decision. first, second: the pairs that are known without looking at old images again.
        """
        old, (a, b) = snapshot.real.groups, split(decided, "different")
        there = b < len(old)
        torn = np.unique(old[a[there]][old[a[there]] == old[b[there]]])
        members = np.flatnonzero(np.isin(old, torn))
        if not len(members):
            return old
        from augkit.ingestion.duplicates import related_pairs

        looked = related_pairs(traces_of(snapshot, rows=members), workers=self.workers)
        looked = replace(looked, first=members[looked.first], second=members[looked.second])
        looked = without(looked, a, b)
        edges = [(first, second), patients, (looked.first, looked.second)]
        first, second = (np.concatenate([e[k] for e in edges]) for k in (0, 1))
        among = (first < len(old)) & (second < len(old))
        n_folds = len(snapshot.grouping["folds"])
        return part_groups(old, torn, first[among], second[among], n_folds)

    def _relatives(self, snapshot: Snapshot) -> tuple[Pairs, Pairs]:
        """Return pairs of which one image is new: near-duplicates, and those that look alike.

        The second are the first and more, the most alike first.
        """
        if self.traces is None:
            return Pairs.none(), Pairs.none()
        from augkit.ingestion.duplicates import ALIKE, THRESHOLD, related_pairs

        known = len(snapshot.real.keys)
        if len(self.traces) != known + len(self.kept):  # another command came first
            ours, self.traces = self.traces, traces_of(snapshot, room=len(self.kept))
            self.traces.copy(ours, len(ours) - len(self.kept))
        alike = related_pairs(
            self.traces, known=known, threshold=ALIKE, workers=self.workers, progress=self.progress
        )
        return alike.over(THRESHOLD), alike.where(np.argsort(-alike.score, kind="stable"))

    def _known_relatives(self, snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs of images that their source knows to be relatives, new ones or old."""
        keys = [*snapshot.real.keys.tolist(), *(s.key for s in self.kept)]
        said = {s.key: s.relatives for s in self.listing.sources if s.relatives}
        if not said:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return equal_pairs(np.array([said.get(key, "") for key in keys], str), ignore="")

    def report(self) -> IngestReport:
        """Return what this ingest did, and what the store holds now."""
        snapshot = self.store.snapshot()
        stale = snapshot.stale_runs(*HOMES)
        return IngestReport(
            info=summarise(snapshot),
            added=len(self.kept),
            refused=(*self.listing.refused, *self.refused),
            pairs=self.pairs,
            alike=self.alike,
            largest_group=int(np.bincount(snapshot.real.groups).max(initial=0)),
            stale=tuple(name for name in stale if name in self.fresh),
            size_reason=self.reason,
            ignored=self.listing.ignored,
            unread=self.listing.unread,
            policy=self.policy,
            untested=bool(self.kept) and not self.find_relatives,
            layout=self.listing.layout,
            overruled=_overruled(snapshot),
        )


def patient_of(source: Source) -> str:
    """Return the group that the user named, unique beyond its data set; empty if none."""
    return f"{source.dataset}/{source.group}" if source.group else ""


def _overruled(snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    """Return the keys of pairs that were decided to be different, and are in one group still."""
    real = snapshot.real
    pairs = split(snapshot.decisions, "different")
    return tuple(
        (str(real.keys[a]), str(real.keys[b]))
        for a, b in zip(*(part.tolist() for part in pairs), strict=True)
        if real.groups[a] == real.groups[b]
    )


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
