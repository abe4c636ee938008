"""Converting a store from one form to the other: pack into one file, unpack into a folder."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from pathlib import Path

from augkit.errors import StoreError
from augkit.interfaces import Progress, silent
from augkit.store import durable
from augkit.store.folder import Folder
from augkit.store.format import Entry, encode_entry, is_abandoned, staged_name
from augkit.store.models import flush_model
from augkit.store.packed import PackedFile, add_entry, add_model, open_to_write, seal
from augkit.store.screening import trust
from augkit.store.shards import flushed_sha256, new_h5
from augkit.store.store import PACKED_SUFFIXES, DatasetStore


def pack(store: DatasetStore, path: str | Path, *, progress: Progress = silent) -> DatasetStore:
    """Write everything committed into one HDF5 file and return it as a store.

    Raises StoreError if `path` exists, or does not end in .h5.
    """
    path = Path(path)
    if path.suffix.lower() not in PACKED_SUFFIXES:
        raise StoreError(f"a packed store ends in .h5; {path} does not")
    _require_free(path)
    entries = store.snapshot().entries
    if not entries:
        raise StoreError(f"{store.path} is empty: augkit ingest FOLDER comes first")
    staged = PackedFile(path, store.shape).stage()
    room = sum(map(_room, entries))
    try:
        with contextlib.closing(open_to_write(staged, store.shape, room)) as file:
            for done, entry in enumerate(entries, 1):
                if "shard" in entry:
                    name = entry["shard"]["name"]
                    store._form.export_shard(name, file.create_group(f"shards/{name}"))
                if "model" in entry:
                    name = entry["model"]["name"]
                    with store.model_folder(name) as folder:
                        add_model(file, f"models/{name}", folder)
                add_entry(file, entry["number"], _bytes(entry))
                progress("pack", done, len(entries))
        seal(staged, len(entries))
        if not durable.put_if_absent(staged, path):
            _require_free(path)
        trust(path, "packed")
    except OSError as error:
        raise StoreError(f"cannot write to {path}: {error.strerror or error}") from error
    finally:
        staged.unlink(missing_ok=True)
    return DatasetStore.open(path)


def unpack(store: DatasetStore, path: str | Path, *, progress: Progress = silent) -> DatasetStore:
    """Write everything committed into a new folder and return it as a store.

    The shards are new files, so the log of the folder carries their own hashes; what identifies
    the images and every task stays the same. Raises StoreError if `path` exists.
    """
    path = Path(path)
    if path.suffix.lower() in PACKED_SUFFIXES:
        raise StoreError(f"a store folder must not end in {path.suffix}; {path} does")
    _require_free(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}~*.store"):
        if is_abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    staged = path.parent / f".{path.name}~{staged_name('.store')}"
    try:
        _write_folder(store, staged, progress)
        os.rename(staged, path)
        durable.flush_folder(path.parent)
    except OSError as error:
        raise StoreError(f"cannot write to {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return DatasetStore.open(path)


def _write_folder(store: DatasetStore, target: Path, progress: Progress) -> None:
    folder = Folder(target, store.shape)
    entries = store.snapshot().entries
    previous = None
    for number, entry in enumerate(entries, 1):
        things: dict[str, Path] = {}
        described = {**entry, "previous": previous}
        if "shard" in entry:
            name = entry["shard"]["name"]
            things[f"shards/{name}"] = path = folder.stage()
            copy = _export(store, name, path, entry["shard"]["bytes"])
            described["shard"] = entry["shard"] | copy
        if "model" in entry:
            name = entry["model"]["name"]
            things[f"models/{name}"] = path = folder.stage(".model")
            with store.model_folder(name) as kept:
                shutil.copytree(kept, path)
            flush_model(path)
        content = _bytes(described)
        if not folder.put(number, content, things):
            raise StoreError(f"another command is writing to {target}: run this one again")
        for path in things.values():
            durable.remove(path)  # a model that was there already
        previous = _digest(content)
        progress("unpack", number, len(entries))


def _export(store: DatasetStore, name: str, path: Path, n_bytes: int) -> dict[str, object]:
    """Write a shard into a file of its own; return its new size and hash."""
    with new_h5(path, n_bytes) as file:
        store._form.export_shard(name, file)
    return {"bytes": path.stat().st_size, "sha256": flushed_sha256(path)}


def _room(entry: Entry) -> int:
    """Return about how many bytes a commit takes in a packed store, with what HDF5 adds."""
    files = entry.get("model", {}).get("files", {}).values()
    shard = entry.get("shard", {}).get("bytes", 0)
    return len(_bytes(entry)) + 4096 + shard + sum(about["bytes"] + 4096 for about in files)


def _bytes(entry: Entry) -> bytes:
    return encode_entry({k: v for k, v in entry.items() if k != "digest"})


def _digest(content: bytes) -> str:
    import json

    return str(json.loads(content)["digest"])


def _require_free(path: Path) -> None:
    if path.exists():
        raise StoreError(f"{path} exists already: choose another name, or remove it")
    if not path.parent.is_dir():
        raise StoreError(f"cannot write {path}: there is no folder {path.parent}")
