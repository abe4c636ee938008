"""DatasetStore: the one object through which a store is made, read and committed to."""

from __future__ import annotations

import contextlib
import datetime
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from augkit.errors import (
    AugkitError,
    DamagedStore,
    FormatError,
    InputError,
    StoreError,
    StoreNotFound,
)
from augkit.interfaces import Shape
from augkit.store import durable
from augkit.store.folder import Folder
from augkit.store.format import FORMAT_VERSION, Entry, encode_entry, is_abandoned
from augkit.store.models import damage, flush_model
from augkit.store.packed import PackedFile
from augkit.store.plain import require_plain
from augkit.store.reading import Snapshot
from augkit.store.shards import ShardPool, ShardWriter
from augkit.store.standing import Standing, purged, read_entry, require_finished

PACKED_SUFFIXES = {".h5", ".hdf5"}


class DatasetStore:
    """A data set store, in either form. Any number of processes may read and write it at once.

    Open one with `DatasetStore.open`, make one with `DatasetStore.create`, and read it through
    `snapshot()`.
    """

    def __init__(self, form: Folder | PackedFile, path: Path):
        self._form = form
        self._path = path
        self._lock = threading.RLock()
        self._entries: list[Entry] = []
        self._pool = ShardPool(form.open_group, form.shape, is_gone=form.is_gone)

    @classmethod
    def open(cls, path: str | Path) -> DatasetStore:
        """Return the store at `path`. Raises StoreNotFound or FormatError."""
        path = Path(path)
        if Folder.is_one(path):
            require_plain(path)
            return cls(Folder(path), path)
        if PackedFile.is_one(path):
            return cls(PackedFile(path), path)
        if not path.exists():
            raise StoreNotFound(
                f"there is no store at {path}: make one with augkit ingest FOLDER --store {path}"
            )
        raise FormatError(f"{path} is no augkit store")

    @classmethod
    def create(
        cls, path: str | Path, *, height: int, width: int, channels: int = 1
    ) -> DatasetStore:
        """Return a new store for images of one size; the first commit writes it.

        A path that ends in .h5 gives a packed store, any other a folder. Raises StoreError if
        something lies there already.
        """
        path = Path(path)
        form = PackedFile if path.suffix.lower() in PACKED_SUFFIXES else Folder
        if not form.is_free(path):
            raise StoreError(f"{path} exists already: choose another name, or remove it")
        if channels not in (1, 3) or height < 1 or width < 1:
            raise InputError(
                f"images of {width}x{height}x{channels} cannot be stored: sides must be at least "
                "1, channels 1 or 3"
            )
        return cls(form(path, (height, width, channels)), path)

    @property
    def path(self) -> Path:
        """Return where the store lies, as it was named."""
        return self._path

    @property
    def form(self) -> str:
        """Return "folder" or "file"."""
        return self._form.form

    @property
    def shape(self) -> Shape:
        """Return height, width and channels of its images."""
        return self._form.shape

    def snapshot(self, number: int | None = None) -> Snapshot:
        """Return the store as it is now: everything committed, nothing else.

        number: as it was after so many commits. Raises StoreError if there were never so many.
        """
        with self._lock:
            count, known = self._form.count(), len(self._entries)
            newest = read_entry(self._form, count) if count else None
            if newest is not None:
                require_finished(self._form, newest)
            last = newest if count == known else self._read(known) if count > known else None
            if known and last != self._entries[-1]:
                raise purged(self._form)
            while len(self._entries) < count:
                self._entries.append(self._follow(len(self._entries) + 1))
            entries = self._entries[:number]
            if number is not None and len(entries) != number:
                raise StoreError(f"{self.path} has {count} commits: there must be {number}")
            return Snapshot(str(self.path), self.shape, self._pool, entries)

    def _read(self, number: int) -> Entry | None:
        return read_entry(self._form, number) if number else None

    def standing(self, snapshot: Snapshot | None = None) -> Standing:
        """Return what holds off a purge while a file is written that belongs to no commit.

        snapshot: what the file is made from; None: what was read last.
        """
        entries = self._entries if snapshot is None else snapshot.entries
        return Standing(self._form, len(entries), entries[-1]["digest"] if entries else None)

    def forget(self) -> None:
        """Read the log anew next time: this object has just rewritten it."""
        with self._lock:
            self._entries.clear()
            self._pool.close()

    def _follow(self, number: int) -> Entry:
        """Return a log entry. Raises DamagedStore unless it follows those that are known."""
        entry = read_entry(self._form, number)
        previous = self._entries[-1]["digest"] if self._entries else None
        if (entry.get("number"), entry.get("previous")) != (number, previous):
            raise DamagedStore(
                f"{self.path}: entry {number} of the log does not follow the entry before it"
            )
        return entry

    def write_shard(
        self, attributes: dict[str, Any], *, masks: bool, expected: int | None = None
    ) -> ShardWriter:
        """Return a writer for a new shard; nothing is visible before `commit`.

        expected: how many rows will come, if that is known.
        """
        with self.standing().held():
            return self._write_shard(attributes, masks, expected)

    def _write_shard(
        self, attributes: dict[str, Any], masks: bool, expected: int | None
    ) -> ShardWriter:
        about = {"format": f"augkit shard, version {FORMAT_VERSION}", **attributes}
        return ShardWriter(self._form.stage(), self.shape, about, masks=masks, expected=expected)

    def new_shard(
        self, attributes: dict[str, Any], *, masks: bool, expected: int | None = None
    ) -> durable.Lent[ShardWriter]:
        """Lend what `write_shard` returns; if it is not committed, nothing is left of it."""
        make = partial(self._write_shard, attributes, masks, expected)
        return durable.Lent(make, ShardWriter.discard, self.standing().held)

    def stage_model(self) -> Path:
        """Return a new empty folder for a plugin to save a model in; `commit` takes it from there.

        Whoever does not commit it removes it; if it is killed, the next writer does.
        """
        with self.standing().held():
            return self._stage_model()

    def _stage_model(self) -> Path:
        folder = self._form.stage(".model")
        with durable.writing(self.path):
            folder.mkdir()
        return folder

    def new_model(self) -> durable.Lent[Path]:
        """Lend what `stage_model` returns; it is gone afterwards, committed or not."""
        return durable.Lent(self._stage_model, durable.remove, self.standing().held)

    def commit(
        self,
        describe: Callable[[Snapshot], Entry],
        shard: Path | None = None,
        *,
        model: Path | None = None,
    ) -> Snapshot:
        """Commit a change, with a finished shard, a saved model, or neither; return what is then.

        `describe` is given the newest snapshot, checks that the change still makes sense there
        (or raises), and returns the entry; it is asked again whenever another writer was faster.
        `model` is a folder of `stage_model`, gone afterwards; the entry gets its name and files as
        `model`. Raises PluginFailed if what was saved there cannot be kept.
        """
        if model is None:
            return self._commit(describe, shard)
        try:
            with durable.writing(self.path):
                about = flush_model(model)
            things = {f"models/{about['name']}": model}
            with self._form.holding_models():
                return self._commit(lambda now: {**describe(now), "model": about}, shard, things)
        finally:
            durable.remove(model)

    def _commit(
        self,
        describe: Callable[[Snapshot], Entry],
        shard: Path | None,
        models: dict[str, Path] | None = None,
    ) -> Snapshot:
        name = uuid.uuid4().hex
        things = {**({f"shards/{name}": shard} if shard else {}), **(models or {})}
        placed = False
        try:
            while not placed:
                with self._form.committing():
                    snapshot = self.snapshot()
                    entry = describe(snapshot)
                    if shard:
                        entry["shard"] = {"name": name, **entry["shard"]}
                    signed = self._signed(entry, snapshot)
                    placed = self._form.put(snapshot.number + 1, signed, things)
        except BaseException:
            self._take_back(things)
            raise
        return self.snapshot()

    def _take_back(self, things: dict[str, Path]) -> None:
        """Delete the shard and the model of a commit that failed, unless a commit names them."""
        with contextlib.suppress(AugkitError, OSError):  # a disk that refuses this, refused that
            entries = self.snapshot().entries
            named = {f"{k}s/{e[k]['name']}" for k in ("shard", "model") for e in entries if k in e}
            self._form.take_back({n: path for n, path in things.items() if n not in named})

    @contextlib.contextmanager
    def model_folder(self, name: str) -> Iterator[Path]:
        """Lend a folder with the files of a model, every byte checked; only to be read.

        Raises StoreError if there is no such model, DamagedStore if its files are not those that
        were committed.
        """
        model = self.snapshot().model(name)
        with self._form.lend_model(name) as folder:
            for what in damage(folder, model.files):
                raise DamagedStore(f"model {name}: {what}; augkit verify lists what is affected")
            yield folder

    def _signed(self, entry: Entry, snapshot: Snapshot) -> bytes:
        from augkit import __version__

        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return encode_entry(
            {
                "format": FORMAT_VERSION,
                "number": snapshot.number + 1,
                "previous": snapshot.entries[-1]["digest"] if snapshot.entries else None,
                "time": now,
                "augkit": __version__,
                **entry,
            }
        )

    def side_folder(self, name: str) -> Path:
        """Return the folder for what is not data: `results`, `outcomes`, `cache`, `training`.

        It may not exist yet. What killed commands left half-written there is deleted.
        """
        folder = self._form.side_folder(name)
        with contextlib.suppress(OSError):  # a read-only store has results to read all the same
            for path in folder.glob("*.tmp"):
                if is_abandoned(path):
                    durable.remove(path)
        return folder

    def tidy(self) -> None:
        """Remove what an unfinished first command left."""
        self._form.tidy()

    def close(self) -> None:
        """Close all open files."""
        self._pool.close()

    def __repr__(self) -> str:
        return f"DatasetStore({str(self.path)!r})"
