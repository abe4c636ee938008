"""What a training leaves to look at: a log of its losses, and sheets of samples."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from augkit.store import durable


class TrainingLog:
    """`log.jsonl`: one JSON object a line, for every hundred generator steps of a class.

    Lines that an earlier, interrupted training wrote behind its last checkpoint are dropped, for
    those steps are done again.
    """

    def __init__(self, folder: Path | None, steps: Mapping[str, int]):
        self._path = folder / "log.jsonl" if folder is not None else None
        if self._path is not None and self._path.exists():
            kept = [line for line in self._lines() if _is_done(line, steps)]
            with durable.writing(self._path):
                durable.rewrite(self._path, "".join(kept).encode())

    def add(self, **line: Any) -> None:
        """Append one line."""
        if self._path is None:
            return
        with durable.writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _lines(self) -> list[str]:
        assert self._path is not None
        text = self._path.read_text(encoding="utf-8", errors="replace")
        return text.splitlines(keepends=True)


def _is_done(line: str, steps: Mapping[str, int]) -> bool:
    """Return True for a whole line about a step that is in a checkpoint."""
    try:
        found = json.loads(line)
        return line.endswith("\n") and found["step"] <= steps.get(found["class"], 0)
    except (ValueError, KeyError, TypeError):
        return False


def draw_sheet(folder: Path, rows: Sequence[tuple[str, Tensor]], percent: int) -> None:
    """Write rows of images, uint8 (n, C, H, W), to `samples.png` and `samples-PERCENT.png`."""
    from augkit.reports.sheets import SheetRow, draw_sheet

    sheet = draw_sheet(
        [SheetRow(name, list(images.permute(0, 2, 3, 1).numpy())) for name, images in rows]
    )
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    with durable.writing(folder):
        for name in ("samples.png", f"samples-{percent:03d}.png"):
            durable.rewrite(folder / name, content.getvalue())
