"""Where networks are trained: the device that is meant, checked before anything starts."""

from __future__ import annotations

from augkit.errors import OptionError


def choose_device(name: str | None = None) -> str:
    """Return a torch device: the one that is named, or the fastest here (cuda, mps, cpu).

    Raises OptionError for a device that is not there.
    """
    import torch

    there = _there()
    if name is None:
        return there[0]
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(_missing(name, there)) from None
    n_cards = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type not in there or (device.index or 0) >= n_cards:
        raise OptionError(_missing(name, there))
    return name


def realised_precision(wanted: str, device: str) -> str:
    """Return the precision that networks are trained in: bfloat16, tf32 or float32.

    auto: bfloat16 where the device computes in it faster.
    """
    import torch

    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "tf32"
    if device == "cpu":
        has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return "bfloat16" if has() else "float32"
    return "float32"


def _there() -> list[str]:
    import torch

    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def _missing(name: str, there: list[str]) -> str:
    return f"there is no device {name!r} here; there is: {', '.join(there)}. Choose with --device"
