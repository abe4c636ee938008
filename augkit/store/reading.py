"""Reading a store: a frozen prefix of the log, and the one rule of what may be trained on.

**The rule.** A row may be trained on if and only if every real image that it derives from lies in
the training part. Validation and test parts hold real images only. `Snapshot.training` applies it
against the grouping of the snapshot; there is no other way to get rows for training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from augkit.errors import DamagedStore, LineageError, OptionError, StoreError
from augkit.interfaces import Shape
from augkit.partitions import N_FOLDS, PARTS, Partition, Scope, given_parts
from augkit.store.format import Entry, digest_of
from augkit.store.models import Model, read_model
from augkit.store.samples import Purpose, Rows, ShardName, StoredSamples
from augkit.store.shards import ShardPool


@dataclass(frozen=True)
class RealRows:
    """All real images of a snapshot, in the order they came; arrays of length N."""

    rows: Rows
    keys: np.ndarray
    """str: data set, a slash, relative path."""
    groups: np.ndarray
    """int64: images of one group are relatives, and stay together."""
    folds: np.ndarray
    """int64, 0..19: the fold of the image's group."""
    conflict: np.ndarray
    """bool: left out, because its group carries several classes."""
    masked: np.ndarray
    """bool: has a mask."""
    colour: np.ndarray
    """bool: was not grey when it came."""
    patients: np.ndarray
    """str: the group that the user named, empty if none."""
    sha256: np.ndarray
    """str: hexadecimal, of the file as it came."""
    given: np.ndarray
    """int8: the part that its data set gives it, 0 train, 1 validation, 2 test; -1: none."""

    @cached_property
    def datasets(self) -> np.ndarray:
        """Return str (N,): the data set of each image."""
        return np.array([key.split("/", 1)[0] for key in self.keys.tolist()], str)

    @property
    def labels(self) -> np.ndarray:
        """Return int64 (N,)."""
        return self.rows.labels


@dataclass(frozen=True)
class Run:
    """One committed run of an augmenter: its recipe and where its rows lie."""

    name: str
    plugin: str
    family: str
    recipe: dict[str, Any]
    partition: str
    shard: ShardName
    labels: tuple[int, ...]
    """Rows by class."""
    model: str | None
    """The fitted model that made it, if it is kept in the store."""
    fitted_on: tuple[int, ...] | None
    """Real rows that a generator was fitted on; None for traditional runs."""
    trained_from: str
    """Digest of the training part that the run was made from."""
    environment: dict[str, str]
    """Versions that decide the pixels to the last bit, as the plugin named them."""
    code: list[dict[str, str]]
    """Distribution, version and `record` of the packages that made it; see `provenance`."""
    memorisation: dict[str, Any] | None
    """Of generated rows: how many look like copies of training images, by which threshold."""

    @property
    def rows(self) -> int:
        """Return the number of images."""
        return self.shard.rows


