"""Which store a command means when the user names none."""

from __future__ import annotations

import os
from pathlib import Path

from augkit.errors import StoreNotFound
from augkit.store.folder import Folder
from augkit.store.packed import PackedFile
from augkit.store.store import DatasetStore

DEFAULT_NAME = "augkit.store"


def locate(path: str | Path | None = None, folder: Path | None = None) -> Path:
    """Return the path of the store that is meant; it is not opened.

    In order: `path`, $AUGKIT_STORE, ./augkit.store, the current folder if it is a store, the only
    store in it. Raises StoreNotFound if there is none, or a choice.
    """
    named = path or os.environ.get("AUGKIT_STORE")
    if named:
        return Path(named)
    here = folder or Path()
    if is_store(here / DEFAULT_NAME):
        return here / DEFAULT_NAME
    if is_store(here):
        return here
    found = sorted(p for p in here.iterdir() if is_store(p))
    if not found:
        raise StoreNotFound(
            f"no store in {here.resolve()}: name one with --store PATH, "
            "or make one with augkit ingest FOLDER"
        )
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise StoreNotFound(
            f"several stores in {here.resolve()}: {names}; choose with --store PATH"
        )
    return found[0]


def open_store(store: DatasetStore | str | Path | None = None) -> DatasetStore:
    """Return the store that is meant: an open one as it is, a path opened, None looked for."""
    if isinstance(store, DatasetStore):
        return store
    return DatasetStore.open(locate(store))


def is_store(path: Path) -> bool:
    """Return True if a store of either form lies there."""
    return Folder.is_one(path) or (path.is_file() and PackedFile.is_one(path))
