"""What the command line shows besides results: progress, messages, the list of plugins."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from augkit.tables import one_line, table, typed

if TYPE_CHECKING:  # they would import numpy, which --help does without
    from augkit.interfaces import Progress
    from augkit.registry import Plugin, Registry


def configure_logging() -> None:
    """Send the messages of the core to stderr, a plain line each.

    Pillow's warnings over damaged images are none: such an image is named with the reason.
    """
    warnings.filterwarnings("ignore", module=r"PIL\b")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("augkit: %(message)s"))
    logger = logging.getLogger("augkit")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def plain(text: str) -> str:
    """Return text for a terminal: what names hold besides letters is shown, and not obeyed."""
    return "\n".join(map(one_line, text.split("\n")))


class _Plain(logging.Formatter):
    """Shows messages as `plain` text."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Yield a progress that shows on stderr every stage longer than a second.

    On a terminal as bars, one for each stage that is under way; in a file or a log as a line a
    minute. What a plugin prints meanwhile goes to stderr as well: stdout is for results.
    """
    bars = _Bars() if sys.stderr.isatty() else _Lines()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield bars
    finally:
        bars.close()


class _Lines:
    """A line for the stage under way, at most once a minute."""

    EVERY = 60.0

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if done < total and time.monotonic() - self._said > self.EVERY:
            self._said = time.monotonic()
            logging.getLogger("augkit").info(
                "%s: %d of %d%s", stage, done, total, f", {note}" if note else ""
            )

    def close(self) -> None:
        """Do nothing: lines stay."""


class _Bars:
    """One bar for each stage that has begun and not ended, such as the classes of a training."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        self._began.setdefault(stage, time.monotonic())
        if stage not in self._tasks and done < total:
            if time.monotonic() - self._began[stage] < 1:
                return
            self._open(stage, total)
        if stage in self._tasks:
            self._bars.update(self._tasks[stage], completed=done, total=total, note=note)
        if done >= total:
            self._began.pop(stage)
            self._end(stage)

    def _open(self, stage: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        if self._bars is None:
            self._bars = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=False),
                TextColumn("left"),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
                transient=True,
                speed_estimate_period=600,  # classes that take turns stand still for a while
            )
            self._bars.start()
        self._tasks[stage] = self._bars.add_task(one_line(stage), total=total, note="")

    def _end(self, stage: str) -> None:
        if stage in self._tasks:
            self._bars.refresh()
            self._bars.remove_task(self._tasks.pop(stage))
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Take the bars off the screen."""
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks = None, {}


def plugin_listing(found: Registry) -> str:
    """Return augmenters and classifiers, what networks are made of, and what failed, as tables."""
    classifiers = found.of_kind("classifier")
    parts = [
        table(["augmenter", *_HEAD], [_line(p) for p in found.of_kind("augmenter")]),
        table(["classifier", *_HEAD], [_line(p) for p in classifiers]),
    ]
    networks = [_facts(plugin) for plugin in classifiers if plugin.about]
    if networks:
        parts.append(table(_FACTS, networks))
    if found.failures:
        rows = [[f.name, f.distribution, f.error] for f in found.failures]
        parts.append(table(["failed", "from", "why"], rows))
    return "\n\n".join([*parts, "Options of one of them: augkit plugins NAME"])


def plugin_options(plugins: Sequence[Plugin]) -> str:
    """Return what plugins of one name do, and their options, as tables."""
    parts = []
    for plugin in plugins:
        doc = _doc(plugin)
        head = f"{plugin.kind} {plugin.name}, {plugin.distribution} {plugin.version}"
        parts += [head, doc] if doc else [head]
        if plugin.about:
            parts.append(table(_FACTS, [_facts(plugin)]))
        meanings = plugin.meanings
        rows = [[key, typed(default), meanings[key]] for key, default in plugin.options.items()]
        parts.append(table(["option", "default", "meaning"], rows) if rows else "no options")
    return "\n\n".join(parts)


_HEAD = ["family", "from", "what it does"]
_FACTS = ["classifier", "parameters", "made for", "weights", "here", "source", "licence"]


def _line(plugin: Plugin) -> list[str]:
    said = _doc(plugin).partition("\n")[0]
    return [plugin.name, plugin.family, f"{plugin.distribution} {plugin.version}", said]


def _doc(plugin: Plugin) -> str:
    """Return what a plugin says it does; empty where that is no text."""
    doc = plugin.made_by.__doc__
    return inspect.cleandoc(doc) if isinstance(doc, str) else ""


def _facts(plugin: Plugin) -> list[str]:
    about = plugin.about
    assert about is not None
    millions = f"{about.parameters / 1e6:.1f} M" if about.parameters else ""
    here = "" if about.here is None else "yes" if about.here else "no"
    words = [plugin.name, millions, about.input_size, about.weights, here]
    return [*words, about.source, about.licence]
