"""The layouts that a data set may have, in the order in which they are tried; `read` guesses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from augkit.errors import InputError, OptionError
from augkit.ingestion.folders import NO_CLASSES, read_folder
from augkit.ingestion.manifests import is_manifest, read_manifest
from augkit.ingestion.metadata import metadata_files, read_metadata
from augkit.ingestion.npz import npz_file, read_npz
from augkit.ingestion.parts import folders_of_parts, read_parts
from augkit.ingestion.readers import EXPECTED, Listing, printable
from augkit.ingestion.stores import read_store
from augkit.ingestion.tars import read_tars, tar_files
from augkit.store.locate import is_store

log = logging.getLogger("augkit")


@dataclass(frozen=True)
class Layout:
    """One way in which a data set may lie on the disk."""

    name: str
    said: str
    fits: Callable[[Path], bool]
    read: Callable[..., Listing]
    """Called with the path, and the name of the data set by keyword."""


def _flat(path: Path) -> bool:
    """Return True for a file, or for a folder without subfolders."""
    return not path.is_dir() or not any(p.is_dir() for p in path.iterdir())


def _manifest_of(path: Path) -> Path | None:
    """Return the manifest that is meant: a CSV file, or that of a folder without classes."""
    if not path.is_dir():
        return path if path.suffix.lower() == ".csv" else None
    classes = [p for p in path.iterdir() if p.is_dir() and p.name.lower() not in NO_CLASSES]
    found = [p for p in sorted(path.glob("*.csv")) if is_manifest(p)]
    visible = [p for p in classes if not p.name.startswith(".") and not is_store(p)]
    return found[0] if len(found) == 1 and not visible else None


def _read_manifest(path: Path, *, dataset: str | None = None) -> Listing:
    found = _manifest_of(path)
    if found is None:
        raise InputError(
            f"{printable(path)} is no CSV manifest, and no folder with one: a .csv file with the "
            "columns image and class"
        )
    ready = read_manifest(found, dataset=dataset)
    return replace(ready, read_as=f"CSV manifest {printable(found.name)}")


LAYOUTS = (
    Layout("store", "another store of augkit", is_store, read_store),
    Layout(
        "npz",
        "an NPZ file as MedMNIST has them",
        lambda path: npz_file(path) is not None and _flat(path),
        read_npz,
    ),
    Layout(
        "webdataset",
        "WebDataset: tar files",
        lambda path: bool(tar_files(path)) and _flat(path),
        read_tars,
    ),
    Layout(
        "huggingface",
        "Hugging Face imagefolder with metadata.csv or metadata.jsonl",
        lambda path: path.is_dir() and bool(metadata_files(path)),
        read_metadata,
    ),
    Layout(
        "imagefolder",
        "train/, val/, test/ with a subfolder for each class",
        lambda path: path.is_dir() and len(folders_of_parts(path)) > 1,
        read_parts,
    ),
    Layout(
        "manifest",
        "CSV manifest",
        lambda path: _manifest_of(path) is not None,
        _read_manifest,
    ),
    Layout("folder", "a subfolder for each class", Path.is_dir, read_folder),
)
"""A later one is only tried where no earlier one fits."""
NAMES = tuple(layout.name for layout in LAYOUTS)


def read(path: str | Path, *, dataset: str | None = None, layout: str | None = None) -> Listing:
    """Return what a data set offers, and say as what it was read, where that was a guess.

    layout: one of NAMES; None: the first that fits. Raises InputError where nothing fits or the
    data set is not what it should be, OptionError for a layout that does not exist.
    """
    path = Path(path)
    if layout is not None and layout not in NAMES:
        raise OptionError(f"there is no layout {layout!r}; there are: {', '.join(NAMES)}")
    if not path.exists() and path.suffix.lower() != ".csv":
        raise InputError(f"{printable(path)} does not exist; {EXPECTED}")
    chosen = _named(layout) if layout else _guessed(path)
    found = chosen.read(path, dataset=dataset)
    found = replace(found, layout=chosen.name, read_as=found.read_as or chosen.said)
    if not layout and not (chosen.name == "folder" or path.suffix.lower() == ".csv"):
        log.info("read as: %s (--layout %s)", found.read_as, chosen.name)
    for note in found.notes:
        log.warning("note: %s", note)
    return found


def _named(name: str) -> Layout:
    return next(layout for layout in LAYOUTS if layout.name == name)


def _guessed(path: Path) -> Layout:
    try:
        for layout in LAYOUTS:
            if layout.fits(path):
                return layout
    except OSError as error:
        raise InputError(f"{printable(path)}: {error.strerror}; {EXPECTED}") from error
    raise InputError(
        f"{printable(path)} is neither a folder nor a .csv, .npz or .tar file; {EXPECTED}; "
        "--layout takes one of: " + ", ".join(NAMES)
    )