class Snapshot:
    """A store as it was after one commit; later commits do not change it."""

    def __init__(self, path: str, shape: Shape, pool: ShardPool, entries: Sequence[Entry]):
        self.path = path
        self.shape = shape
        self.number = len(entries)
        self._pool = pool
        self._entries = tuple(entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Return the committed changes, oldest first."""
        return self._entries

    @property
    def digest(self) -> str:
        """Return what names this snapshot and all before it: the digest of its last log entry.

        Each entry holds that of the one before; a number alone would not tell two stores apart.
        """
        return str(self._entries[-1]["digest"]) if self._entries else ""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Return the class names; a label is an index into them."""
        ingests = [e for e in self._entries if e["kind"] == "ingest"]
        return tuple(ingests[-1]["classes"]) if ingests else ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """Return the names of the data sets, in the order in which they came."""
        return tuple(dict.fromkeys(self.real.datasets.tolist()))

    def require_images(self) -> None:
        """Raise StoreError if there are no real images."""
        if not len(self.real.keys):
            raise StoreError(f"{self.path} holds no images yet: augkit ingest FOLDER")

    def require_datasets(self, names: Sequence[str]) -> None:
        """Raise OptionError unless these are data sets of this store."""
        _require("data set", names, sorted(self.datasets))

    def require_classes(self, names: Sequence[str]) -> None:
        """Raise OptionError unless these are classes of this store."""
        _require("class", names, self.classes)

    @cached_property
    def real(self) -> RealRows:
        """Return the real images with their groups and folds."""
        ingests = [e for e in self._entries if e["kind"] == "ingest"]
        columns: dict[str, list[np.ndarray]] = {n: [] for n in _REAL_COLUMNS}
        pieces = []
        for entry in ingests:
            named = _shard_name(entry)
            with self._pool.shard(named.name, named.rows) as shard:
                for name in _REAL_COLUMNS:
                    columns[name].append(_column(shard, name, named.rows))
                pieces.append(_all_rows(named, self._labels(entry, shard.column("labels"))))
        rows = Rows.join(pieces)
        groups, folds, conflict = self._grouping(rows.labels)
        joined = {n: _joined(c) for n, c in columns.items()}
        return RealRows(
            rows=rows,
            keys=joined["key"].astype(str),
            groups=groups,
            folds=folds,
            conflict=conflict,
            masked=joined["masked"].astype(bool),
            colour=joined["colour"].astype(bool),
            patients=joined["patient"].astype(str),
            sha256=joined["source_sha256"].astype(str),
            given=self._given(joined["given"]),
        )

    def _given(self, column: np.ndarray) -> np.ndarray:
        """Return the parts that the images came with. Raises DamagedStore for what is none."""
        if len(column):
            require_whole(column, f"{self.path}: images came with parts")
        if len(column) and not -1 <= column.min() <= column.max() < len(PARTS):
            raise DamagedStore(f"{self.path}: an image came with a part that does not exist")
        return column.astype(np.int8)

    def _labels(self, entry: Entry, labels: np.ndarray) -> np.ndarray:
        """Return labels as indices into the classes of the store; a shard counts its own."""
        index = np.array([self.classes.index(c) for c in entry["shard_classes"]], np.int64)
        require_whole(labels, f"{self.path}: commit {entry['number']} has labels")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(index):
            raise DamagedStore(f"{self.path}: commit {entry['number']} has labels without a class")
        return index[labels]

    def source_sizes(self) -> np.ndarray:
        """Return int32 (N, 2) for the real rows: height and width of the images as they came."""
        found = [np.zeros((0, 2), np.int32)]
        for entry in self._entries:
            if entry["kind"] == "ingest":
                named = _shard_name(entry)
                with self._pool.shard(named.name, named.rows) as shard:
                    sizes = shard.column("source_size")
                    require_whole(sizes[..., :1].ravel(), f"{self.path}: images have sizes")
                    if sizes.shape != (named.rows, 2):
                        raise DamagedStore(f"{self.path}: images have sizes that are none")
                    found.append(sizes)
        return np.concatenate(found)

    @cached_property
    def grouping(self) -> dict[str, Any]:
        """Return the newest table of groups and folds, as the log has it."""
        tables = [e["grouping"] for e in self._entries if "grouping" in e]
        return tables[-1] if tables else {"version": 0, "groups": [], "folds": []}

    @property
    def decisions(self) -> list[tuple[int, int, str]]:
        """Return what a person decided about pairs of real rows: "same" or "different"."""
        found = [(a, b, word) for a, b, word in self.grouping.get("decisions", [])]
        if any(b >= len(self.real.keys) for _, b, _ in found):
            raise DamagedStore(f"{self.path}: a decision is about an image that does not exist")
        return found

    def _grouping(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return group, fold and conflict of every real row."""
        table = self.grouping
        groups = np.array(table["groups"], np.int64)
        fold_of = np.array([-1 if f is None else f for f in table["folds"]], np.int64)
        fits = len(groups) == len(labels) and (groups < len(fold_of)).all() and (groups >= 0).all()
        folds = fold_of[groups] if fits and len(groups) else np.zeros(len(groups), np.int64)
        if not fits or ((folds < 0) | (folds >= N_FOLDS)).any():
            raise DamagedStore(f"{self.path}: the table of groups does not fit the images")
        conflict = np.zeros(len(groups), bool)
        if len(groups) and table["conflicts"] == "drop":
            conflict = in_conflict(groups, labels)
        return groups, folds, conflict

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Return the runs that are not retracted, by name, oldest first."""
        found: dict[str, Run] = {}
        models: dict[str, Model] = {}
        for entry in self._entries:
            if entry["kind"] == "model":
                model = read_model(entry)
                models[model.name] = model
            elif entry["kind"] == "run":
                found[entry["run"]] = _run(entry, models)
            elif entry["kind"] == "retraction":
                found.pop(entry["run"], None)
        return found

    def run(self, name: str) -> Run:
        """Return one run. Raises StoreError if there is none of that name."""
        if name not in self.runs:
            known = ", ".join(self.runs) or "none yet"
            raise StoreError(f"{self.path} has no run {name!r}; its runs: {known}")
        return self.runs[name]

    @cached_property
    def models(self) -> dict[str, Model]:
        """Return the fitted models by name, each as its newest commit describes it, newest last."""
        found: dict[str, Model] = {}
        for entry in self._entries:
            if entry["kind"] == "model":
                model = read_model(entry)
                found.pop(model.name, None)
                found[model.name] = model
        return found

    def model(self, name: str) -> Model:
        """Return one model. Raises StoreError if there is none of that name."""
        if name not in self.models:
            known = ", ".join(self.models) or "none yet"
            raise StoreError(f"{self.path} has no model {name!r}; its models: {known}")
        return self.models[name]

    def parts(self, partition: Partition) -> np.ndarray:
        """Return int8 (N,) for the real rows: 0 train, 1 validation, 2 test, -1 left out."""
        real, scope = self.real, partition.scope
        folds = self._folds_of_images if scope.by_image else real.folds
        parts = partition.part_of_fold()[folds]
        if partition.given:
            return self._parts_as_given(parts, scope)
        if scope.held_out:
            tested = real.datasets == scope.held_out
            torn = np.isin(real.groups, real.groups[tested]) & np.isin(
                real.groups, real.groups[~tested]
            )
            parts = np.where(torn, -1, np.where(tested, 2, parts)).astype(np.int8)
        parts[real.conflict | ~self.within(scope)] = -1
        return parts

    def _parts_as_given(self, by_fold: np.ndarray, scope: Scope) -> np.ndarray:
        """Return the parts that the data sets came with, less what would leak; see `given_parts`.

        Test images are all tested, also those with relatives of another class. By image: to the
        image as it was published, with every leak.
        """
        real = self.real
        given = np.where(self.within(scope), real.given, -1)
        alone = np.arange(len(given))
        groups = alone if scope.by_image else real.groups
        parts = given_parts(given, by_fold, real.datasets, groups)
        if not scope.by_image:
            parts[real.conflict & (parts != 2)] = -1
        return parts

    def require_parts(self, partition: Partition) -> None:
        """Raise OptionError for the given split where no image came with a part of its own."""
        if partition.given and not (self.parts(partition) >= 0).any():
            raise OptionError(
                f"no image of {self.path} came with a split of its own: choose --split 70/15/15, "
                "or ingest a data set that has one (docs/ingest.md)"
            )

    def within(self, scope: Scope) -> np.ndarray:
        """Return bool (N,) for the real rows: a partition of this scope deals with them."""
        real = self.real
        self.require_datasets([*scope.datasets, *([scope.held_out] if scope.held_out else [])])
        left_out = [i for i, name in enumerate(self.classes) if name in scope.without]
        within = ~np.isin(real.labels, left_out)
        return within & np.isin(real.datasets, scope.datasets) if scope.datasets else within

    @cached_property
    def _folds_of_images(self) -> np.ndarray:
        """Return int64 (N,), folds dealt to images instead of groups, by data set and class."""
        real = self.real
        folds = np.empty(len(real.keys), np.int64)
        rng = np.random.Generator(np.random.Philox(0))
        strata = np.char.add(real.datasets, np.char.add("/", real.labels.astype(str)))
        for stratum in np.unique(strata):
            rows = np.flatnonzero(strata == stratum)
            folds[rng.permutation(rows)] = np.arange(len(rows)) % N_FOLDS
        return folds

    def parents(self, run: str) -> np.ndarray:
        """Return int64 (N,): the real row that each row of a traditional run derives from."""
        found = self.run(run)
        with self._pool.shard(found.shard.name, found.rows) as shard:
            parents = shard.column("parent")
        if parents.ndim != 1:
            raise DamagedStore(f"run {run!r} has rows of several parents, which cannot be followed")
        require_whole(parents, f"run {run!r} has parents")
        if found.rows and not (parents.min() >= 0 and parents.max() < len(self.real.keys)):
            raise DamagedStore(f"run {run!r} has rows whose parent does not exist")
        return parents

    def nearest(self, run: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the training image that each generated row resembles most, and how much.

        int64 (N,), its row among all real images, and float32 (N,), the correlation. None where
        the rows were not compared when they were made.
        """
        found = self.run(run)
        with self._pool.shard(found.shard.name, found.rows) as shard:
            if not (shard.has("nearest") and shard.has("nearest_score")):
                return None
            nearest, score = shard.column("nearest"), shard.column("nearest_score")
        require_whole(nearest, f"run {run!r} has relatives")
        if score.dtype.kind != "f" or score.ndim != 1:
            raise DamagedStore(f"run {run!r} has likenesses that are no numbers")
        if found.rows and not (nearest.min() >= 0 and nearest.max() < len(self.real.keys)):
            raise DamagedStore(f"run {run!r} has rows that resemble an image that does not exist")
        return nearest, score

    def params(self, run: str) -> np.ndarray:
        """Return the structured array (N,) that was drawn for the rows of a run."""
        found = self.run(run)
        with self._pool.shard(found.shard.name, found.rows) as shard:
            return shard.column("params") if shard.has("params") else np.empty(found.rows, [])

    def trainable(self, run: str, partition: Partition) -> np.ndarray:
        """Return bool (N,) for the rows of a run: may be trained on under this partition.

        This is the lineage rule; everything that trains goes through it.
        """
        in_train = self.parts(partition) == 0
        found = self.run(run)
        if found.fitted_on is not None:
            if not all(0 <= row < len(in_train) for row in found.fitted_on):
                raise DamagedStore(f"run {run!r} was fitted on images that do not exist")
            whole = bool(in_train[list(found.fitted_on)].all())
            left_out = [i for i, name in enumerate(self.classes) if name in partition.scope.without]
            return whole & ~np.isin(self._run_rows(found).labels, left_out)
        parents = self.parents(run)
        if not np.array_equal(self._run_rows(found).labels, self.real.labels[parents]):
            raise DamagedStore(
                f"run {run!r} has rows whose label is not that of their parent: augkit verify "
                f"lists them, augkit retract {run} takes them back"
            )
        return in_train[parents]

    def training(
        self, partition: Partition, runs: Sequence[str] = (), *, real: bool = True
    ) -> StoredSamples:
        """Return the rows that may be trained on: real images, then those of the runs in order.

        Rows of a run whose lineage is not wholly in the training part are left out.
        """
        pieces = [self.real.rows.take(self.parts(partition) == 0)] if real else []
        for name in runs:
            rows = self._run_rows(self.run(name))
            pieces.append(rows.take(self.trainable(name, partition)))
        return self._samples(Rows.join(pieces), "training")

    def validation(self, partition: Partition) -> StoredSamples:
        """Return the real images of the validation part."""
        return self._samples(self.real.rows.take(self.parts(partition) == 1), "validation")

    def test(self, partition: Partition) -> StoredSamples:
        """Return the real images of the test part; their labels are withheld."""
        rows = self.real.rows.take(self.parts(partition) == 2)
        return self._samples(replace(rows, labels=np.full_like(rows.labels, -1)), "test")

    def inspect(self, run: str | None = None) -> StoredSamples:
        """Return all real images, or all rows of a run, to look at: nothing trains on these."""
        rows = self.real.rows if run is None else self._run_rows(self.run(run))
        return self._samples(rows, "inspection")

    def inspect_entry(self, entry: Entry) -> StoredSamples:
        """Return all rows of the run of a log entry, retracted or not, without their labels."""
        named = _shard_name(entry)
        return self._samples(_all_rows(named, np.full(named.rows, -1)), "inspection")

    def training_digest(self, partition: Partition) -> str:
        """Return what identifies a training part: its images and their groups."""
        return self.images_digest(np.flatnonzero(self.parts(partition) == 0))

    def images_digest(self, rows: np.ndarray) -> str:
        """Return what identifies some real images, int64 (n,): their keys, files and groups."""
        real = self.real
        return digest_of([each[rows].tolist() for each in (real.keys, real.sha256, real.groups)])

    def stale_runs(self, *partitions: Partition) -> list[str]:
        """Return the runs of these that a later ingest or review left with rows of no use."""
        made_for = {partition.name: partition for partition in partitions}
        return [
            name
            for name, run in self.runs.items()
            if run.partition in made_for and not self.trainable(name, made_for[run.partition]).all()
        ]

    def count_by_class(self, chosen: np.ndarray) -> dict[str, int]:
        """Return how many of the chosen real rows each class has."""
        counts = np.bincount(self.real.labels[chosen], minlength=len(self.classes))
        return {name: int(n) for name, n in zip(self.classes, counts, strict=True)}

    def count_by_part(self, partition: Partition) -> dict[str, int]:
        """Return how many images each part has."""
        counts = Counter(self.parts(partition).tolist())
        return {name: counts[i] for i, name in enumerate(PARTS)}

    def _run_rows(self, run: Run) -> Rows:
        with self._pool.shard(run.shard.name, run.rows) as shard:
            labels = shard.column("labels")
        require_whole(labels, f"run {run.name!r} has labels")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise DamagedStore(f"run {run.name!r} has labels that are no class")
        return _all_rows(run.shard, labels)

    def _samples(self, rows: Rows, purpose: Purpose) -> StoredSamples:
        if purpose != "inspection":  # what is only looked at may be damaged
            for shard in rows.shards:
                self._pool.require_intact(shard.name, shard.rows, shard.content)
        return StoredSamples(self._pool, self.shape, rows, purpose)


def _require(kind: str, names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            raise OptionError(f"there is no {kind} {name!r}; there are: {', '.join(there)}")


def require_whole(column: np.ndarray, said: str) -> None:
    """Raise DamagedStore unless a column, (N,), holds whole numbers: it is used as an index."""
    if column.ndim != 1 or column.dtype.kind not in "iu":
        raise DamagedStore(f"{said} that are no whole numbers: {column.dtype} {column.shape}")


def in_conflict(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return bool (N,): the group of the image carries several classes. Both int64 (N,)."""
    n_groups = int(groups.max(initial=-1)) + 1
    low = np.full(n_groups, labels.max(initial=0))
    high = np.zeros(n_groups, np.int64)
    np.minimum.at(low, groups, labels)
    np.maximum.at(high, groups, labels)
    return (low != high)[groups]


def require_training(samples: object) -> None:
    """Raise LineageError unless these are samples that may be trained on."""
    if getattr(samples, "purpose", None) != "training":
        raise LineageError(
            "only what Snapshot.training returns may be trained on; these samples are for "
            f"{getattr(samples, 'purpose', 'another purpose')}"
        )


_REAL_COLUMNS = ("key", "source_sha256", "masked", "colour", "patient", "given")


def _column(shard: Any, name: str, rows: int) -> np.ndarray:
    if name == "masked" and not shard.has("masked"):
        return np.zeros(rows, bool)
    if name == "given" and not shard.has("given"):
        return np.full(rows, -1, np.int8)
    values = shard.column(name)
    if name == "source_sha256":
        if values.shape != (rows, 32) or values.dtype != np.uint8:
            raise DamagedStore(f"shard {shard.name} has hashes that are none")
        return np.array([bytes(v).hex() for v in values], str)
    return values


_LARGEST_COLUMN = 2**30
"""Bytes of a column of all real images in memory: where a key of one shard is a page long, that
makes room for a page in the row of every other."""


def _joined(columns: list[np.ndarray]) -> np.ndarray:
    if not columns:
        return np.zeros(0)
    n_bytes = sum(map(len, columns)) * max(column.itemsize for column in columns)
    if n_bytes > _LARGEST_COLUMN:
        raise DamagedStore(f"a column of the real images would take {n_bytes} bytes of memory")
    return np.concatenate(columns)


def _shard_name(entry: Entry) -> ShardName:
    shard = entry["shard"]
    return ShardName(shard["name"], shard["rows"], shard["content"], entry["number"])


def _all_rows(named: ShardName, labels: np.ndarray) -> Rows:
    n = named.rows
    return Rows((named,), np.zeros(n, np.int64), np.arange(n), labels.astype(np.int64))


def _run(entry: Entry, models: dict[str, Model]) -> Run:
    """Return the run of a log entry. models: those that were committed before it, by name."""
    lineage = entry["lineage"]
    model, fitted = lineage.get("model"), lineage.get("fitted_on")
    if model is not None:
        if model not in models:
            raise DamagedStore(f"run {entry['run']!r} is of model {model}, which no commit names")
        fitted = models[model].fitted_on
    return Run(
        name=entry["run"],
        plugin=entry["recipe"]["plugin"],
        family=entry["family"],
        recipe=entry["recipe"],
        partition=entry["recipe"]["partition"],
        shard=_shard_name(entry),
        labels=tuple(entry["by_class"]),
        model=model,
        fitted_on=None if fitted is None else tuple(fitted),
        trained_from=entry["trained_from"],
        environment=entry.get("environment", {}),
        code=entry.get("code", []),
        memorisation=entry.get("memorisation"),
    )
