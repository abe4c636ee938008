"""A package of plugins held against the contract, in child processes: it may exit, hang or crash.

A child says before each check what it begins, and after it what it found, a line of JSON each.
Where it ends early or takes too long, that check has failed, and another child goes on with the
next plugin.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import IO, Any

from augkit.conformance import Check, Finding, checks_of, examine, unreached
from augkit.errors import InputError, OptionError
from augkit.interfaces import Progress, silent
from augkit.registry import GROUP, OWN_DISTRIBUTION, Registry, load
from augkit.tables import counted, table

_HEAVY = {"torch", "torchvision", "cv2", "tensorflow", "jax"}
_LOADED = "it can be loaded"


@dataclass(frozen=True)
class Package:
    """Where the plugins of a package are found."""

    name: str
    paths: tuple[str, ...]
    """Folders to import from, before all others; none if it is installed."""
    points: tuple[tuple[str, str], ...]
    """Name and module of each entry point."""


@dataclass(frozen=True)
class Examination:
    """What was found of a package: a finding for each of its plugins and each check."""

    package: str
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """True if every check of every plugin has passed."""
        return all(finding.ok for finding in self.findings)

    def to_json(self) -> str:
        """Return `package`, `sound` and `checks [{plugin, check, meaning, ok, reached, fault}]`."""
        checks = [asdict(finding) | {"ok": finding.ok} for finding in self.findings]
        return json.dumps({"package": self.package, "sound": self.sound, "checks": checks})

    def __str__(self) -> str:
        rows = [[f.plugin, f.check, f.fault or "ok"] for f in self.findings]
        failed = sum(not f.ok and f.reached for f in self.findings)
        end = f"{counted(failed, 'check')} failed" if failed else "the contract is kept"
        done = sum(f.reached for f in self.findings)
        shown = table(["of", "check", "finding"], rows)
        return f"{shown}\n\n{self.package}: {counted(done, 'check')} done, {end}"


def check(package: str | Path, *, timeout: float = 60, progress: Progress = silent) -> Examination:
    """Hold each plugin of a package against the contract.

    package: the name of an installed distribution, or a folder with a pyproject.toml, which need
    not be installed. timeout: the most seconds of one check. Raises OptionError or InputError if
    there is no such package, or if it names no entry point.
    """
    if not timeout > 0:
        raise OptionError(f"timeout is {timeout}; it must be above 0 seconds")
    found = locate(package)
    return Examination(found.name, tuple(_findings(found, timeout, progress)))


def locate(package: str | Path) -> Package:
    """Return where the plugins of a folder or of an installed distribution are."""
    folder = Path(package)
    if (folder / "pyproject.toml").is_file():
        return _in_folder(folder)
    try:
        distribution = importlib.metadata.distribution(str(package))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        what = "a folder without a pyproject.toml" if folder.is_dir() else "neither a folder here"
        raise OptionError(
            f"{str(package)!r} is {what}{', ' if folder.is_dir() else ' '}nor an installed "
            f"package. Write one: augkit plugin new NAME"
        ) from None
    points = distribution.entry_points.select(group=GROUP)
    return _with_points(distribution.name, (), {point.name: point.value for point in points})


def _in_folder(folder: Path) -> Package:
    file = folder / "pyproject.toml"
    try:
        about = tomllib.loads(file.read_text(encoding="utf-8"))
        project = about.get("project", {})
        points = dict(project.get("entry-points", {}).get(GROUP, {}))
        name = str(project.get("name", folder.resolve().name))
        setuptools = about.get("tool", {}).get("setuptools", {})
        parents = [Path(place).parent for place in setuptools.get("package-dir", {}).values()]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        why = " ".join(str(error).split())
        raise InputError(
            f"{file} cannot be read: {why}; augkit plugin new NAME writes one that can"
        ) from error
    places = [folder / "src", folder, *(folder / parent for parent in parents)]
    return _with_points(name, tuple(str(p.resolve()) for p in places if p.is_dir()), points)


def _with_points(name: str, paths: tuple[str, ...], points: dict[str, Any]) -> Package:
    if not points:
        raise InputError(
            f"{name} offers no plugins: its pyproject.toml needs the section "
            f'[project.entry-points.{GROUP}] with a line such as {name.split("-")[-1]} = "MODULE"'
        )
    return Package(name, paths, tuple((key, str(value)) for key, value in points.items()))


@dataclass
class _Begun:
    """The check that a child is at."""

    plugin: str
    kind: str = ""
    check: str = _LOADED
    index: int = -1
    """Of the plugin; -1: the package itself."""


def _findings(package: Package, timeout: float, progress: Progress) -> Iterator[Finding]:
    """Yield what children find, one child as long as it lives."""
    first: int | None = 0
    while first is not None:
        begun, first_next = _Begun(package.name), None
        for message in _messages(package, first, timeout):
            if "begun" in message:
                begun = _Begun(**message["begun"])
                _tell(begun, progress)
            elif "finding" in message:
                finding = Finding(**message["finding"])
                if not (first and begun.index < 0):  # a later child loads the package once more
                    yield finding
            elif "ended" in message:
                yield from _broken_off(begun, message["ended"])
                first_next = begun.index + 1 if begun.index >= 0 else None
        first = first_next


def _tell(begun: _Begun, progress: Progress) -> None:
    """Say which check of which plugin has begun."""
    if begun.index >= 0:
        names = [check.name for check in checks_of(begun.kind)]
        progress(f"checking {begun.plugin}", names.index(begun.check) + 1, len(names), begun.check)


def _broken_off(begun: _Begun, how: str) -> Iterator[Finding]:
    """Yield the finding of the check at which a child ended, and of those it did not come to."""
    if begun.index < 0:
        yield Finding(begun.plugin, _LOADED, _MEANING[_LOADED], f"{begun.plugin} {how} at import")
        return
    checks = checks_of(begun.kind)
    at = [check.name for check in checks].index(begun.check)
    fault = f"{begun.plugin} {how} while this was checked"
    yield Finding(begun.plugin, begun.check, checks[at].meaning, fault)
    yield from (unreached(begun.plugin, check, begun.check) for check in checks[at + 1 :])


def _messages(package: Package, first: int, timeout: float) -> Iterator[dict[str, Any]]:
    """Yield what a child says, and last of all, if it was cut off, `ended` with how."""
    with _child() as (child, errors):
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(asdict(package) | {"first": first}) + "\n")
            child.stdin.flush()  # and left open: its end tells the child that we are gone
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=timeout)
            except queue.Empty:
                yield {"ended": f"has not ended after {timeout:g} s"}
                return
            if not line:
                break
            message = json.loads(line)
            if "done" in message:
                return
            yield message
        code = child.wait()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        yield {"ended": f"ended the process with {how}{_last_line(errors)}"}


def _read(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Pass lines on, an empty one at the end."""
    with contextlib.suppress(ValueError):  # closed under our hands
        for line in stream:
            lines.put(line)
    lines.put("")


