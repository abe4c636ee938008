"""The form for giving a store away: one HDF5 file that holds everything a folder would.

    user block              512 bytes of text: format, number of commits, SHA-256 of the rest
    attribute `store`       what store.json says in a folder
    log/0000000012          one committed change each, JSON as uint8
    shards/<uuid>/images …  rows, laid out as in a shard file
    models/<sha256>/<file>  the files of a fitted model, as uint8

Every commit writes a new file beside it and puts it in place, so it suits small stores.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from augkit.errors import DamagedStore, FormatError, StoreError
from augkit.interfaces import Shape
from augkit.store import durable
from augkit.store.folder import LOST, copy_shard, read_image_shape
from augkit.store.format import (
    FORMAT_VERSION,
    canonical,
    is_abandoned,
    require_readable,
    staged_name,
)
from augkit.store.models import FILE_NAME
from augkit.store.plain import require_plain
from augkit.store.screening import identity, require_examined, trust
from augkit.store.shards import SPARE, new_h5, readable

_BLOCK = 512
_MAGIC = "augkit packed store"


class PackedFile:
    """Reads and writes one packed store; knows nothing of the meaning of what it holds."""

    form = "file"

    def __init__(self, path: Path, shape: Shape | None = None):
        self.path = path.resolve()  # the file itself, if this is a link to it
        self._shape = shape

    @staticmethod
    def is_one(path: Path) -> bool:
        """Return True if this is a packed store, or a link to one."""
        try:
            if not path.is_file():  # a pipe would wait for ever
                return False
            with path.open("rb") as file:
                return file.read(len(_MAGIC)) == _MAGIC.encode()
        except OSError:
            return False

    @staticmethod
    def is_free(path: Path) -> bool:
        """Return True if a store may be made here."""
        return not path.exists()

    @property
    def shape(self) -> Shape:
        """Return height, width and channels, as fixed when the store was made."""
        if self._shape is None:
            with self._reading() as file, readable(str(self.path)):
                if "store" not in file.attrs:
                    raise FormatError(f"{self.path} is no augkit store: nothing describes it")
                self._shape = read_image_shape(file.attrs["store"], self.path)
        return self._shape

    def count(self) -> int:
        """Return how many changes are committed."""
        return _commits(self.path) if self.path.exists() else 0

    def entry(self, number: int) -> bytes:
        """Return the bytes of one log entry."""
        with self._reading() as file:
            log = file.get("log")
            name = f"{number:010d}"
            if log is None or not isinstance(log.get(name, getlink=True), h5py.HardLink):
                raise DamagedStore(f"{self.path} has lost entry {number} of its log")
            return bytes(log[name][:])

    def stage(self, suffix: str = ".h5") -> Path:
        """Return a new path for a file that is not committed yet."""
        folder = self.path.parent
        if not folder.is_dir():
            raise StoreError(f"cannot write {self.path}: there is no folder {folder}")
        for path in folder.glob(f".{glob.escape(self.path.name)}~*"):
            if is_abandoned(path):
                durable.remove(path)
        return folder / f".{self.path.name}~{staged_name(suffix)}"

    def put(self, number: int, entry: bytes, things: dict[str, Path]) -> bool:
        """Commit by replacing the file with a longer one. False if somebody else was faster.

        things: staged paths by "shards/NAME" and "models/NAME". The staged folder of a model is
        the caller's to remove. Raises StoreError for an entry that could not be read again.
        """
        require_readable(entry)
        with durable.writing(self.path):
            staged = self.stage()
            try:
                return self._put(staged, number, entry, things)
            finally:
                staged.unlink(missing_ok=True)

    def _put(self, staged: Path, number: int, entry: bytes, things: dict[str, Path]) -> bool:
        if self.path.exists():
            copied = require_examined(self.path, "packed")
            shutil.copyfile(self.path, staged)
            if identity(self.path, "packed") != copied or _commits(staged) != number - 1:
                return False
            trust(staged, "packed", remember=False)
            if PackedFile(staged).shape != self.shape:
                raise StoreError(
                    f"another command has just made {self.path} with another image size: "
                    "run this one again"
                )
        extra = len(entry) + sum(map(_room, things.values()))
        with contextlib.closing(open_to_write(staged, self.shape, extra)) as file:
            for thing, path in things.items():
                if path.is_dir():
                    add_model(file, thing, path)
                    continue
                with h5py.File(path, "r", locking=False) as source:
                    copy_shard(source, file.create_group(thing))
            add_entry(file, number, entry)
        seal(staged, number)
        with durable.locked(self.path.parent):
            if self.count() != number - 1:
                return False
            durable.replace(staged, self.path)
            trust(self.path, "packed")
        for path in things.values():
            durable.remove(path)
        return True

    @contextlib.contextmanager
    def holding_models(self) -> Iterator[None]:
        """Hold off nobody: in one file a model comes and goes with its commit."""
        yield

    def sharing(self) -> contextlib.AbstractContextManager[None]:
        """Hold off a purge while something is written that belongs to no commit."""
        return durable.sharing(self.path.parent)

    def committing(self) -> contextlib.AbstractContextManager[None]:
        """Hold off nobody: `put` looks again, under the lock under which it replaces the file."""
        return contextlib.nullcontext()

    @staticmethod
    def is_gone(handle: int) -> bool:
        """Return True if an open file, by its handle, was a store until a purge."""
        return os.name != "nt" and os.pread(handle, len(_MAGIC), 0) != _MAGIC.encode()

    def drop_staged(self, keep: Path) -> None:
        """Delete what any command was writing for this store, but for one file; for a purge."""
        for path in self.path.parent.glob(f".{glob.escape(self.path.name)}~*"):
            if path != keep:
                durable.remove(path)

    def replace_whole(self, staged: Path) -> None:
        """Put a new store in place of this one, and mark the old, which others may have open."""
        with self.path.open("r+b") as old:
            durable.replace(staged, self.path)
            trust(self.path, "packed")
            old.write(b"purged".ljust(len(_MAGIC)))

    @staticmethod
    def copy_staged(path: Path, target: h5py.Group) -> None:
        """Copy a shard that was staged into a group of another file."""
        with h5py.File(path, "r", locking=False) as source:
            copy_shard(source, target)

    def take_back(self, things: dict[str, Path]) -> None:
        """Delete what was staged for a commit that was given up."""
        for staged in things.values():
            durable.remove(staged)

    def tidy(self) -> None:
        """Do nothing: a packed store leaves nothing behind but its file."""

    def open_group(self, name: str) -> h5py.Group:
        """Open one shard for reading; the caller closes its file."""
        require_examined(self.path, "packed")
        file = h5py.File(self.path, "r", locking=False)
        try:
            if not isinstance(file.get(f"shards/{name}", getlink=True), h5py.HardLink):
                raise DamagedStore(f"{self.path} has lost shard {name}{LOST}")
            return file[f"shards/{name}"]
        except BaseException:
            file.close()
            raise

    def examine(self, shard: str | None = None) -> None:
        """Examine the file, known or not. Raises DamagedStore. With a shard: that was done."""
        if shard is None and self.path.exists():
            require_examined(self.path, "packed", anew=True)

    def files(self, names: list[str]) -> Iterator[tuple[Path, int, list[str]]]:
        """Yield the one file, unless it may not be read: path, where the hash begins, shards."""
        try:
            require_examined(self.path, "packed")  # it might never end
        except DamagedStore:
            return
        yield self.path, _BLOCK, names

    def shard_names(self) -> set[str]:
        """Return the names of all shards in the file."""
        with self._reading() as file:
            return set(file.get("shards", {}))

    def export_shard(self, name: str, target: h5py.Group) -> None:
        """Copy a shard into a group of another file."""
        with contextlib.closing(self.open_group(name).file) as file:
            copy_shard(file[f"shards/{name}"], target)

    def model_names(self) -> set[str]:
        """Return the names of all models in the file."""
        with self._reading() as file:
            return set(file.get("models", {}))

    @contextlib.contextmanager
    def lend_model(self, name: str) -> Iterator[Path]:
        """Lend a temporary folder with the files of a model, which are not checked.

        Raises DamagedStore if it is gone, or not plain files.
        """
        with tempfile.TemporaryDirectory(prefix="augkit-") as folder:
            with self._reading() as file, readable(f"{self.path}: model {name}"):
                for file_name, content in self._model(file, name):
                    with durable.writing(Path(folder)):
                        (Path(folder) / file_name).write_bytes(content)
            yield Path(folder)

    def _model(self, file: h5py.File, name: str) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a model, without following any link out of this file."""
        model = _own(_own(file, "models"), name)
        if not isinstance(model, h5py.Group):
            raise DamagedStore(f"{self.path} has lost model {name}")
        for file_name in model:
            found = _own(model, file_name)
            if not FILE_NAME.fullmatch(file_name) or not _is_plain(found):
                raise DamagedStore(f"model {name}: {file_name!r} is no plain file")
            yield file_name, found[:].tobytes()

    def check_whole(self, sha256: str | None) -> list[str]:
        """Return a line if the bytes of the file, of which this is the hash, were changed."""
        with self.path.open("rb") as file:
            block = file.read(_BLOCK)
        if sha256 is not None and block == _user_block(_commits(self.path), sha256):
            return []
        return [f"{self.path}: the bytes are not those that were committed"]

    def side_folder(self, name: str) -> Path:
        """Return a folder for what is not part of the data: results, cache or training.

        Raises DamagedStore if it is a link, or holds one: it may have come with the file.
        """
        folder = self.path.parent / f".{self.path.name}.{name}"
        if folder.is_symlink():
            raise DamagedStore(f"{folder} is a link: augkit follows none within a store; remove it")
        require_plain(folder)
        return folder

    @contextlib.contextmanager
    def _reading(self) -> Iterator[h5py.File]:
        try:
            require_examined(self.path, "packed")
            file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise DamagedStore(f"{self.path} cannot be read: {error}") from error
        with file:
            yield file


