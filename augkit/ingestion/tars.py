"""WebDataset: images, classes and JSON as members of tar files, a sample's side by side."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from augkit.errors import InputError
from augkit.ingestion import exported
from augkit.ingestion.readers import (
    SUFFIXES,
    Listing,
    Refusal,
    Source,
    absolute,
    dataset_name,
    listing,
    part_named,
    printable,
)
from augkit.tables import is_utf8

_LARGEST_TEXT = 2**20
"""Bytes of a .json or .cls member."""


def tar_files(path: Path) -> list[Path]:
    """Return the tar files that are meant: the file itself, or those of a folder."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".tar" else []
    return sorted(p for p in path.glob("*.tar") if p.is_file())


@dataclass
class _Sample:
    """Members of one sample: those whose names are equal up to the first dot."""

    name: str
    image: str = ""
    """What the image ends in; empty: there is none yet."""
    span: tuple[int, int] = (0, 0)
    mask: tuple[int, int] | None = None
    about: dict[str, str] = field(default_factory=dict)
    """What its JSON says."""
    label: str = ""
    """What its .cls says."""


def read_tars(path: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images in the tar files of a folder, or in one tar file.

    The class of a sample is what its .json names class or label, else its .cls. A file whose name
    begins as a part is called, such as train-000000.tar, is that part of the given split. Raises
    InputError for files that are no uncompressed tar files, or samples without a class.
    """
    root = Path(path)
    files = tar_files(root)
    if not files:
        raise InputError(f"{printable(root)} holds no .tar file; name a folder that does")
    default = dataset_name(dataset, (root if root.is_dir() else root.parent).resolve().name)
    sources: list[Source] = []
    refused: list[Refusal] = []
    n_made, seen, bare = 0, set(), _without_mask(files[0].parent)
    for file in files:
        for sample in _samples(file):
            if exported.was_made(sample.about):
                n_made += 1
            elif isinstance(found := _source(sample, file, default), Refusal):
                refused.append(found)
            elif found.key in seen:
                raise InputError(
                    f"{printable(file)} holds {printable(found.key)} a second time; leave one out"
                )
            else:
                seen.add(found.key)
                sources.append(replace(found, mask_span=None) if sample.name in bare else found)
    if not sources:
        why = f" ({refused[0].path} {refused[0].reason})" if refused else ""
        raise InputError(f"{printable(files[0])} holds no real image that can be read{why}")
    return replace(
        listing(sources, refused, 0, unread=()),
        read_as=f"WebDataset of {len(files)} tar files",
        notes=exported.left_out(n_made),
        shape=exported.shape(files[0].parent),
    )


def _without_mask(folder: Path) -> set[str]:
    """Return the samples of an export whose mask stands for none."""
    rows = exported.rows(folder) or ()
    return {row.get("id", "") for row in rows if exported.has_mask(row) is False}


class _Modest(tarfile.TarInfo):
    """Headers that say more of a member, such as a long name: read whole, so they must be small."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _MORE and self.size > _LARGEST_TEXT:
            raise InputError(
                f"{printable(str(tar.name))} has a header of {self.size} bytes; write it anew"
            )
        return super()._proc_member(tar)  # type: ignore[misc]


_MORE = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}


def _samples(path: Path) -> Iterator[_Sample]:
    """Yield the samples of a tar file. Raises InputError if it is none, or cut off."""
    where = printable(path)
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:", tarinfo=_Modest) as tar:
            sample = _Sample("")
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                if member.offset_data + member.size > size:
                    raise InputError(f"{where} is truncated; copy it again")
                name, ending = _name_and_ending(member.name)
                if not member.isreg() or member.issparse() or not ending:
                    continue
                if name != sample.name:
                    yield from _whole(sample)
                    sample = _Sample(name)
                _add(sample, tar, member, ending, where)
            yield from _whole(sample)
            end = tar.offset
        with path.open("rb") as file:
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise InputError(f"{where} is truncated; copy it again")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is no tar file without compression: unpack it") from error
    except OSError as error:
        raise InputError(
            f"{where} cannot be read: {error.strerror or error}; name another file"
        ) from error


def _name_and_ending(name: str) -> tuple[str, str]:
    """Return what a member's name is up to the first dot of its last part, and what follows."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return f"{folder}/{stem}" if folder else stem, f".{ending.lower()}" if ending else ""


def _whole(sample: _Sample) -> list[_Sample]:
    return [sample] if sample.image else []


def _add(
    sample: _Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, ending: str, where: str
) -> None:
    if ending in SUFFIXES and not sample.image:
        sample.image, sample.span = ending, (member.offset_data, member.size)
    elif ending == ".mask.png":
        sample.mask = (member.offset_data, member.size)
    elif ending in (".json", ".cls"):
        if member.size > _LARGEST_TEXT:
            raise InputError(f"{where}: {printable(member.name)} is too large; make it smaller")
        opened = tar.extractfile(member)
        text = opened.read().decode(errors="replace") if opened else ""
        if ending == ".cls":
            sample.label = text.strip()
        else:
            sample.about = _about(text, f"{where}: {printable(member.name)}")


def _about(text: str, where: str) -> dict[str, str]:
    """Return what JSON says, as texts. Raises InputError for what is no JSON object."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON; write it anew") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} is no JSON object; write one an image")
    plain = {k: v for k, v in found.items() if isinstance(v, (str, int))}
    return {str(k).lower(): str(v).strip() for k, v in plain.items()}


def _source(sample: _Sample, path: Path, default: str) -> Source | Refusal:
    where, about = f"{path.name}: {sample.name}", sample.about
    label = about.get("class") or about.get("label") or sample.label
    if not label:
        return Refusal(printable(where), "has no class: neither .cls, nor class or label in .json")
    if not all(map(is_utf8, (sample.name, label))):
        return Refusal(printable(where), "its name is not valid UTF-8; rename it")
    name = dataset_name(about.get("dataset") or default, default)
    of_file = re.sub(r"[-_.]?\d*$", "", path.stem)
    return Source(
        key=exported.key_of(about, name) or f"{name}/{path.name}/{sample.name}{sample.image}",
        path=absolute(path),
        label=label,
        dataset=name,
        group=about.get("group") or about.get("patient") or None,
        masks=(),
        part=part_named(of_file) or part_named(about.get("part", "")),
        span=sample.span,
        mask_span=sample.mask,
    )
