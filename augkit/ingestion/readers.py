"""Finding what is to be read: a folder for each class, or a CSV manifest. No image is opened."""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from augkit.errors import InputError
from augkit.store.locate import is_store

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
"""What an image file's name ends in, in any case."""

_EXPECTED = "expected one subfolder per class (benign/, malignant/, ...) or a CSV manifest"
_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
_NO_CLASSES = {
    *("image", "images", "mask", "masks"),
    *("train", "training", "val", "valid", "validation", "test", "testing"),
}
_MASK = re.compile(r"(?P<image>.+)_mask(?:_[0-9]+)?", re.DOTALL)
_COLUMNS = {
    "image": ("image", "path"),
    "class": ("class", "label"),
    "mask": ("mask",),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id"),
    "dataset": ("dataset",),
}


@dataclass(frozen=True)
class Source:
    """One image file that is to be read, and what is known about it."""

    key: str
    """Data set / relative path, with forward slashes; unique within a listing."""
    path: Path
    """Absolute."""
    label: str
    """The name of its class."""
    dataset: str
    group: str | None
    """What the image belongs with, such as its patient; None if nobody said. Unique only within
    the data set."""
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class Refusal:
    """One file that is not read, and why."""

    path: str
    """Relative to what was read; fit to print, see `printable`."""
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a folder or a manifest offers."""

    sources: tuple[Source, ...]
    """In natural order of their keys: `benign (2)` comes before `benign (10)`."""
    classes: tuple[str, ...]
    """The labels of the sources, in natural order."""
    refused: tuple[Refusal, ...]
    ignored: int
    """The number of other files, such as text, found beside the images; hidden ones aside."""
    unread: tuple[str, ...] = ()
    """What those files end in, or the columns of a manifest that have no meaning here."""


def read(path: str | Path, *, dataset: str | None = None) -> Listing:
    """Return what a folder or a CSV manifest offers. Raises InputError for anything else."""
    path = Path(path)
    if path.is_dir():
        return read_folder(path, dataset=dataset)
    if path.suffix.lower() == ".csv":
        return read_manifest(path, dataset=dataset)
    if not path.exists():
        raise InputError(f"{printable(path)} does not exist; {_EXPECTED}")
    raise InputError(f"{printable(path)} is neither a folder nor a .csv file; {_EXPECTED}")


def read_folder(folder: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images of a folder that holds one subfolder for each class.

    Images may lie deeper below; `dataset` is by default the folder's name. A file `NAME_mask.png`
    or `NAME_mask_1.png` beside an image NAME is a mask of it. A link is followed if it leads to a
    file within the folder. Raises InputError if this is no such folder, or if a class is empty.
    """
    root = Path(folder)
    _check_folder(root)
    name = _dataset_name(dataset, root.resolve().name)
    found = _walk(root)
    _check_classes(root, found)
    masks = _join_masks(found)
    base = _absolute(root)
    sources = [
        Source(
            key=f"{name}/{image.as_posix()}",
            path=base / image,
            label=image.parts[0],
            dataset=name,
            group=None,
            masks=tuple(base / mask for mask in masks[image]),
        )
        for image in masks
    ]
    _check_no_class_empty(root, found, {source.label for source in sources})
    return _listing(sources, found.refused, found.ignored, unread=found.endings)


def read_manifest(csv_path: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images that a CSV file lists.

    Columns, in any case and order: image (or path) and class (or label); if present also mask
    (several separated by `;`), group (or patient, patient_id, subject, subject_id) and dataset.
    Others are not looked at, and listed as unread. Paths are relative to the file's folder and
    stay within it, or absolute. A row without a data set belongs
    to `dataset`, by default the name of the file's folder. A row whose image or mask cannot be
    used is refused. Raises InputError if a column or a class is missing, for an image that is
    listed twice, or if no row can be used.
    """
    path = Path(csv_path)
    base = _absolute(path.parent)
    default = _dataset_name(dataset, base.resolve().name)
    refused: list[Refusal] = []
    sources: list[Source] = []
    lines: dict[str, int] = {}
    for row in _table(path):
        try:
            source = _source(row, base, default)
        except _RefusedError as error:
            refused.append(error.refusal)
            continue
        _check_new(row, source, lines)
        sources.append(source)
    if not sources:
        _raise_unusable(path, refused)
    return _listing(sources, refused, 0, unread=_unread_columns(path))


def printable(path: str | PurePath) -> str:
    """Return a path as one line of valid UTF-8: what cannot be shown is written as an escape."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(path)
    )


