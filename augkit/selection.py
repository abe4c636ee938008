"""Which rows leave a store, for files or for training elsewhere, in the words of `evaluate`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from augkit.arms import BALANCED, REAL, choose_arms, under
from augkit.errors import LineageError, OptionError, StoreError
from augkit.interfaces import Samples
from augkit.partitions import PARTS, Partition, Scope, empty_part, protocol
from augkit.recipes import listed, whole
from augkit.store import Snapshot
from augkit.store.samples import JoinedSamples, StoredSamples

log = logging.getLogger("augkit")


@dataclass(frozen=True)
class Selection:
    """What is asked for, as it was given; `partition` and `collect` check it."""

    arms: Sequence[str] = (REAL,)
    split: str | None = None
    folds: int | None = None
    fold: int | None = None
    """Which of the folds is tested, counted from 1."""
    datasets: Sequence[str] = ()
    test_on: str | None = None

    def partition(self) -> Partition:
        """Return the one partition that is meant. Raises OptionError if it is none."""
        datasets = listed("datasets", self.datasets)
        scope = Scope(datasets, held_out=self.test_on or "")
        folds = None if self.folds is None else whole("folds", self.folds)
        partitions = protocol(self.split, folds, 1, scope).partitions
        return partitions[self._number(folds)]

    def _number(self, folds: int | None) -> int:
        """Return which of the partitions is meant, counted from 0."""
        if folds is None:
            if self.fold is not None:
                raise OptionError(f"fold {self.fold} of how many? Give --folds as well")
            return 0
        if self.fold is None:
            raise OptionError(f"which of the {folds} folds? Give --fold, 1 to {folds}")
        if not 1 <= whole("fold", self.fold) <= folds:
            raise OptionError(f"fold is {self.fold}; it must be 1 to {folds}")
        return self.fold - 1


@dataclass(frozen=True)
class Piece:
    """Rows of one part with a common history: real images, or rows of one run."""

    part: str
    run: str
    """The run; `real` for real images."""
    rows: np.ndarray
    """int64 (N,), among all real images, or within the run."""
    samples: StoredSamples
    labels: np.ndarray
    """int64 (N,), those of the test part as well."""


@dataclass(frozen=True)
class Collection:
    """Pieces one after another; a position counts through all of them."""

    name: str
    pieces: tuple[Piece, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    """Run -> rows that may not be trained on under this partition; only where there are any."""

    @property
    def samples(self) -> Samples:
        """Return the images of all pieces."""
        found = [piece.samples for piece in self.pieces]
        return found[0] if len(found) == 1 else JoinedSamples(found)

    @property
    def labels(self) -> np.ndarray:
        """Return int64 (N,)."""
        return np.concatenate([piece.labels for piece in self.pieces])

    def masks(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return masks, uint8 (n, H, W) of 0 and 255, and bool (n,): which images have one."""
        ends = np.cumsum([len(piece.rows) for piece in self.pieces])
        piece_of = np.searchsorted(ends, positions, side="right")
        height, width = self.pieces[0].samples.shape[:2]
        out, masked = np.zeros((len(positions), height, width), np.uint8), np.zeros_like(piece_of)
        for index in np.unique(piece_of).tolist():
            here, piece = piece_of == index, self.pieces[index]
            local = positions[here] - (ends[index] - len(piece.rows))
            out[here], masked[here] = piece.samples.take(local).masks(slice(None))
        return out, masked.astype(bool)

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each position its piece and its row there, both int64 (N,)."""
        sizes = [len(piece.rows) for piece in self.pieces]
        pieces = np.repeat(np.arange(len(sizes)), sizes)
        return pieces, np.concatenate([piece.rows for piece in self.pieces])


def check_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """Return the parts, each once. Raises OptionError for one that does not exist."""
    found = tuple(dict.fromkeys(listed("parts", parts)))
    unknown = [part for part in found if part not in PARTS]
    if unknown or not found:
        named = f"there is no part {unknown[0]!r}" if unknown else "no part is named"
        raise OptionError(f"{named}; there are: {', '.join(PARTS)}")
    return found


def collect(snapshot: Snapshot, selection: Selection, part: str) -> Collection:
    """Return the rows of one part: real images, and in the training part those of the runs.

    Training rows come from `Snapshot.training`, which leaves out what may not be trained on; how
    much that was is logged. Raises an AugkitError where nothing is left.
    """
    check_parts([part])
    arms = chosen_arms(snapshot, selection.arms)
    partition = selection.partition()
    pieces, left_out = [_real(snapshot, partition, part)], {}
    if part == PARTS[0]:
        for arm, runs in arms.items():
            found = [under(snapshot, run, partition) or run for run in runs]
            made = {run: snapshot.trainable(run, partition) for run in found}
            if runs and not any(rows.any() for rows in made.values()):
                raise LineageError(_nothing(arm, snapshot.run(runs[0]).partition, partition))
            known = {piece.run for piece in pieces}
            for run in [name for name in made if name not in known]:
                pieces.append(_augmented(snapshot, partition, run))
                left_out[run] = int((~made[run]).sum())
    return Collection(part, tuple(p for p in pieces if len(p.rows)), _told(left_out, partition))


def chosen_arms(snapshot: Snapshot, wanted: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return arm -> runs. Raises OptionError for an arm that does not exist."""
    arms = listed("arms", wanted)
    if BALANCED in arms:
        raise OptionError(f"{BALANCED} repeats real images; take {REAL}, and repeat them yourself")
    return choose_arms(snapshot, arms)


def _real(snapshot: Snapshot, partition: Partition, part: str) -> Piece:
    snapshot.require_images()
    snapshot.require_parts(partition)
    rows = np.flatnonzero(snapshot.parts(partition) == PARTS.index(part))
    if not len(rows):
        raise StoreError(empty_part(part, partition))
    read = {"train": snapshot.training, "validation": snapshot.validation, "test": snapshot.test}
    return Piece(part, REAL, rows, read[part](partition), snapshot.real.labels[rows])


def _augmented(snapshot: Snapshot, partition: Partition, run: str) -> Piece:
    rows = np.flatnonzero(snapshot.trainable(run, partition))
    samples = snapshot.training(partition, [run], real=False)
    return Piece(PARTS[0], run, rows, samples, samples.labels)


def _nothing(arm: str, made_for: str, partition: Partition) -> str:
    if partition.name == made_for:
        why = "its images are not trained on any more: augment again"
    else:
        why = (
            f"it was made for {made_for}, which --split {made_for} takes; a generative one "
            "is fitted anew for other partitions by augkit evaluate --refit"
        )
    return f"no row of {arm!r} may be trained on under {partition.name}: {why}"


def _told(left_out: dict[str, int], partition: Partition) -> dict[str, int]:
    """Return the runs of which rows are left out, after saying so."""
    found = {run: n for run, n in left_out.items() if n}
    for run, n in found.items():
        log.warning(
            "note: %d rows of run %r may not be trained on under %s and are left out",
            n,
            run,
            partition.name,
        )
    return found
