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
from augkit.store.format import (
    FORMAT_VERSION,
    canonical,
    is_abandoned,
    is_staged,
    newer,
    staged_name,
)
from augkit.store.models import MODEL_NAME

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
        return (path / "store.json").is_file()

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
            return self._entry_path(number).read_bytes()
        except OSError as error:
            raise DamagedStore(f"{self._entry_path(number)} cannot be read: {error}") from error

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
        stays; its staged folder is then the caller's to remove.
        """
        with durable.writing(self.path):
            self._make()
            staged_entry = self.stage(".json")
            durable.write_new(staged_entry, entry)  # first: it tells `_sweep` of the shard
            try:
                moved = [thing for thing, staged in things.items() if self._move(staged, thing)]
                for kind in sorted({thing.partition("/")[0] for thing in things}):
                    durable.flush_folder(self.path / kind)
                placed = durable.put_if_absent(staged_entry, self._entry_path(number))
                if not placed:
                    for thing in moved:  # while the staged entry still tells of it
                        os.rename(self._place(thing), things[thing])
                return placed
            finally:
                staged_entry.unlink(missing_ok=True)

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
        os.rename(self._place(f"models/{name}"), gone)
        durable.remove(gone)

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
        return h5py.File(self._place(f"shards/{name}"), "r", locking=False)

    def shard_sha256(self, name: str) -> str:
        """Return the SHA-256 of the bytes of a shard as they lie on the disk."""
        import hashlib

        try:
            with self._place(f"shards/{name}").open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DamagedStore(f"shard {name} cannot be read: {error}") from error

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

    def check_whole(self) -> list[str]:
        """Return damage that concerns the store as a whole; a folder has none to report."""
        return []

    def side_folder(self, name: str) -> Path:
        """Return a folder for what is not part of the data: results, cache or training."""
        return self.path / name

    def _make(self) -> None:
        for name in ("log", "shards", "models", "tmp"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        if not Folder.is_one(self.path):
            height, width, channels = self.shape
            image = {"height": height, "width": width, "channels": channels, "dtype": "uint8"}
            staged = self.stage(".json")
            durable.write_new(staged, canonical({"format": FORMAT_VERSION, "image": image}))
            durable.put_if_absent(staged, self.path / "store.json")
            staged.unlink(missing_ok=True)
            durable.flush_folder(self.path.parent)
        if _read_shape(self.path / "store.json") != self.shape:
            raise StoreError(
                f"another command has just made {self.path} with another image size: "
                "run this one again"
            )

    def _sweep(self, folder: Path) -> None:
        """Delete what killed commands left, also what was in its place but not committed."""
        abandoned = [path for path in folder.iterdir() if is_abandoned(path)]
        for name in self._unnamed({name for name in map(_shard_of, abandoned) if name}):
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

    def _entry_path(self, number: int) -> Path:
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


def _shard_of(staged: Path) -> str | None:
    """Return the shard that a staged log entry names; None for anything else."""
    if staged.suffix != ".json":
        return None
    try:
        return str(json.loads(staged.read_bytes())["shard"]["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def copy_shard(source: h5py.Group, target: h5py.Group) -> None:
    """Copy the columns and attributes of a shard, without following any link out of it."""
    for name in source:
        if not isinstance(source.get(name, getlink=True), h5py.HardLink):
            raise DamagedStore(f"{source.file.filename} holds a link, {name!r}: not copied")
        source.copy(name, target, expand_soft=False, expand_external=False)
    for name, value in source.attrs.items():
        target.attrs[name] = value


def read_image_shape(text: bytes | str, where: Path) -> Shape:
    """Return (height, width, channels) from the description that every store carries."""
    try:
        found = json.loads(text)
        version, image = found["format"], found["image"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{where} is no augkit store: its description is unreadable") from error
    if version != FORMAT_VERSION:
        raise FormatError(newer(str(where), version))
    try:
        shape = (int(image["height"]), int(image["width"]), int(image["channels"]))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where} does not say what size its images are") from error
    return shape


def _read_shape(path: Path) -> Shape:
    return read_image_shape(path.read_bytes(), path)
