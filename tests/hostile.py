"""Stores as somebody would make them who means harm: every digest and hash fits what was done."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import augkit as ak
from augkit.store.format import encode_entry
from augkit.store.shards import content_of

_OPENED, _MODIFIED, _ANY = 0x20, 0x02, 0xFFF


@contextmanager
def watched(*paths: Path) -> Iterator[list[int]]:
    """Yield a list that holds an event for each time one of the files was opened or changed."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(os.O_NONBLOCK)
    for path in paths:
        assert libc.inotify_add_watch(handle, os.fsencode(path), _ANY) >= 0, path
    events: list[int] = []
    try:
        yield events
    finally:
        try:
            while data := os.read(handle, 65536):
                while data:
                    _, mask, _, length = struct.unpack_from("iIII", data)
                    events.append(mask)
                    data = data[16 + length :]
        except BlockingIOError:
            pass
        os.close(handle)


def shard_of(store: Path) -> Path:
    """Return the file of the newest shard."""
    name = json.loads(sorted((store / "log").iterdir())[-1].read_bytes())["shard"]["name"]
    return store / "shards" / f"{name}.h5"


def resign(
    store: Path,
    edit: Callable[[int, dict[str, Any]], None] = lambda n, e: None,
    *,
    blind: bool = False,
) -> None:
    """Make the log fit the shards as they are now, and each entry after the one before.

    edit: changes an entry, given its number. blind: do not open shards, which may hurt.
    """
    previous = None
    for number, path in enumerate(sorted((store / "log").iterdir()), 1):
        entry = json.loads(path.read_bytes())
        del entry["digest"]
        describe(store, entry, blind)
        entry["previous"] = previous
        edit(number, entry)
        content = encode_entry(entry)
        path.write_bytes(content)
        previous = json.loads(content)["digest"]


def describe(store: Path, entry: dict[str, Any], blind: bool) -> None:
    """Set what an entry says of its shard, as far as that can be told."""
    path = store / "shards" / f"{entry.get('shard', {}).get('name')}.h5"
    if not path.is_file():
        return
    entry["shard"]["bytes"] = path.stat().st_size
    if path.stat().st_size > 2**28:  # a hole
        return
    entry["shard"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if blind:
        return
    try:
        with h5py.File(path, "r", locking=False) as file:
            small = all(file[name].nbytes < 2**26 for name in file if name != "images")
            entry["shard"]["content"] = content_of(file) if small else "0" * 64
    except Exception:  # it means harm
        entry["shard"]["content"] = "0" * 64


def read_everything(path: Path) -> None:
    """Do with a store what commands do with it."""
    store = ak.open(path)
    try:
        snapshot = store.snapshot()
        _ = snapshot.real, snapshot.models
        for run in (None, *snapshot.runs):
            samples = snapshot.inspect(run)
            for block in samples.blocks(64):
                assert block.dtype == np.uint8
            samples.masks(slice(None))
        for run in snapshot.runs:
            if snapshot.run(run).fitted_on is None:
                snapshot.parents(run)
            snapshot.params(run)
        snapshot.training(ak.HOLDOUT, list(snapshot.runs))
        str(ak.info(store))
        str(ak.verify(store))
    finally:
        store.close()