def _last_line(errors: IO[str]) -> str:
    errors.seek(0)
    said = errors.read().strip().splitlines()
    return f" ({said[-1][:200]})" if said else ""


@contextlib.contextmanager
def _child() -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Yield a child process that serves, and the file of its messages; it is killed at the end."""
    code = "from augkit.examination import serve; serve()"
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-B", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # a group of its own, which is killed as a whole
        )
        try:
            yield child, errors
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


def serve() -> None:
    """Examine the package that stdin names: the whole life of a child process.

    It leads a process group of its own.
    """
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what a plugin prints does not come between

        def tell(**message: Any) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        asked = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        points = tuple((name, value) for name, value in asked["points"])
        _serve(Package(asked["name"], tuple(asked["paths"]), points), asked["first"], tell)
        tell(done=True)


def _end_with_parent() -> None:
    """End this process, and what it started, when the parent is gone, however it went."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def _serve(package: Package, first: int, tell: Callable[..., None]) -> None:
    """Examine the package, and its plugins from the one at `first`."""
    tell(begun=asdict(_Begun(package.name)))
    sys.path[:0] = package.paths
    found = load(_entry_points(package), careful=False)
    for finding in _of_package(package, found):
        tell(finding=asdict(finding))
    for index, plugin in list(enumerate(found.plugins))[first:]:
        at = asdict(_Begun(plugin.name, plugin.kind, index=index))
        begin = partial(_begin, tell, at)
        for finding in examine(plugin.made_by, begin=begin):
            tell(finding=asdict(finding))


def _begin(tell: Callable[..., None], at: dict[str, Any], check: Check) -> None:
    tell(begun=at | {"check": check.name})


def _entry_points(package: Package) -> Iterable[EntryPoint]:
    if package.paths:
        return [EntryPoint(name, value, GROUP) for name, value in package.points]
    return importlib.metadata.distribution(package.name).entry_points.select(group=GROUP)


def _of_package(package: Package, found: Registry) -> Iterator[Finding]:
    """Yield what is found of the package as a whole."""
    for name, fault in (
        (_LOADED, _failures(found)),
        (_LITTLE, _imported(package)),
        (_FREE, _taken(package, found)),
    ):
        yield Finding(package.name, name, _MEANING[name], fault)


_LITTLE = "it imports little"
_FREE = "its names are free"
_MEANING = {
    _LOADED: "Its modules can be imported, and its hooks return classes that are plugins.",
    _LITTLE: "Importing it loads no library that takes seconds, such as torch or cv2.",
    _FREE: "No plugin has the name of a built-in one.",
}


def _failures(found: Registry) -> str:
    if not found.failures and not found.plugins:
        return "its hooks return no class; a hook returns a list of plugin classes"
    return "; ".join(f"{failure.name}: {failure.error}" for failure in found.failures)


def _imported(package: Package) -> str:
    heavy = sorted(_HEAVY & set(sys.modules))
    if not heavy:
        return ""
    return (
        f"importing {package.name} imports {', '.join(heavy)}, for which every command of augkit "
        f"would wait; import it inside the functions that use it"
    )


def _taken(package: Package, found: Registry) -> str:
    if package.name == OWN_DISTRIBUTION:
        return ""
    own = built_in()
    taken = sorted({p.name for p in found.plugins} & own)
    if not taken:
        return ""
    return f"{', '.join(taken)}: a built-in plugin has this name; choose another"


def built_in() -> set[str]:
    """Return the names of the plugins that come with augkit."""
    points = importlib.metadata.entry_points(group=GROUP)
    own = [p for p in points if p.dist is not None and p.dist.name == OWN_DISTRIBUTION]
    return {plugin.name for plugin in load(own).plugins}