def _listing(
    sources: Iterable[Source],
    refused: Iterable[Refusal],
    ignored: int,
    *,
    unread: Iterable[str],
) -> Listing:
    ordered = sorted(sources, key=lambda source: _natural(source.key))
    return Listing(
        sources=tuple(ordered),
        classes=tuple(sorted({source.label for source in ordered}, key=_natural)),
        refused=tuple(sorted(refused, key=lambda refusal: _natural(refusal.path))),
        ignored=ignored,
        unread=tuple(sorted(set(unread))),
    )


def _natural(text: str) -> tuple[list[list[str | int]], str]:
    """Return a sort key: folder by folder, and by value where there are digits."""
    parts = [re.split(r"([0-9]+)", part) for part in text.split("/")]
    return [[int(t) if i % 2 else t for i, t in enumerate(part)] for part in parts], text


def _dataset_name(given: str | None, default: str) -> str:
    name = default if given is None else given.strip()
    if not name or "/" in name or name in (".", "..") or not _is_utf8(name):
        raise InputError(
            f"{printable(name)!r} cannot name a data set: "
            "it must be text, not empty and without '/'; give another with --dataset NAME"
        )
    return name


def _absolute(path: Path) -> Path:
    """Return the path without `..`, links left as they are, independent of the working folder."""
    return Path(os.path.normpath(path.absolute()))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class _Found:
    """The files below a folder, by what they are; paths are relative to it."""

    classes: list[str] = field(default_factory=list)
    images: list[PurePath] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    ignored: int = 0
    endings: set[str] = field(default_factory=set)

    def refuse(self, path: PurePath, reason: str) -> None:
        self.refused.append(Refusal(printable(path.as_posix()), reason))


def _check_folder(root: Path) -> None:
    if not root.exists():
        raise InputError(f"{printable(root)} does not exist; {_EXPECTED}")
    if not root.is_dir():
        raise InputError(f"{printable(root)} is a file, no folder; {_EXPECTED}")


def _walk(root: Path) -> _Found:
    """Return all files below the folder, hidden ones aside. Linked folders are not entered."""
    found = _Found()
    waiting = [PurePath()]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if not (entry.name.startswith(".") or entry.name.lower() in _JUNK):
                        waiting += _visit(entry, folder / entry.name, root, found)
        except OSError as error:
            if folder == PurePath():
                raise InputError(f"{printable(root)}: {error.strerror}; {_EXPECTED}") from error
            found.refuse(folder, f"cannot be listed: {error.strerror}")
    return found


def _visit(entry: os.DirEntry[str], path: PurePath, root: Path, found: _Found) -> list[PurePath]:
    """Note one entry of a folder; return it if it is a folder to be entered."""
    wanted = path.suffix.lower() in SUFFIXES
    is_folder = _is_folder(entry)
    if not (is_folder or (wanted and (entry.is_symlink() or entry.is_file()))):
        found.ignored += 1
        found.endings.add(printable(path.suffix.lower() or path.name))
    elif not _is_utf8(entry.name):
        found.refuse(path, "its name is not valid UTF-8; rename it")
    elif is_folder and entry.is_symlink():
        found.refuse(path, "is a link to a folder; move that folder here, or list its files in CSV")
    elif is_folder and is_store(root / path):
        found.ignored += 1
    elif is_folder:
        if len(path.parts) == 1:
            found.classes.append(entry.name)
        return [path]
    elif len(path.parts) == 1:
        found.refuse(path, "has no class: it lies in no class folder")
    elif entry.is_symlink() and (problem := _link_problem(root / path, root)):
        found.refuse(path, problem)
    else:
        found.images.append(path)
    return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles, or where nobody may look
        return False


