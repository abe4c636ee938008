"""Windows: which grey levels of a deep image become black and which white.

Between them the 256 levels of a store are spread evenly, and rounded to the nearest. What a window
of each image's own (`bits`, `percentile`) hides is which image is darker than another.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from augkit.errors import InputError, OptionError

RULES = ("full", "bits", "percentile")
DEPTHS = (8, 10, 12, 14, 16)
"""Bits that devices count in: `bits` takes the fewest of these that hold an image's levels."""
TAIL = 0.005
"""The share of an image's pixels that `percentile` leaves below its window, and above it."""


@dataclass(frozen=True)
class Window:
    """A rule that maps grey levels to 0..255."""

    rule: str = "full"
    """full: from 0 to the largest level that the file could hold. bits: from 0 to 2**b - 1, b of
    `DEPTHS`. percentile: without the darkest and the brightest 0.5 % of the pixels. fixed."""
    low: float = 0.0
    """Of `fixed`: this level and those below become black..."""
    high: float = 0.0
    """... and this one and those above white."""

    @classmethod
    def parse(cls, text: str | None) -> Window:
        """Return the window that `full`, `bits`, `percentile` or `LOW,HIGH` names.

        None: full. Raises OptionError for anything else.
        """
        if text is None or text in RULES:
            return cls(text or "full")
        number = r"\s*([-+]?(?:\d{1,12}(?:\.\d{0,12})?|\.\d{1,12}))\s*"
        match = re.fullmatch(f"{number},{number}", text, re.ASCII)
        if match is None or not float(match[1]) < float(match[2]):
            raise OptionError(
                f"window is {text!r}; write LOW,HIGH, two grey levels such as 0,4095, the lower "
                f"one first; or one of: {', '.join(RULES)}"
            )
        return cls("fixed", float(match[1]), float(match[2]))

    def __str__(self) -> str:
        return f"{self.low:g},{self.high:g}" if self.rule == "fixed" else self.rule

    def limits(self, levels: np.ndarray) -> tuple[float, float]:
        """Return the levels that become black and white in an image that has none below 0."""
        if self.rule == "fixed":
            return self.low, self.high
        if self.rule == "percentile":
            return middle(levels)
        if self.rule == "bits":
            return 0.0, depth_of(levels)
        return 0.0, 65535.0


def middle(levels: np.ndarray) -> tuple[float, float]:
    """Return the levels that 0.5 % of the pixels lie below and above: levels that occur."""
    low, high = np.quantile(levels, [TAIL, 1 - TAIL], method="inverted_cdf").tolist()
    if low >= high:
        low, high = float(levels.min()), float(levels.max())
    return float(low), float(high)


def depth_of(levels: np.ndarray) -> float:
    """Return the largest level of the fewest bits that hold these levels, none below 0."""
    high = float(levels.max(initial=0))
    return float(next((2**bits - 1 for bits in DEPTHS if high < 2**bits), 2.0**16 - 1))


def spread(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return uint8, same shape: low and below become 0, high and above 255; halves round up.

    An image of one level becomes black. Raises InputError for levels that are no numbers.
    """
    exact = np.asarray(levels, np.float64)
    if not np.isfinite(exact).all():
        raise InputError("has grey levels that are no numbers; save it again")
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        return np.zeros(exact.shape, np.uint8)
    share = np.clip((exact - low) / (high - low), 0.0, 1.0)
    return np.floor(share * 255.0 + 0.5).astype(np.uint8)
