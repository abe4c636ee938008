"""Hugging Face's imagefolder: images, and a metadata.csv or metadata.jsonl that describes them."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from augkit.errors import InputError
from augkit.ingestion import exported
from augkit.ingestion.folders import check_folder
from augkit.ingestion.manifests import records
from augkit.ingestion.readers import (
    SUFFIXES,
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

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_MOST_LETTERS = 2**20
"""Of a line of JSON."""
_COLUMNS = {
    "file": ("file_name",),
    "class": ("class", "label"),
    "mask": ("mask", "mask_file_name", "mask_file_names", "masks_file_names"),
    "group": ("group", "patient", "patient_id", "patientid", "subject", "subject_id"),
    "dataset": ("dataset",),
    "part": ("part", "split"),
}
"""Column -> what it may be called, the first that is there being meant."""


def metadata_files(root: Path) -> list[Path]:
    """Return the metadata of a folder: its own, or those of its subfolders."""
    for folders in ([root], _subfolders(root)):
        found = [f / name for f in folders for name in NAMES if (f / name).is_file()]
        if found:
            return found
    return []


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return []


@dataclass
class _Reading:
    """A data set on its way: what is known of it so far."""

    base: Path
    dataset: str
    sources: list[Source] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    seen: dict[str, str] = field(default_factory=dict)
    """File or key -> where it was listed."""
    files: set[str] = field(default_factory=set)
    n_made: int = 0


def read_metadata(folder: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images that metadata.csv or metadata.jsonl list, here or in each subfolder.

    Columns: file_name, relative to the file; class or label, else the folder that an image lies in;
    if present also mask or mask_file_name, group or patient, dataset, part or split. Folders called
    as parts are the given split. An export of augkit comes back with the keys, groups and parts
    that it had in its store; rows of its runs are left out. Raises InputError.
    """
    root = Path(folder)
    check_folder(root)
    work = _Reading(absolute(root), dataset_name(dataset, root.resolve().name))
    found = metadata_files(root)
    if not found:
        raise InputError(f"{printable(root)} has no metadata.csv or metadata.jsonl")
    for path in found:
        for where, row in rows_of(path):
            _take(work, absolute(path.parent), where, row)
    if not work.sources:
        why = (
            f"; the first: {work.refused[0].path} {work.refused[0].reason}" if work.refused else ""
        )
        raise InputError(f"{printable(found[0])} lists no real image that can be read{why}")
    ready = listing(work.sources, work.refused, 0, unread=work.unread)
    names = " and ".join(sorted({path.name for path in found}))
    return replace(
        ready,
        read_as=f"Hugging Face imagefolder with {names}",
        notes=(*exported.left_out(work.n_made), *_not_listed(work)),
        shape=exported.shape(root),
    )


def _not_listed(work: _Reading) -> list[str]:
    """Return in words how many images lie there that nothing lists."""
    named = work.files | {str(work.base / each.path) for each in work.refused}
    n = sum(
        str(Path(folder, name)) not in named
        for folder, _, names in os.walk(work.base)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
    return [f"{n} images that the metadata do not list are left out"] if n else []


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield for each row where it stands, and its cells by the lower-case name of the column."""
    where = printable(path)
    if path.suffix == ".parquet":
        raise InputError(f"{where} is not read; write it as metadata.csv beside the images")
    try:
        if path.suffix == ".jsonl":
            yield from _json_rows(path)
            return
        lines = records(path)
        header = [cell.strip().lower() for cell in next(lines, (0, []))[1]]
        for line, record in lines:
            if len(record) != len(header):
                raise InputError(
                    f"{where}, line {line} has {len(record)} cells where the first line has "
                    f"{len(header)}; put text with commas in double quotes"
                )
            cells = (cell.strip() for cell in record)
            yield f"{where}, line {line}", dict(zip(header, cells, strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text; save it in UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{where} is no valid CSV: {error}; save it anew as CSV") from error
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}; name another file") from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        while line := file.readline(_MOST_LETTERS):
            number += 1
            if not line.strip():
                continue
            where = f"{printable(path)}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{where} is no JSON object on one line; write one an image"
                ) from error
            if not isinstance(row, dict):
                raise InputError(f"{where} is no JSON object on one line; write one an image")
            yield where, {str(name).strip().lower(): _cell(value) for name, value in row.items()}


def _cell(value: Any) -> str:
    """Return a JSON value as a cell of CSV; what has no place there is empty."""
    if isinstance(value, list):
        return ";".join(item for item in value if isinstance(item, str))
    if value is None or isinstance(value, dict):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def _take(work: _Reading, folder: Path, where: str, row: dict[str, str]) -> None:
    """Note what a row says. Raises InputError for a bad row; a bad file is refused."""
    cells = {
        column: next((row[name] for name in names if row.get(name)), "")
        for column, names in _COLUMNS.items()
    }
    known = {name for names in _COLUMNS.values() for name in names} | {"key", "run", "masked"}
    work.unread |= {printable(n) for n in row if n and n not in known | exported.COLUMNS}
    if not cells["file"]:
        raise InputError(
            f"{where} has no file_name; its columns are: {', '.join(map(printable, row))}"
        )
    try:
        path = locate(cells["file"], folder)
        masks = [locate(mask.strip(), folder) for mask in cells["mask"].split(";") if mask.strip()]
    except RefusedError as error:
        work.refused.append(error.refusal)
        return
    work.files.update(map(str, (path, *masks)))
    if exported.was_made(row):
        work.n_made += 1
        return
    source = _source(work, where, row, cells, path)
    for name in (str(path), source.key):
        if work.seen.setdefault(name, where) != where:
            raise InputError(
                f"{where} lists {printable(cells['file'])} again, which {work.seen[name]} lists "
                "already; keep one of them"
            )
    masks = [] if exported.has_mask(row) is False else masks
    work.sources.append(replace(source, masks=tuple(masks)))


def _source(
    work: _Reading, where: str, row: dict[str, str], cells: dict[str, str], path: Path
) -> Source:
    """Return what a row names. Raises InputError where class, part or data set are none."""
    inside = path.relative_to(work.base) if path.is_relative_to(work.base) else Path(path.name)
    folders = inside.parts[:-1]
    of_folder = part_named(folders[0]) if folders else ""
    if cells["part"] and not part_named(cells["part"]):
        raise InputError(
            f"{where} has the part {printable(cells['part'])!r}; it must be train, validation or "
            "test"
        )
    label = cells["class"]
    if not label and not {"class", "label"} & set(row):
        below = folders[1:] if of_folder else folders
        label = below[0] if below else ""
    if not label:
        raise InputError(
            f"{where} has no class: fill in a column class or label, or put the image into a "
            f"folder of its class; its columns are: {', '.join(map(printable, row))}"
        )
    try:
        name = dataset_name(cells["dataset"] or work.dataset, work.dataset)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Source(
        key=exported.key_of(row, name) or f"{name}/{inside.as_posix()}",
        path=path,
        label=label,
        dataset=name,
        group=cells["group"] or None,
        masks=(),
        part=of_folder or part_named(cells["part"]),
    )
