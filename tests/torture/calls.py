"""Every call of this process that changes something on the disk, seen one by one.

HDF5 writes past Python; here it is given a file object instead, so that its writes are seen too.
A call goes through a hook, which does it, does half of it, does something else, or ends the
process. To be installed in a child process: there is no way back.
"""

from __future__ import annotations

import builtins
import io
import math
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from augkit.store import shards
from augkit.store.direct import Run, new_run


@dataclass(frozen=True)
class Call:
    """One call, named as the system names it (`pwrite64`: a write of HDF5)."""

    name: str
    path: str
    """Of the file or folder; absolute."""
    target: str = ""
    """The new name, of link and rename."""
    offset: int = 0
    data: bytes = b""
    size: int = 0
    """The length that a file gets, of ftruncate and fallocate."""


Do = Callable[[], Any]
Hook = Callable[[Call, Do, Do | None], Any]
"""Is given a call, what does it, and what does half of it (None: it has no half)."""


def install(hook: Hook, root: Path) -> None:
    """Send every call that changes something below a folder through the hook, from now on."""
    Watch(hook, str(root.resolve())).install()


class Watch:
    """Replaces the calls by some that go through the hook."""

    def __init__(self, hook: Hook, root: str):
        self.hook = hook
        self.root = root

    def install(self) -> None:
        self._files()
        self._names()
        self._hdf5()

    def step(self, call: Call, do: Do, half: Do | None = None) -> Any:
        concerned = any(path == self.root or path.startswith(self.root + "/")
                        for path in (call.path, call.target))  # fmt: skip
        return self.hook(call, do, half) if concerned else do()

    def _names(self) -> None:
        """Watch what changes folders."""
        for name in ("rename", "replace", "link"):
            self._two_names(name)
        for name in ("unlink", "remove", "rmdir", "mkdir"):
            self._one_name(name)
        real = os.fsync

        def fsync(handle: Any) -> None:
            number = handle if isinstance(handle, int) else handle.fileno()
            self.step(Call("fsync", path_of(number)), lambda: real(number))

        os.fsync = fsync

    def _two_names(self, name: str) -> None:
        real, shown = getattr(os, name), "rename" if name == "replace" else name

        def watched(source: Any, target: Any, **more: Any) -> None:
            call = Call(shown, str(Path(source).absolute()), str(Path(target).absolute()))
            self.step(call, lambda: real(source, target, **more))

        setattr(os, name, watched)

    def _one_name(self, name: str) -> None:
        real, shown = getattr(os, name), "unlink" if name == "remove" else name

        def watched(path: Any, *args: Any, dir_fd: int | None = None, **more: Any) -> None:
            base = Path.cwd() if dir_fd is None else Path(path_of(dir_fd))
            call = Call(shown, str(base / os.fspath(path)))
            self.step(call, lambda: real(path, *args, dir_fd=dir_fd, **more))

        setattr(os, name, watched)

    def _files(self) -> None:
        """Watch what makes and fills files."""
        real_open, real_allocate, real_send = os.open, os.posix_fallocate, os.sendfile
        watch = self

        def opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & os.O_CREAT and "dir_fd" not in more and not os.path.lexists(path):
                call = Call("creat", str(Path(path).absolute()))
                return watch.step(call, lambda: real_open(path, flags, *args, **more))
            return real_open(path, flags, *args, **more)

        def allocate(handle: int, offset: int, size: int) -> None:
            end = max(os.fstat(handle).st_size, offset + size)
            call = Call("fallocate", path_of(handle), size=end)
            watch.step(call, lambda: real_allocate(handle, offset, size))

        def send(out: int, source: int, offset: int, count: int) -> int:
            data = os.pread(source, count, offset)
            if not data:
                return 0
            call = Call("sendfile", path_of(out), offset=os.lseek(out, 0, os.SEEK_CUR), data=data)
            half = len(data) // 2
            return watch.step(call, lambda: real_send(out, source, offset, count),
                              lambda: real_send(out, source, offset, half))  # fmt: skip

        os.open, os.posix_fallocate, os.sendfile = opened, allocate, send
        for owner, name in ((io, "open"), (builtins, "open"), (tarfile, "bltn_open")):
            self._open(owner, name)

    def _open(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def opened(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None,
                   errors: Any = None, newline: Any = None, **more: Any) -> Any:  # fmt: skip
            if not set(mode) & set("wxa+") or isinstance(file, int) or more.get("opener"):
                return real(file, mode, buffering, encoding, errors, newline, **more)
            plain = mode.replace("b", "").replace("t", "")
            raw = self.raw(os.fspath(file), plain, "write")
            kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
            made = kind(raw)
            return made if "b" in mode else io.TextIOWrapper(made, encoding, errors, newline)

        setattr(owner, name, opened)

    def raw(self, path: str, mode: str, name: str) -> Raw:
        """Return an open file whose writes are seen under this name."""
        absolute = str(Path(path).absolute())

        def do() -> Raw:
            return Raw(self, absolute, mode, name)

        if not os.path.lexists(path):
            return self.step(Call("creat", absolute), do) if set(mode) & set("wxa") else do()
        if "w" in mode:
            return self.step(Call("ftruncate", absolute), do)
        return do()

    def _hdf5(self) -> None:
        """Watch HDF5: it writes through a file object of ours."""
        watch, real = self, h5py.File

        class Watched(real):  # type: ignore[misc,valid-type]
            own: Raw | None = None

            def __init__(self, name: Any, mode: str = "r", **more: Any):
                if mode == "r" or not isinstance(name, (str, os.PathLike)):
                    super().__init__(name, mode, **more)
                    return
                how = {"w": "w+", "w-": "x+", "x": "x+", "a": "r+"}.get(mode, mode)
                raw = watch.raw(os.fspath(name), how, "pwrite64")
                try:
                    super().__init__(raw, mode, **more)
                except BaseException:
                    raw.close()
                    raise
                self.own = raw

            def close(self) -> None:
                super().close()
                if self.own is not None:
                    self.own.close()

        h5py.File = Watched
        shards.new_run = in_one_piece
        real_write = os.pwrite

        def pwrite(handle: int, data: Any, offset: int) -> int:
            content = bytes(data)
            call = Call("pwrite64", path_of(handle), offset=offset, data=content)
            half = content[: len(content) // 2]
            return watch.step(call, lambda: real_write(handle, content, offset),
                              lambda: real_write(handle, half, offset))  # fmt: skip

        os.pwrite = pwrite


class Raw(io.FileIO):
    """A file each of whose writes is one call."""

    def __init__(self, watch: Watch, path: str, mode: str, call_name: str):
        super().__init__(path, mode)
        self.watch, self.path, self.call_name = watch, path, call_name

    def write(self, data: Any) -> int:
        content = bytes(data)
        real = super().write
        call = Call(self.call_name, self.path, offset=self.tell(), data=content)
        return self.watch.step(
            call, lambda: real(content), lambda: real(content[: len(content) // 2])
        )

    def truncate(self, size: int | None = None) -> int:
        real, end = super().truncate, self.tell() if size is None else size
        return self.watch.step(Call("ftruncate", self.path, size=end), lambda: real(end))


def in_one_piece(file: Any, name: str, shape: tuple[int, ...]) -> Run | None:
    """Add a data set in one piece, as the store does, to a file that writes through us."""
    if getattr(file, "own", None) is None:
        return new_run(file, name, shape)
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    how.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_U8LE, space, how)
    return Run(file.own.fileno(), made.get_offset(), math.prod(shape[1:]))


def path_of(handle: int) -> str:
    """Return the path that an open file was last known by."""
    return str(Path(f"/proc/self/fd/{handle}").readlink()).removesuffix(" (deleted)")
