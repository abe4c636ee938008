"""The split that the data sets came with: what it holds, and which relatives it separates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from augkit.partitions import EVERYTHING, GIVEN, PARTS, Scope
from augkit.store import Snapshot
from augkit.tables import counted


@dataclass(frozen=True)
class GivenSplit:
    """How many images the given split has, and how many it has to leave out."""

    rows: dict[str, int]
    """Images by part, as they were given."""
    left_out: dict[str, int]
    """Of these by part: those with relatives in a later part, or in another class."""
    torn: int
    """Test images with relatives among the training and validation images that were given."""
    moved: int
    """Training images that validate, since their data set came without validation images."""
    without: int
    """Images to which no part was given."""
    by_image: bool = False
    """Nothing is left out for its relatives."""

    @classmethod
    def of(cls, snapshot: Snapshot, scope: Scope = EVERYTHING) -> GivenSplit:
        """Return the given split of the images of a scope."""
        real, within = snapshot.real, snapshot.within(scope)
        parts = snapshot.parts(replace(GIVEN, scope=scope))
        given = np.where(within, real.given, -1)
        earlier = np.unique(real.groups[(given == 0) | (given == 1)])
        return cls(
            {part: int((given == i).sum()) for i, part in enumerate(PARTS)},
            {part: int(((given == i) & (parts < 0)).sum()) for i, part in enumerate(PARTS)},
            int(np.isin(real.groups[given == 2], earlier).sum()),
            int(((given == 0) & (parts == 1)).sum()),
            int((within & (given < 0)).sum()),
            scope.by_image,
        )

    def __bool__(self) -> bool:
        """Return True if there is one."""
        return any(self.rows.values())

    def as_values(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"rows": self.rows, "left_out": self.left_out, "torn": self.torn}

    def sentences(self) -> list[str]:
        """Return what whoever uses this split must know: leaks first."""
        found = []
        if self.torn or any(self.left_out.values()):
            found.append(self._leaks())
        if self.moved:
            found.append(
                f"no validation part was given: {counted(self.moved, 'training image')}, those of "
                "folds 14 to 16, validate"
            )
        if self.without:
            found.append(f"{counted(self.without, 'image')} came without a part and are left out")
        return found

    def _leaks(self) -> str:
        out = [f"{n} {_SPOKEN[part]}" for part, n in self.left_out.items() if n]
        why = "for relatives in a later part or in another class; the test part is whole"
        rest = f"left out {why}: {' and '.join(out)} images"
        return (
            f"LEAKS in the given split: {counted(self.torn, 'test image')} with relatives among "
            f"training and validation images; {'all are kept' if self.by_image else rest}"
        )


_SPOKEN = dict(zip(PARTS, ("training", "validation", "test"), strict=True))
