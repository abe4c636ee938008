"""What is to be read: sources, what is refused, and listings of both. No image is opened."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol

from augkit.errors import InputError
from augkit.tables import is_utf8

if TYPE_CHECKING:  # it imports this module
    from augkit.ingestion.decode import Decoded, Target

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
SUFFIXES = (*PICTURES, ".dcm", ".dicom")
"""What an image file's name ends in, in any case. DICOM files may also have no ending."""

EXPECTED = "expected one subfolder per class (benign/, malignant/, ...) or a CSV manifest"

PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What folders, arrays and files of the parts of a data set are called, in any case."""


@dataclass(frozen=True, slots=True)
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
    part: str = ""
    """What its data set gives it to: train, validation or test; empty: nothing."""
    span: tuple[int, int] | None = None
    """Where in the file its bytes lie, offset and length; None: they are the whole file."""
    row: int = -1
    """Which row it is, of a file of arrays; see `Pixels`."""
    member: str = ""
    """Of which of these arrays."""
    mask_span: tuple[int, int] | None = None
    """Where in the file its mask lies, if it lies there."""
    covered: bool | None = None
    """Whether the row has a mask, which may be empty; None: if anything is inside."""
    relatives: str = ""
    """Images of which this is equal are known to be relatives; empty: nothing is known."""
    shown: str = ""
    """What messages call it where the key is a pseudonym."""


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
    layout: str = ""
    """The name of the layout that it was read as, see `augkit.ingestion.layouts`."""
    read_as: str = ""
    """The same in words."""
    notes: tuple[str, ...] = ()
    """What whoever reads it should know."""
    shape: tuple[int, int, int] | None = None
    """Height, width and channels of all images, where they are known to be equal."""
    pixels: Pixels | None = None
    """What reads the images, if they are rows of arrays; None: each is a file, or part of one."""


class Pixels(Protocol):
    """Images that are rows of arrays; see `Source.row`."""

    in_order: bool
    """True if they can be read quickly only from front to back, as they are listed."""

    @property
    def masked(self) -> bool:
        """Return True if some have a mask."""
        ...

    def decoded(self, sources: Sequence[Source], target: Target) -> Iterator[Decoded]:
        """Yield the images of some of the listed sources, in that order, in the target's shape."""
        ...

    def digests(self, sources: Sequence[Source]) -> Iterator[str]:
        """Yield the SHA-256 of each of these, in that order."""
        ...


class RefusedError(Exception):
    """A file that is named somewhere cannot be used."""

    def __init__(self, cell: str, reason: str) -> None:
        super().__init__(cell, reason)
        self.refusal = Refusal(printable(cell), reason)


def part_named(word: str) -> str:
    """Return train, validation or test for what a part may be called; empty for anything else."""
    return PART_NAMES.get(word.strip().lower(), "")


def printable(path: str | PurePath) -> str:
    """Return a path as one line of valid UTF-8: what cannot be shown is written as an escape."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(path)
    )


def listing(
    sources: Iterable[Source],
    refused: Iterable[Refusal],
    ignored: int,
    *,
    unread: Iterable[str],
) -> Listing:
    """Return a listing in natural order, its classes those of the sources."""
    ordered = sorted(sources, key=lambda source: natural(source.key))
    return Listing(
        sources=tuple(ordered),
        classes=tuple(sorted({source.label for source in ordered}, key=natural)),
        refused=tuple(sorted(refused, key=lambda refusal: natural(refusal.path))),
        ignored=ignored,
        unread=tuple(sorted(set(unread))),
    )


def natural(text: str) -> tuple[str, str]:
    """Return a sort key: folder by folder, and by value where there are digits.

    One text and not a list of lists, for there are many of them: what ends a number, a word and a
    folder is less than all that may go on, and a number says first how long it is.
    """
    return "".join(_ordered(part) for part in text.split("/")), text


def _ordered(part: str) -> str:
    """Return what sorts as the words and numbers of a part of a path do."""
    tokens = re.split(r"([0-9]+)", part)
    return "".join(_value(t) if i % 2 else f"{t}\0" for i, t in enumerate(tokens)) + "\0"


def _value(digits: str) -> str:
    """Return what sorts as the number does, up to 4096 digits."""
    plain = digits.lstrip("0")
    return f"{chr(1 + min(len(plain), _LONGEST_NUMBER))}{plain}\0"


_LONGEST_NUMBER = 4096


def dataset_name(given: str | None, default: str) -> str:
    """Return the name of a data set. Raises InputError for one that cannot be part of a key."""
    name = default if given is None else given.strip()
    if not name or "/" in name or name in (".", "..") or not is_utf8(name):
        raise InputError(
            f"{printable(name)!r} cannot name a data set: "
            "it must be text, not empty and without '/'; give another with --dataset NAME"
        )
    return name


def absolute(path: Path) -> Path:
    """Return the path without `..`, links left as they are, independent of the working folder."""
    return Path(os.path.normpath(path.absolute()))


def is_bare_dicom(path: Path) -> bool:
    """Return True for a DICOM file without an ending, or with a number for one."""
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except (OSError, ValueError):
        return False


def link_problem(path: Path, root: Path) -> str | None:
    """Return why a path that may lead through links must not be read; None if it may."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a link to nothing"
    if not target.is_relative_to(root.resolve()):
        return "is a link that leaves the folder; copy the file here instead"
    return None


def locate(cell: str, base: Path) -> Path:
    """Return the image file that a cell names. Raises RefusedError if there is none."""
    named = Path(os.path.normpath(cell))
    if named.parts[:1] == ("..",):
        raise RefusedError(
            cell, "leaves the manifest's folder; move the file there, or write its absolute path"
        )
    path = base / named
    if named.suffix.lower() not in SUFFIXES and not is_bare_dicom(path):
        raise RefusedError(cell, f"does not end in one of {', '.join(SUFFIXES)}")
    try:
        usable = path.is_file()
    except (OSError, ValueError):
        usable = False
    if not usable:
        raise RefusedError(cell, "is no file; paths are relative to the manifest's folder")
    if not named.is_absolute() and (problem := link_problem(path, base)):
        raise RefusedError(cell, problem)
    return path
