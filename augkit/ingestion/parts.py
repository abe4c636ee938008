"""Data sets as folders of parts: PART/CLASS/IMAGE, as torchvision's ImageFolder and timm lie."""

from __future__ import annotations

from pathlib import Path, PurePath

from augkit.errors import InputError
from augkit.ingestion.folders import Found, check_folder, join_masks, walk
from augkit.ingestion.readers import (
    Listing,
    Source,
    absolute,
    dataset_name,
    listing,
    part_named,
    printable,
)


def folders_of_parts(root: Path) -> list[str]:
    """Return the subfolders, if there are some and all are called as parts of a data set are."""
    try:
        names = [p.name for p in sorted(root.iterdir()) if p.is_dir() and _counts(p.name)]
    except OSError:
        return []
    return names if all(map(part_named, names)) else []


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() != "__macosx"


def read_parts(folder: str | Path, *, dataset: str | None = None) -> Listing:
    """Return the images of a folder with train/, val/ and test/, each with a folder a class.

    The parts are kept as the given split; what they may be called, see `PART_NAMES`. Masks lie
    beside their images, as in a folder for each class. Raises InputError if this is no such folder.
    """
    root = Path(folder)
    check_folder(root)
    name = dataset_name(dataset, root.resolve().name)
    found = walk(root)
    odd = [part for part in found.classes if not part_named(part)]
    if odd or not found.classes:
        what = f"the subfolder {printable(odd[0])}" if odd else "no subfolder"
        raise InputError(
            f"{printable(root)} has {what}; expected train, val and test, and in each of these a "
            "subfolder for each class"
        )
    images = [path for path in found.images if not _lacks_class(path, found)]
    found.images = images
    base = absolute(root)
    sources = [
        Source(
            key=f"{name}/{image.as_posix()}",
            path=base / image,
            label=image.parts[1],
            dataset=name,
            group=None,
            masks=tuple(base / mask for mask in masks),
            part=part_named(image.parts[0]),
        )
        for image, masks in join_masks(found).items()
    ]
    if not sources:
        why = f" ({found.refused[0].path} {found.refused[0].reason})" if found.refused else ""
        raise InputError(f"{printable(root)} holds no image that can be read{why}; add some")
    return listing(sources, found.refused, found.ignored, unread=found.endings)


def _lacks_class(path: PurePath, found: Found) -> bool:
    if len(path.parts) > 2:
        return False
    found.refuse(path, "has no class: it lies in no class folder of its part")
    return True
