"""From the names of efficientnet_lite_pytorch to those of timm, kept as safetensors."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from augkit.store import durable

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("augkit")

_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST_STAGE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def converted(path: Path, digest: str) -> Mapping[str, Tensor]:
    """Return the tensors of a file by the names of timm.

    digest: of that file; what was converted before is taken from the user's cache if it says that
    it came from that file and is whole.
    """
    kept = _cache() / f"{path.stem}-{digest[:16]}.safetensors"
    found = _kept(kept, digest)
    if found is None:
        from augkit_classifiers.weights import read_state

        found = renamed(read_state(path))
        _keep(kept, found, digest)
    return found


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same tensors under timm's names, the classifier as `classifier`.

    A block expands its channels, except in the first stage; a new stage begins with a block that
    gives another number of channels than it takes.
    """
    places = _places(state)
    return {_renamed(name, places): value for name, value in state.items()}


def _places(state: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
    """Return the stage, and the place within it, of each block."""
    places: dict[int, tuple[int, int]] = {}
    stage, place, number = -1, 0, 0
    while f"_blocks.{number}._project_conv.weight" in state:
        taken, given = _channels(state, number)
        place += 1
        if number == 0 or taken != given:
            stage, place = stage + 1, 0
        places[number] = (stage, place)
        number += 1
    return places


def _channels(state: Mapping[str, Tensor], number: int) -> tuple[int, int]:
    """Return how many channels a block takes and gives."""
    first = f"_blocks.{number}._expand_conv.weight"
    into = state[first].shape[1] if first in state else -1
    return into, state[f"_blocks.{number}._project_conv.weight"].shape[0]


def _renamed(name: str, places: Mapping[int, tuple[int, int]]) -> str:
    if name.startswith("_fc."):
        return name.replace("_fc.", "classifier.")
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if match is None:
        part, _, rest = name.partition(".")
        return f"{_ENDS[part]}.{rest}"
    stage, place = places[int(match[1])]
    part = (_BLOCK if stage else _FIRST_STAGE)[match[2]]
    return f"blocks.{stage}.{place}.{part}.{match[3]}"


def _cache() -> Path:
    from augkit_classifiers.weights import cache_home

    return cache_home() / "augkit" / "weights"


def _kept(path: Path, digest: str) -> dict[str, Tensor] | None:
    """Return what was converted before; None if it is not there, or not whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("from") != digest:
                return None
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return found if file.metadata().get("sum") == _sum(found) else None
    except (OSError, SafetensorError):
        return None


def _keep(path: Path, found: Mapping[str, Tensor], digest: str) -> None:
    from safetensors.torch import save

    tensors = {name: value.contiguous() for name, value in found.items()}
    content = save(tensors, {"from": digest, "sum": _sum(found)})
    with contextlib.suppress(OSError):  # a machine without a home converts each time
        durable.rewrite(path, content)


def _sum(found: Mapping[str, Tensor]) -> str:
    """Return a checksum of all tensors."""
    import zlib

    total = 0
    for name in sorted(found):
        total = zlib.crc32(found[name].contiguous().numpy().tobytes(), total)
    return f"{total:08x}"