def open_to_write(path: Path, shape: Shape, extra: int) -> h5py.File:
    """Open a packed store, made if there is none, with room for about `extra` bytes more."""
    if not path.exists():
        with new_h5(path, 0, userblock_size=_BLOCK) as file:
            height, width, channels = shape
            image = {"height": height, "width": width, "channels": channels, "dtype": "uint8"}
            file.attrs["store"] = canonical({"format": FORMAT_VERSION, "image": image}).decode()
    durable.claim(path, path.stat().st_size + extra + SPARE)
    return h5py.File(path, "r+", locking=False)


def add_entry(file: h5py.File, number: int, entry: bytes) -> None:
    """Add one log entry to a packed store that is open for writing."""
    file.create_dataset(
        f"log/{number:010d}", data=np.frombuffer(entry, np.uint8), track_times=False
    )


def add_model(file: h5py.File, name: str, folder: Path) -> None:
    """Add the files of a folder to a packed store that is open for writing, if not there yet.

    name: "models/NAME".
    """
    if name in file:
        return
    group = file.create_group(name)
    for path in sorted(folder.iterdir()):
        content = np.fromfile(path, np.uint8)
        group.create_dataset(path.name, data=content, track_times=False)


def seal(path: Path, commits: int) -> None:
    """Write the user block of a closed file and flush it to the disk."""
    with path.open("r+b") as file:
        file.seek(_BLOCK)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        file.write(_user_block(commits, sha256))
        file.flush()
        os.fsync(file.fileno())