def _link_problem(path: Path, root: Path) -> str | None:
    """Return why a path that may lead through links must not be read; None if it may."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a link to nothing"
    if not target.is_relative_to(root.resolve()):
        return "is a link that leaves the folder; copy the file here instead"
    return None


def _check_classes(root: Path, found: _Found) -> None:
    """Raise InputError if the subfolders are not classes."""
    where = printable(root)
    if not found.classes:
        first = found.refused[0] if found.refused else None
        why = f" ({first.path} {first.reason})" if first else ""
        manifests = sorted(root.glob("*.csv"))
        hint = f"; did you mean {printable(manifests[0])}?" if len(manifests) == 1 else ""
        raise InputError(f"{where} holds no subfolder with images{why}; {_EXPECTED}{hint}")
    odd = sorted((n for n in found.classes if n.lower() in _NO_CLASSES), key=_natural)
    if len(odd) > 1:
        raise InputError(
            f"{where} has the subfolders {', '.join(odd)}, which are no classes; {_EXPECTED}"
        )
    if len(found.classes) == 1 and found.images and all(len(p.parts) > 2 for p in found.images):
        only = printable(root / found.classes[0])
        raise InputError(f"{where} has one subfolder only; {_EXPECTED}; did you mean {only}?")


def _check_no_class_empty(root: Path, found: _Found, filled: set[str]) -> None:
    for name in sorted(set(found.classes) - filled, key=_natural):
        refused = [r for r in found.refused if r.path.startswith(printable(name) + "/")]
        why = f" ({refused[0].path} {refused[0].reason})" if refused else ""
        raise InputError(
            f"class folder {printable(root / name)} holds no image that can be read{why}; "
            "add images or remove the folder"
        )


def _join_masks(found: _Found) -> dict[PurePath, list[PurePath]]:
    """Return image -> its masks in natural order; masks without one image are refused."""
    joined: dict[PurePath, list[PurePath]] = {}
    named: dict[PurePath, list[PurePath]] = defaultdict(list)
    masks = []
    for path in found.images:
        if match := _MASK.fullmatch(path.stem):
            masks.append((path, match["image"]))
        else:
            joined[path] = []
            named[path.with_name(path.stem)].append(path)
    for mask, stem in sorted(masks, key=lambda pair: _natural(pair[0].as_posix())):
        images = named.get(mask.with_name(stem), [])
        if len(images) == 1:
            joined[images[0]].append(mask)
        else:
            problem = "no image of that name lies" if not images else "several such images lie"
            found.refuse(mask, f"is named like a mask, but {problem} beside it; rename it")
    return joined


@dataclass(frozen=True)
class _Row:
    where: str
    """The file and the line, for messages."""
    line: int
    cells: dict[str, str]
    """Column, by its first name in `_COLUMNS` -> stripped text."""


class _RefusedError(Exception):
    """A row's image or mask cannot be used."""

    def __init__(self, cell: str, reason: str) -> None:
        super().__init__(cell, reason)
        self.refusal = Refusal(printable(cell), reason)


