"""What the command line shows besides results: progress, messages, the list of plugins."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from augkit.tables import table, typed

if TYPE_CHECKING:  # they would import numpy, which --help does without
    from augkit.interfaces import Progress
    from augkit.registry import Plugin, Registry


def configure_logging() -> None:
    """Send the messages of the core to stderr, a plain line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("augkit: %(message)s"))
    logger = logging.getLogger("augkit")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Yield a progress that draws a bar on stderr for every stage longer than a second.

    Only on a terminal: in a file or a log it would be noise.
    """
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()


class _Bar:
    """One bar at a time; a new stage ends the one before."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.close()
            self._stage, self._began = stage, time.monotonic()
        late = time.monotonic() - self._began > 1 and done < total
        if self._bar is None and late and sys.stderr.isatty():
            self._open(stage)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)

    def _open(self, stage: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(stage, total=None)
        self._bar.start()

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        self._stage = ""


def plugin_listing(found: Registry) -> str:
    """Return augmenters, classifiers and failures as tables."""
    parts = [
        table(["augmenter", *_HEAD], [_line(p) for p in found.of_kind("augmenter")]),
        table(["classifier", *_HEAD], [_line(p) for p in found.of_kind("classifier")]),
    ]
    explained = [
        [plugin.name, key, typed(plugin.options[key]), meaning]
        for plugin in (*found.of_kind("augmenter"), *found.of_kind("classifier"))
        for key, meaning in plugin.meanings.items()
    ]
    if explained:
        parts.append(table(["plugin", "option", "default", "meaning"], explained))
    if found.failures:
        rows = [[f.name, f.distribution, f.error] for f in found.failures]
        parts.append(table(["failed", "from", "why"], rows))
    return "\n\n".join(parts)


_HEAD = ["family", "from", "what it does"]


def _line(plugin: Plugin) -> list[str]:
    said = (plugin.made_by.__doc__ or "").strip().partition("\n")[0]
    return [plugin.name, plugin.family, f"{plugin.distribution} {plugin.version}", said]
