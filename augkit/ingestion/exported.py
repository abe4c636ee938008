"""What `augkit export` wrote beside images, where a data set that is read is one of its exports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from augkit.tables import is_utf8

COLUMNS = {"id", "label", "row", "fold", "source_sha256", "plugin", "seed", "params", "model"}
"""Of metadata.csv: what an ingest has no use for."""
_LARGEST = 2**24


def about(folder: Path) -> dict[str, Any]:
    """Return what export.json says; empty if there is none that can be read."""
    path = folder / "export.json"
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and "augkit" in found else {}


def rows(folder: Path) -> Iterator[dict[str, str]] | None:
    """Yield what metadata.csv says of each row of an export, in its order; None if it is none."""
    from augkit.ingestion.metadata import rows_of

    path = folder / "metadata.csv"
    if not about(folder) or not path.is_file():
        return None
    return (row for _, row in rows_of(path))


def shape(folder: Path) -> tuple[int, int, int] | None:
    """Return height, width and channels of the exported images; None: nobody says."""
    image = about(folder).get("image")
    if not isinstance(image, dict):
        return None
    height, width, channels = (image.get(name) for name in ("height", "width", "channels"))
    if not (isinstance(height, int) and isinstance(width, int) and channels in (1, 3)):
        return None
    return (
        (height, width, channels) if 8 <= min(height, width) <= max(height, width) <= 4096 else None
    )


def has_mask(row: Mapping[str, str]) -> bool | None:
    """Return whether an exported row has a mask, whose file is black if not; None: nobody says."""
    return {"0": False, "1": True}.get(row.get("masked", ""))


def was_made(row: Mapping[str, str]) -> bool:
    """Return True for a row that a run made: it is no real image, and may not become one."""
    return row.get("run", "real") not in ("", "-", "real")


def key_of(row: Mapping[str, str], dataset: str) -> str:
    """Return the key that the image had in its store; empty if the row is of no export."""
    key = row.get("key", "")
    own = "run" in row and "row" in row and key.startswith(f"{dataset}/")
    return key if own and len(key) > len(dataset) + 1 and is_utf8(key) else ""


def left_out(n_made: int) -> tuple[str, ...]:
    """Return in words how many rows of runs are not read."""
    if not n_made:
        return ()
    return (f"{n_made} rows of runs are no real images, and are left out",)