def _table(path: Path) -> Iterator[_Row]:
    """Yield the rows of a manifest that are not blank. Raises InputError if it is none."""
    where = printable(path)
    try:
        records = list(_records(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{where} is no valid CSV: {error}") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    if len(records) < 2:
        raise InputError(f"{where} lists no image; expected a line of column names and then rows")
    header = records[0][1]
    columns = _columns(where, header)
    for line, record in records[1:]:
        if len(record) != len(header):
            raise InputError(
                f"{where}, line {line} has {len(record)} cells where the first line has "
                f"{len(header)}; put text with commas in double quotes"
            )
        cells = {name: record[i].strip() for name, i in columns.items()}
        yield _Row(f"{where}, line {line}", line, cells)


def _unread_columns(path: Path) -> list[str]:
    """Return the names of columns that `_COLUMNS` does not know."""
    known = {spelling for spellings in _COLUMNS.values() for spelling in spellings}
    names = [cell.strip() for cell in next(_records(path))[1]]
    return [printable(name) for name in names if name and name.lower() not in known]


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of its first line and the cells for each record that is not blank."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        # Without strict, a quote that is never closed swallows the rest of the file.
        reader = csv.reader(file, strict=True)
        line = 1
        for record in reader:
            if any(cell.strip() for cell in record):
                yield line, record
            line = reader.line_num + 1


def _columns(where: str, header: list[str]) -> dict[str, int]:
    """Return column -> its position, for the columns that have a meaning."""
    names = [cell.strip().lower() for cell in header]
    columns: dict[str, int] = {}
    for column, spellings in _COLUMNS.items():
        places = [i for i, name in enumerate(names) if name in spellings]
        if len(places) > 1:
            both = " and ".join(repr(header[i].strip()) for i in places)
            raise InputError(f"{where} has the columns {both}, which mean the same; keep one")
        if places:
            columns[column] = places[0]
    missing = [" or ".join(_COLUMNS[c]) for c in ("image", "class") if c not in columns]
    if missing:
        listed = ", ".join(printable(cell.strip()) for cell in header)
        raise InputError(
            f"{where} has no column {', none named '.join(missing)}; it has: {listed}; needed: "
            "image and class, separated by commas; optional: mask, group, dataset"
        )
    return columns


def _source(row: _Row, base: Path, default: str) -> Source:
    """Return what a row names. Raises InputError for a bad row, _RefusedError for a bad file."""
    for column in ("image", "class"):
        if not row.cells[column]:
            raise InputError(f"{row.where} has no {column}; fill in the cell or remove the row")
    dataset = row.cells.get("dataset") or default
    try:
        dataset = _dataset_name(dataset, default)
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error
    path = _locate(row.cells["image"], base)
    inside = path.relative_to(base) if path.is_relative_to(base) else path.relative_to(path.anchor)
    masks = [cell.strip() for cell in row.cells.get("mask", "").split(";")]
    return Source(
        key=f"{dataset}/{inside.as_posix()}",
        path=path,
        label=row.cells["class"],
        dataset=dataset,
        group=row.cells.get("group") or None,
        masks=tuple(_locate(mask, base) for mask in masks if mask),
    )


def _check_new(row: _Row, source: Source, lines: dict[str, int]) -> None:
    """Raise InputError if an earlier line gave the same file or key; else note this one."""
    for name in (str(source.path), source.key):
        first = lines.setdefault(name, row.line)
        if first != row.line:
            raise InputError(
                f"{row.where} lists {printable(row.cells['image'])} again, which line {first} "
                "lists already; keep one of them"
            )


def _locate(cell: str, base: Path) -> Path:
    """Return the image file that a cell names. Raises _RefusedError if there is none."""
    named = Path(os.path.normpath(cell))
    if named.parts[:1] == ("..",):
        raise _RefusedError(
            cell, "leaves the manifest's folder; move the file there, or write its absolute path"
        )
    if named.suffix.lower() not in SUFFIXES:
        raise _RefusedError(cell, f"does not end in one of {', '.join(SUFFIXES)}")
    path = base / named
    try:
        usable = path.is_file()
    except (OSError, ValueError):
        usable = False
    if not usable:
        raise _RefusedError(cell, "is no file; paths are relative to the manifest's folder")
    if not named.is_absolute() and (problem := _link_problem(path, base)):
        raise _RefusedError(cell, problem)
    return path


def _raise_unusable(path: Path, refused: list[Refusal]) -> None:
    first = refused[0]
    raise InputError(
        f"{printable(path)} lists no image that can be read; the first: {first.path} {first.reason}"
    )
