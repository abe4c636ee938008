"""The working form of a store: a folder of immutable shards and a numbered log.

store.json              format version and image shape; written once
log/0000000012.json     one committed change each
shards/<uuid>.h5        rows
models/<sha256>/        the files of a fitted model
results/ cache/         evaluations; disposable features
training/               checkpoints of fits that are not finished
tmp/                    what is not committed yet
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import h5py

from augkit.errors import DamagedStore, FormatError, StoreError
from augkit.interfaces import Shape
from augkit.store import durable
from augkit.store.entries import LARGEST_ENTRY
from augkit.store.format import (
    FORMAT_VERSION,
    canonical,
    is_abandoned,
    is_staged,
    newer,
    require_readable,
    staged_name,
)
from augkit.store.models import MODEL_NAME
from augkit.store.plain import is_plain, read_plain
from augkit.store.screening import require_examined, trust

LARGEST_DESCRIPTION = 2**16
"""Bytes of store.json."""

LOST = (
    ": it was purged since the store was opened (open it again), or is damaged (augkit verify "
    "lists what is affected)"
)
"""What may have become of a shard that is not there."""

_OWN_FOLDERS = {"log", "shards", "models", "results", "cache", "training", "tmp"}


class Folder:
    """Reads and writes the files of one store folder; knows nothing of their meaning."""

    form = "folder"

    def __init__(self, path: Path, shape: Shape | None = None):
        self.path = path.resolve()
        self._shape = shape

    @staticmethod
    def is_one(path: Path) -> bool:
        """Return True if a store lies in this folder."""
        return is_plain(path / "store.json")

    @staticmethod
    def is_free(path: Path) -> bool:
        """Return True if a store may be made here: nothing, or what an interrupted try left."""
        if not path.exists():
            return True
        return path.is_dir() and all(_is_remains(p, path) for p in path.rglob("*"))

    @property
    def shape(self) -> Shape:
        """Return height, width and channels, as fixed when the store was made."""
        if self._shape is None:
            self._shape = _read_shape(self.path / "store.json")
        return self._shape

    def count(self) -> int:
        """Return how many changes are committed."""
        numbers = self._numbers()
        if len(numbers) != max(numbers, default=0):
            numbers |= self._numbers()  # a listing taken while others write may skip a name
        missing = set(range(1, max(numbers, default=0))) - numbers
        if missing:
            raise DamagedStore(f"{self.path} has lost entry {min(missing)} of its log")
        return len(numbers)

    def _numbers(self) -> set[int]:
        try:
            names = os.listdir(self.path / "log")
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {int(n[:10]) for n in names if re.fullmatch(r"\d{10}\.json", n)}

    def entry(self, number: int) -> bytes:
        """Return the bytes of one log entry."""
        try:
            return read_plain(self.entry_path(number), LARGEST_ENTRY)
        except OSError as error:
            raise DamagedStore(f"{self.entry_path(number)} cannot be read: {error}") from error

    def stage(self, suffix: str = ".h5") -> Path:
        """Return a new path for a file that is not committed yet."""
        folder = self.path / "tmp"
        with durable.writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._sweep(folder)
        return folder / staged_name(suffix)

    def put(self, number: int, entry: bytes, things: dict[str, Path]) -> bool:
        """Commit: shards and models first, then the entry. False if its number is taken.

        things: staged paths by "shards/NAME" and "models/NAME". A model that is there already
        stays; its staged folder is then the caller's to remove. Raises StoreError for an entry
        that could not be read again.
        """
        require_readable(entry)
        with durable.writing(self.path):
            self._make()
            staged_entry = self.stage(".json")
            try:
                durable.write_new(staged_entry, entry)  # first: it tells `_sweep` of the shard
                moved = [thing for thing, staged in things.items() if self._move(staged, thing)]
                for folder in self._relied_on(number, things):
                    durable.flush_folder(folder)
                placed = durable.put_if_absent(staged_entry, self.entry_path(number))
                if placed:
                    for thing in things:
                        if thing.startswith("shards/"):
                            trust(self._place(thing), "shard")
                else:
                    for thing in moved:  # while the staged entry still tells of it
                        os.rename(self._place(thing), things[thing])
                return placed
            finally:
                staged_entry.unlink(missing_ok=True)

    def _relied_on(self, number: int, things: dict[str, Path]) -> list[Path]:
        """Return the folders whose names a log entry relies on.

        Another command may have made these names, and may not have come to flush them: those of
        the store, at first, and later the log entry before.
        """
        own = [self.path / kind for kind in sorted({t.partition("/")[0] for t in things})]
        return own + ([self.path, self.path.parent] if number == 1 else [self.path / "log"])

    def _move(self, staged: Path, thing: str) -> bool:
        """Give a staged thing its place; False if it is there, as a model of equal weights may."""
        place = self._place(thing)
        if place.exists():
            return False
        os.rename(staged, place)
        return True

    @contextlib.contextmanager
    def holding_models(self) -> Iterator[None]:
        """Hold off all others who put or remove models: equal weights have one name for all.

        Whoever removes a model holds this, and so does whoever is about to commit one: neither
        sees the other half-way. What is held by a process that is killed, is free at once.
        """
        folder = self.path / "models"
        with contextlib.ExitStack() as held:
            with durable.writing(self.path):
                self._make()
                durable.flush_folder(self.path)
                held.enter_context(durable.locked(folder))
                self._drop_orphans()
            yield

    def _drop_orphans(self) -> None:
        """Delete the models that no commit names; only for who holds the models."""
        for name in self._unnamed(self.model_names()):
            self._drop_model(name)

    def _drop_model(self, name: str) -> None:
        """Delete a model: out of its place in one step, so that no half of it can be met there."""
        gone = self.path / "tmp" / staged_name(".model")
        try:
            os.rename(self._place(f"models/{name}"), gone)
        finally:
            durable.remove(gone)

    def sharing(self) -> contextlib.AbstractContextManager[None]:
        """Hold off a purge while something is written that belongs to no commit."""
        return durable.sharing(self.path)

    def committing(self) -> contextlib.AbstractContextManager[None]:
        """Hold off a purge from the look at the newest snapshot to the commit."""
        return durable.sharing(self.path)

    @staticmethod
    def is_gone(handle: int) -> bool:
        """Return True if an open shard, by the handle of its file, is in the store no longer."""
        return os.name != "nt" and os.fstat(handle).st_nlink == 0

    def take_back(self, things: dict[str, Path]) -> None:
        """Delete what was put, or staged, for a commit that was given up."""
        for thing, staged in things.items():
            durable.remove(staged)
            if thing.startswith("shards/"):
                self._place(thing).unlink(missing_ok=True)
            elif self._place(thing).exists():
                self._drop_model(thing.partition("/")[2])
        self.tidy()

    def tidy(self) -> None:
        """Remove the folders that an unfinished first commit made, if nothing lies in them."""
        if Folder.is_one(self.path):
            return  # another command may be about to use tmp/
        with contextlib.suppress(OSError):
            (self.path / "tmp").rmdir()
            self.path.rmdir()

    def open_group(self, name: str) -> h5py.Group:
        """Open one shard for reading; the caller closes its file."""
        place = self._place(f"shards/{name}")
        if not place.exists():
            raise DamagedStore(f"{self.path} has lost shard {name}{LOST}")
        require_examined(place, "shard")
        return h5py.File(place, "r", locking=False)

    def examine(self, shard: str | None = None) -> None:
        """Examine the file of a shard, known or not. Raises DamagedStore. None: of no shard."""
        if shard is not None and (place := self._place(f"shards/{shard}")).exists():
            require_examined(place, "shard", anew=True)

    def files(self, names: list[str]) -> Iterator[tuple[Path, int, list[str]]]:
        """Yield the files that hold shards: path, where the hashed bytes begin, shards in it."""
        for name in names:
            yield self._place(f"shards/{name}"), 0, [name]

    def shard_names(self) -> set[str]:
        """Return the names of all shards on the disk, committed or not."""
        folder = self.path / "shards"
        return {p.stem for p in folder.glob("*.h5")} if folder.exists() else set()

    def export_shard(self, name: str, target: h5py.Group) -> None:
        """Copy a shard into a group of another file."""
        with self.open_group(name) as source:
            copy_shard(source, target)

    def model_names(self) -> set[str]:
        """Return the names of all models on the disk, committed or not."""
        folder = self.path / "models"
        found = os.listdir(folder) if folder.is_dir() else []
        return {name for name in found if MODEL_NAME.fullmatch(name)}

    @contextlib.contextmanager
    def lend_model(self, name: str) -> Iterator[Path]:
        """Lend the folder of a model, its files not checked. Raises DamagedStore if it is gone."""
        folder = self._place(f"models/{name}")
        if folder.is_symlink() or not folder.is_dir():
            raise DamagedStore(f"{self.path} has lost model {name}")
        yield folder

    def check_whole(self, sha256: str | None) -> list[str]:
        """Return a line if the description of the store is not as it was written."""
        path = self.path / "store.json"
        if path.exists() and read_plain(path, LARGEST_DESCRIPTION) != _description(self.shape):
            return [f"{path}: the bytes are not those that were committed"]
        return []

    def side_folder(self, name: str) -> Path:
        """Return a folder for what is not part of the data: results, cache or training."""
        return self.path / name

    def _make(self) -> None:
        for name in ("log", "shards", "models", "tmp"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        if not Folder.is_one(self.path):
            staged = self.stage(".json")
            try:
                durable.write_new(staged, _description(self.shape))
                durable.put_if_absent(staged, self.path / "store.json")
            finally:
                staged.unlink(missing_ok=True)
        if _read_shape(self.path / "store.json") != self.shape:
            raise StoreError(
                f"another command has just made {self.path} with another image size: "
                "run this one again"
            )

    def _sweep(self, folder: Path) -> None:
        """Delete what killed commands left, also what was in its place but not committed."""
        abandoned = [path for path in folder.iterdir() if is_abandoned(path)]
        for name in self._unnamed({name for path in abandoned for name in _shards_of(path)}):
            self._place(f"shards/{name}").unlink(missing_ok=True)
        if abandoned:
            # Whoever holds the models now has dropped what was left before.
            with (
                contextlib.suppress(OSError),
                durable.locked(self.path / "models", wait=False),
            ):
                self._drop_orphans()
        for path in abandoned:
            durable.remove(path)

    def _unnamed(self, names: set[str]) -> set[str]:
        """Return those of the names of shards or models that no commit mentions."""
        for path in (self.path / "log").glob("*.json") if names else ():
            entry = path.read_bytes()
            names = {name for name in names if name.encode() not in entry}
        return names

    def rewrite_entry(self, number: int, content: bytes) -> None:
        """Give an entry of the log other bytes, in one step; only for a purge."""
        staged = self.stage(".json")
        durable.write_new(staged, content)
        durable.replace(staged, self.entry_path(number))

    def keep_only(self, shards: set[str], models: set[str]) -> None:
        """Delete all other shards and models, and what any command was writing; for a purge.

        Who is still writing fails when it gives its file a place, or a look at the log stops it.
        """
        gone = [self._place(f"shards/{name}") for name in self.shard_names() - shards]
        gone += [self._place(f"models/{name}") for name in self.model_names() - models]
        for path in (*gone, *(self.path / "tmp").iterdir()):
            durable.remove(path)
        for folder in ("shards", "models", "tmp"):
            durable.flush_folder(self.path / folder)

    def entry_path(self, number: int) -> Path:
        """Return where an entry of the log lies, or will."""
        return self.path / "log" / f"{number:010d}.json"

    def _place(self, thing: str) -> Path:
        """Return where "shards/NAME" or "models/NAME" lies once it is put."""
        return self.path / (f"{thing}.h5" if thing.startswith("shards/") else thing)


def _is_remains(path: Path, store: Path) -> bool:
    """Return True for what an interrupted first commit may leave in the folder of a store."""
    folder, *rest = path.relative_to(store).parts
    if not rest:
        return folder in _OWN_FOLDERS and path.is_dir()
    if folder == "tmp":
        return is_staged(rest[0])  # what lies below is a model that a plugin was saving
    is_shard = folder == "shards" and re.fullmatch(r"[0-9a-f]{32}\.h5", path.name)
    return len(rest) == 1 and bool(is_shard)


def _shards_of(staged: Path) -> set[str]:
    """Return the shards that a staged log entry names; none for anything else."""
    if staged.suffix != ".json":
        return set()
    try:
        entry = json.loads(staged.read_bytes())
        named = [entry, *entry.get("chain", ())]  # that of a purge names those of a whole log
        return {str(each["shard"]["name"]) for each in named if "shard" in each}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def copy_shard(source: h5py.Group, target: h5py.Group) -> None:
    """Copy the columns and attributes of a shard, without following any link out of it."""
    for name in source:
        if not isinstance(source.get(name, getlink=True), h5py.HardLink):
            raise DamagedStore(f"{source.file.filename} holds a link, {name!r}: not copied")
        source.copy(name, target, expand_soft=False, expand_external=False)
    for name, value in source.attrs.items():
        target.attrs[name] = value


def _description(shape: Shape) -> bytes:
    """Return the bytes of store.json."""
    image = dict(zip(("height", "width", "channels"), shape, strict=True))
    return canonical({"format": FORMAT_VERSION, "image": {**image, "dtype": "uint8"}})


def read_image_shape(text: bytes | str, where: Path) -> Shape:
    """Return (height, width, channels) from the description that every store carries."""
    try:
        found = json.loads(text)
        version, image = found["format"], found["image"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{where} is no augkit store: its description is unreadable") from error
    if version != FORMAT_VERSION:
        raise FormatError(newer(str(where), version))
    try:
        shape = (int(image["height"]), int(image["width"]), int(image["channels"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"{where} does not say what size its images are") from error
    return shape


def _read_shape(path: Path) -> Shape:
    return read_image_shape(read_plain(path, LARGEST_DESCRIPTION), path)
