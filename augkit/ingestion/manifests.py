"""Data sets as CSV manifests: a line for each image, with its class and perhaps more."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from augkit.errors import InputError
from augkit.ingestion.readers import (
    Listing,
    Refusal,
    RefusedError,
    Source,
    absolute,
    dataset_name,
    listing,
    locate,
    part_named,
    printable,
)
from augkit.store.plain import is_special

_LARGEST = 2**29
"""Bytes of a table: one of two million images fits in."""
_COLUMNS = {
    "image": ("image", "path"),
    "class": ("class", "label"),
    "mask": ("mask",),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id"),
    "dataset": ("dataset",),
    "part": ("part", "split"),
}


def read_manifest(csv_path: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images that a CSV file lists.

    Columns, in any case and order: image (or path) and class (or label); if present also mask
    (several separated by `;`), group (or patient, patient_id, subject, subject_id), dataset, and
    part (or split): train, validation or test. Others are not looked at, and listed as unread.
    Paths are relative to the file's folder and stay within it, or absolute. A row without a data
    set belongs to `dataset`, by default the name of the file's folder. A row whose image or mask
    cannot be used is refused. Raises InputError if a column or a class is missing, for an image
    that is listed twice, or if no row can be used.
    """
    path = Path(csv_path)
    base = absolute(path.parent)
    default = dataset_name(dataset, base.resolve().name)
    refused: list[Refusal] = []
    sources: list[Source] = []
    lines: dict[str, int] = {}
    for row in _table(path):
        try:
            source = _source(row, base, default)
        except RefusedError as error:
            refused.append(error.refusal)
            continue
        _check_new(row, source, lines)
        sources.append(source)
    if not sources:
        _raise_unusable(path, refused)
    return listing(sources, refused, 0, unread=_unread_columns(path))


@dataclass(frozen=True)
class _Row:
    where: str
    """The file and the line, for messages."""
    line: int
    cells: dict[str, str]
    """Column, by its first name in `_COLUMNS` -> stripped text."""


def _table(path: Path) -> Iterator[_Row]:
    """Yield the rows of a manifest that are not blank. Raises InputError if it is none."""
    where = printable(path)
    try:
        lines = list(records(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{where} is no valid CSV: {error}; save it anew as CSV") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}; name another file") from error
    if len(lines) < 2:
        raise InputError(f"{where} lists no image; expected a line of column names and then rows")
    header = lines[0][1]
    columns = _columns(where, header)
    for line, record in lines[1:]:
        if len(record) != len(header):
            raise InputError(
                f"{where}, line {line} has {len(record)} cells where the first line has "
                f"{len(header)}; put text with commas in double quotes"
            )
        cells = {name: record[i].strip() for name, i in columns.items()}
        yield _Row(f"{where}, line {line}", line, cells)


def is_manifest(path: Path) -> bool:
    """Return True for a CSV file with the columns that a manifest needs."""
    try:
        _columns("", next(records(path))[1])
    except (InputError, UnicodeDecodeError, csv.Error, OSError, StopIteration):
        return False
    return True


def _unread_columns(path: Path) -> list[str]:
    """Return the names of columns that `_COLUMNS` does not know."""
    known = {spelling for spellings in _COLUMNS.values() for spelling in spellings}
    names = [cell.strip() for cell in next(records(path))[1]]
    return [printable(name) for name in names if name and name.lower() not in known]


def records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of its first line and the cells for each record that is not blank.

    Raises InputError for a pipe, which would be waited for, and for more than any table has.
    """
    if is_special(path):
        raise InputError(f"{printable(path)} is no regular file; leave it out")
    if path.exists() and path.stat().st_size > _LARGEST:
        raise InputError(f"{printable(path)} is larger than {_LARGEST // 2**20} MiB; split it")
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
            "image and class, separated by commas; optional: mask, group, dataset, part"
        )
    return columns


def _source(row: _Row, base: Path, default: str) -> Source:
    """Return what a row names. Raises InputError for a bad row, RefusedError for a bad file."""
    for column in ("image", "class"):
        if not row.cells[column]:
            raise InputError(f"{row.where} has no {column}; fill in the cell or remove the row")
    dataset = row.cells.get("dataset") or default
    try:
        dataset = dataset_name(dataset, default)
    except InputError as error:
        raise InputError(f"{row.where}: {error}") from error
    part = row.cells.get("part") or ""
    if part and not part_named(part):
        raise InputError(
            f"{row.where} has the part {printable(part)!r}; it must be train, validation or test: "
            "mend it, or give the column another name"
        )
    path = locate(row.cells["image"], base)
    inside = path.relative_to(base) if path.is_relative_to(base) else path.relative_to(path.anchor)
    masks = [cell.strip() for cell in row.cells.get("mask", "").split(";")]
    return Source(
        key=f"{dataset}/{inside.as_posix()}",
        path=path,
        label=row.cells["class"],
        dataset=dataset,
        group=row.cells.get("group") or None,
        masks=tuple(locate(mask, base) for mask in masks if mask),
        part=part_named(part),
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


def _raise_unusable(path: Path, refused: list[Refusal]) -> None:
    first = refused[0]
    raise InputError(
        f"{printable(path)} lists no image that can be read; the first: {first.path} {first.reason}"
    )
