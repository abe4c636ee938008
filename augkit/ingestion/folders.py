"""Data sets as folders: a subfolder for each class, with masks beside the images."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from augkit.errors import InputError
from augkit.ingestion.readers import (
    EXPECTED,
    SUFFIXES,
    Listing,
    Refusal,
    Source,
    absolute,
    dataset_name,
    is_bare_dicom,
    link_problem,
    listing,
    natural,
    printable,
)
from augkit.store.locate import is_store
from augkit.tables import is_utf8

_JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
NO_CLASSES = {
    *("image", "images", "mask", "masks"),
    *("train", "training", "val", "valid", "validation", "test", "testing"),
}
_MASK = re.compile(r"(?P<image>.+)_mask(?:_[0-9]+)?", re.DOTALL)


def read_folder(folder: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images of a folder that holds one subfolder for each class.

    Images may lie deeper below; `dataset` is by default the folder's name. A file `NAME_mask.png`
    or `NAME_mask_1.png` beside an image NAME is a mask of it. A link is followed if it leads to a
    file within the folder. Raises InputError if this is no such folder, or if a class is empty.
    """
    root = Path(folder)
    check_folder(root)
    name = dataset_name(dataset, root.resolve().name)
    found = walk(root)
    _check_classes(root, found)
    masks = join_masks(found)
    base = absolute(root)
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
    return listing(sources, found.refused, found.ignored, unread=found.endings)


@dataclass
class Found:
    """The files below a folder, by what they are; paths are relative to it."""

    classes: list[str] = field(default_factory=list)
    images: list[PurePath] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    ignored: int = 0
    endings: set[str] = field(default_factory=set)

    def refuse(self, path: PurePath, reason: str) -> None:
        """Note that a file is not read."""
        self.refused.append(Refusal(printable(path.as_posix()), reason))


def check_folder(root: Path) -> None:
    """Raise InputError for what is no folder."""
    if not root.exists():
        raise InputError(f"{printable(root)} does not exist; {EXPECTED}")
    if not root.is_dir():
        raise InputError(f"{printable(root)} is a file, no folder; {EXPECTED}")


def walk(root: Path) -> Found:
    """Return all files below the folder, hidden ones aside. Linked folders are not entered."""
    found = Found()
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
                raise InputError(f"{printable(root)}: {error.strerror}; {EXPECTED}") from error
            found.refuse(folder, f"cannot be listed: {error.strerror}")
    return found


def _visit(entry: os.DirEntry[str], path: PurePath, root: Path, found: Found) -> list[PurePath]:
    """Note one entry of a folder; return it if it is a folder to be entered."""
    wanted = path.suffix.lower() in SUFFIXES or is_bare_dicom(root / path)
    is_folder = _is_folder(entry)
    if not (is_folder or (wanted and (entry.is_symlink() or entry.is_file()))):
        found.ignored += 1
        found.endings.add(printable(path.suffix.lower() or path.name))
    elif not is_utf8(entry.name):
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
    elif entry.is_symlink() and (problem := link_problem(root / path, root)):
        found.refuse(path, problem)
    else:
        found.images.append(path)
    return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles, or where nobody may look
        return False


def _check_classes(root: Path, found: Found) -> None:
    """Raise InputError if the subfolders are not classes."""
    where = printable(root)
    if not found.classes:
        first = found.refused[0] if found.refused else None
        why = f" ({first.path} {first.reason})" if first else ""
        manifests = sorted(root.glob("*.csv"))
        hint = f"; did you mean {printable(manifests[0])}?" if len(manifests) == 1 else ""
        raise InputError(f"{where} holds no subfolder with images{why}; {EXPECTED}{hint}")
    odd = sorted((n for n in found.classes if n.lower() in NO_CLASSES), key=natural)
    if len(odd) > 1:
        raise InputError(
            f"{where} has the subfolders {', '.join(odd)}, which are no classes; {EXPECTED}"
        )
    if len(found.classes) == 1 and found.images and all(len(p.parts) > 2 for p in found.images):
        only = printable(root / found.classes[0])
        raise InputError(f"{where} has one subfolder only; {EXPECTED}; did you mean {only}?")


def _check_no_class_empty(root: Path, found: Found, filled: set[str]) -> None:
    for name in sorted(set(found.classes) - filled, key=natural):
        refused = [r for r in found.refused if r.path.startswith(printable(name) + "/")]
        why = f" ({refused[0].path} {refused[0].reason})" if refused else ""
        raise InputError(
            f"class folder {printable(root / name)} holds no image that can be read{why}; "
            "add images or remove the folder"
        )


def join_masks(found: Found) -> dict[PurePath, list[PurePath]]:
    """Return image -> its masks in natural order; masks without one image are refused."""
    matches = ((path, _MASK.fullmatch(path.stem)) for path in found.images)
    masks = [(path, match["image"]) for path, match in matches if match]
    of, wanted = {path for path, _ in masks}, {mask.with_name(stem) for mask, stem in masks}
    joined: dict[PurePath, list[PurePath]] = {p: [] for p in found.images if p not in of}
    named: dict[PurePath, list[PurePath]] = defaultdict(list)
    for path in joined if wanted else ():
        if (plain := path.with_name(path.stem)) in wanted:
            named[plain].append(path)
    for mask, stem in sorted(masks, key=lambda pair: natural(pair[0].as_posix())):
        images = named.get(mask.with_name(stem), [])
        if len(images) == 1:
            joined[images[0]].append(mask)
        else:
            problem = "no image of that name lies" if not images else "several such images lie"
            found.refuse(mask, f"is named like a mask, but {problem} beside it; rename it")
    return joined
