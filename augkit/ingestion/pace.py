"""Says early how long the search for near-duplicates takes, where it takes minutes."""

from __future__ import annotations

import logging
import time

from augkit.budgeting import in_words

log = logging.getLogger("augkit")

_EARLY, _LONG = 5.0, 60.0
"""Seconds after which it is known, and from which on it is worth saying."""


class Pace:
    """How fast a part of the search goes on, from its beginning. what: the part, in words."""

    def __init__(self, what: str):
        self.what = what
        self._began, self._told = time.monotonic(), False

    def at(self, share: float) -> None:
        """Note which share of the work is done, 0..1; say once how long the rest will take."""
        spent = time.monotonic() - self._began
        if self._told or spent < _EARLY or share <= 0:
            return
        self._told = True
        left = spent * (1 / share - 1)
        if left > _LONG:
            log.info(
                "%s: about %s more. --no-find-relatives does not look for them",
                *(self.what, in_words(left)),
            )