def _user_block(commits: int, sha256: str) -> bytes:
    """Return the text before the HDF5 data; the hash is that of everything after it."""
    text = f"{_MAGIC}\nformat {FORMAT_VERSION}\ncommits {commits}\nsha256 {sha256}\n"
    return text.encode().ljust(_BLOCK, b"\n")


def _room(staged: Path) -> int:
    """Return how many bytes a staged shard or model takes."""
    if not staged.is_dir():
        return staged.stat().st_size
    return sum(path.stat().st_size + 4096 for path in staged.iterdir())


def _own(group: object, name: str) -> Any:
    """Return what a group holds by a hard link; None for any other link, or nothing."""
    if not isinstance(group, h5py.Group):
        return None
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _is_plain(found: object) -> bool:
    """Return True for bytes that all lie in this very file, no more than are there."""
    return (
        isinstance(found, h5py.Dataset)
        and not (found.is_virtual or found.external or found.chunks)
        and (found.dtype, found.ndim) == (np.uint8, 1)
        and found.id.get_storage_size() == found.size
    )


def _commits(path: Path) -> int:
    """Return the number of commits that the user block states."""
    with path.open("rb") as file:
        lines = file.read(_BLOCK).decode("utf-8", "replace").split("\n")
    try:
        return int(lines[2].removeprefix("commits "))
    except (IndexError, ValueError) as error:
        raise DamagedStore(f"{path} does not say how many commits it holds") from error
