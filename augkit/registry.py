"""Finding plugins: each loaded alone, so that a broken one breaks nothing but itself.

Every entry point of the group `augkit` names a module that offers plugins through the two hooks.
Built-in plugins are found in the same way as a stranger's.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from typing import Any, Literal

import pluggy

from augkit import hookspecs, options
from augkit.errors import AugkitError, PluginFailed, PluginNotFound, cause
from augkit.interfaces import About, Augmenter, Classifier
from augkit.rehearsal import rehearse
from augkit.shielding import shielded

GROUP = "augkit"
OWN_DISTRIBUTION = "augkit"

Kind = Literal["augmenter", "classifier"]
_BASES: dict[Kind, type] = {"augmenter": Augmenter, "classifier": Classifier}
_HOOKS: dict[Kind, str] = {
    "augmenter": "register_augmenters",
    "classifier": "register_classifiers",
}
_LONGEST_NAME = 100
_MOST = 1000
"""Classes that a hook may return."""
_ATTRIBUTES = {"name", "family", "deterministic", "fast", "uses_device"}
"""What a plugin says about itself; with a type it would be an option by mistake."""


@dataclass(frozen=True)
class Plugin:
    """One augmenter or classifier that can be used."""

    name: str
    kind: Kind
    family: str
    distribution: str
    version: str
    made_by: type = field(repr=False, compare=False)

    def build(self, values: Mapping[str, Any] | None = None) -> Any:
        """Return the plugin with these options. Raises OptionError, or PluginFailed."""
        try:
            return options.build(self.made_by, values)
        except (AugkitError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginFailed(
                f"plugin {self.name!r} of {self.distribution} refuses its options: {cause(error)}"
            ) from error

    @property
    def about(self) -> About | None:
        """Return what a classifier says of itself, for a listing; None where it does not."""
        if not issubclass(self.made_by, Classifier):
            return None
        found, _ = _tried(self.made_by.about)  # a listing goes on whatever a plugin does
        return found if _is_about(found) else None

    @property
    def options(self) -> dict[str, Any]:
        """Return name -> default of its options."""
        return options.defaults(self.made_by)

    @property
    def meanings(self) -> dict[str, str]:
        """Return name -> what each of its options means."""
        return options.meanings(self.made_by)


@dataclass(frozen=True)
class Failure:
    """A plugin, or a package of plugins, that cannot be used, and why."""

    name: str
    distribution: str
    error: str


@dataclass(frozen=True)
class Registry:
    """Everything that was found."""

    plugins: tuple[Plugin, ...]
    failures: tuple[Failure, ...]

    def find(self, name: str, kind: Kind) -> Plugin:
        """Return a plugin by name. Raises PluginNotFound, naming the ones that are there."""
        known = {p.name: p for p in self.plugins if p.kind == kind}
        if name in known:
            return known[name]
        raise PluginNotFound(self._missing(name, kind, sorted(known)))

    def named(self, name: str) -> list[Plugin]:
        """Return the augmenter, the classifier or both of this name. Raises PluginNotFound."""
        same = [plugin for plugin in self.plugins if plugin.name == name]
        if not same:
            known = sorted({plugin.name for plugin in self.plugins})
            raise PluginNotFound(self._missing(name, "plugin", known))
        return same

    def _missing(self, name: str, kind: str, known: list[str]) -> str:
        failed = [f for f in self.failures if f.name == name]
        if failed:
            return f"plugin {name!r} of {failed[0].distribution} cannot be used: {failed[0].error}"
        close = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        broken = f"; {len(self.failures)} failed, see augkit plugins" if self.failures else ""
        return f"no {kind} {name!r}{hint}; there are: {', '.join(known) or 'none'}{broken}"

    def of_kind(self, kind: Kind) -> list[Plugin]:
        """Return the plugins of one kind, sorted by name."""
        return sorted((p for p in self.plugins if p.kind == kind), key=lambda p: p.name)

    def to_json(self) -> str:
        """Return augmenters, classifiers and failures as JSON."""

        def described(kind: Kind) -> list[dict[str, Any]]:
            keys = ("name", "family", "distribution", "version", "options")
            return [
                {k: getattr(p, k) for k in keys} | {"about": asdict(p.about) if p.about else None}
                for p in self.of_kind(kind)
            ]

        return json.dumps(
            {
                "augmenters": described("augmenter"),
                "classifiers": described("classifier"),
                "failures": [asdict(f) for f in self.failures],
            }
        )


@lru_cache(maxsize=1)
def registry() -> Registry:
    """Return the plugins installed here; looked up once in a process."""
    return load(entry_points(group=GROUP))


def load(points: Any, *, careful: bool = True) -> Registry:
    """Return the plugins behind these entry points, each loaded by itself.

    What a package changes for all while it is loaded is put back (`shielding`). Packages of others
    are left alone where AUGKIT_DISABLE_PLUGINS or AUGKIT_PLUGINS says so; a new one is
    imported in a child process first. careful: False where this is a child that may end, and that
    was asked for these very packages.
    """
    found: dict[tuple[Kind, str], Plugin] = {}
    failures: list[Failure] = []
    ordered = sorted(points, key=_precedence)
    barred = _all_barred(ordered) if careful else {}
    for point in ordered:
        if point in barred:
            failures.append(Failure(point.name, _distribution(point)[0], barred[point]))
            continue
        with shielded():
            items = list(offered_by(point))
        for item in items:
            if isinstance(item, Failure):
                failures.append(item)
            elif (item.kind, item.name) in found:
                failures.append(_taken(item, found[item.kind, item.name]))
            else:
                found[item.kind, item.name] = item
    return Registry(tuple(found.values()), tuple(failures))


def _all_barred(points: Sequence[EntryPoint]) -> dict[EntryPoint, str]:
    """Return which entry points are not to be loaded, each with the reason in words."""
    barred = {point: why for point in points if (why := _barred(point))}
    others = [p for p in points if p not in barred and _distribution(p)[0] != OWN_DISTRIBUTION]
    return barred | rehearse(others)


def _barred(point: EntryPoint) -> str:
    """Return why a package is not to be loaded: the user does not want it; empty if it is."""
    name, listed = _distribution(point)[0], os.environ.get("AUGKIT_PLUGINS")
    if name == OWN_DISTRIBUTION:
        return ""
    if os.environ.get("AUGKIT_DISABLE_PLUGINS", "0") not in ("", "0"):
        return "not loaded: AUGKIT_DISABLE_PLUGINS is set"
    if listed is not None and _normal(name) not in map(_normal, listed.split(",")):
        return f"not loaded: AUGKIT_PLUGINS is {listed!r}, which does not name it"
    return ""


def _normal(distribution: str) -> str:
    """Return the name of a distribution as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def _precedence(point: EntryPoint) -> tuple[bool, str, str]:
    name = _distribution(point)[0]
    return name != OWN_DISTRIBUTION, name, point.name


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Return name and version; a half-removed package has neither."""
    dist = point.dist
    if dist is None or not {"Name", "Version"} <= set(dist.metadata or ()):
        return "unknown", "0"
    return dist.name, dist.version


def _taken(plugin: Plugin, first: Plugin) -> Failure:
    error = f"the {plugin.kind} name {plugin.name!r} is taken by {first.distribution}"
    return Failure(plugin.name, plugin.distribution, error)


def offered_by(point: EntryPoint) -> Iterator[Plugin | Failure]:
    """Yield what one entry point offers, or why it offers nothing."""
    name, version = _distribution(point)
    hooks, fault = _tried(_hooks, point)
    if fault:
        yield Failure(point.name, name, fault)
        return
    for kind in _HOOKS:
        classes, fault = _tried(_offered, hooks, kind)
        if fault:
            yield Failure(point.name, name, f"{_HOOKS[kind]}() failed: {fault}")
            continue
        for offered in classes:  # one may raise when it is looked at
            found, fault = _tried(_judged, offered, kind, name, version)
            yield Failure(point.name, name, f"a class cannot be read: {fault}") if fault else found


def _tried(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what a function over a stranger's code returns, and in words what it raised."""
    try:
        return function(*arguments), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, cause(error)


def _judged(offered: Any, kind: Kind, distribution: str, version: str) -> Plugin | Failure:
    """Return what a class offers, or why it cannot be used."""
    wrong = _problems(offered, kind)
    if wrong:
        shown = getattr(offered, "name", None) or getattr(offered, "__name__", str(offered))
        return Failure(str(shown)[:_LONGEST_NAME], distribution, "; ".join(wrong))
    return Plugin(offered.name, kind, offered.family, distribution, version, offered)


def _hooks(point: EntryPoint) -> Any:
    """Import a plugin module and hold it against the hooks, in a manager of its own."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(point.load(), name=point.name)
    manager.check_pending()
    hooks = manager.hook
    if not any(getattr(hooks, name).get_hookimpls() for name in _HOOKS.values()):
        raise TypeError(f"offers neither {' nor '.join(_HOOKS.values())}")
    return hooks


def _offered(hooks: Any, kind: Kind) -> list[Any]:
    """Return what a plugin module returns from one hook; nothing if it has not that hook."""
    caller = getattr(hooks, _HOOKS[kind])
    if not caller.get_hookimpls():
        return []
    returned = caller()  # pluggy leaves out None
    if not returned or not isinstance(returned[0], (list, tuple)):
        what = type(returned[0]).__name__ if returned else "None"
        raise TypeError(f"returned {what} instead of a list of classes")
    return list(islice(returned[0], _MOST))


def _problems(offered: Any, kind: Kind) -> list[str]:
    """Return why a class cannot be used as a plugin; empty if it can."""
    is_class = isinstance(offered, type)
    if not is_class or not issubclass(offered, _BASES[kind]):
        return [f"is no {kind}: {offered!r}"]
    found = []
    name = offered.name
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        found.append(f"name {name!r} is not lower-case letters, digits and hyphens")
    elif len(name) > _LONGEST_NAME:
        found.append(f"name {name[:20]!r}... has {len(name)} letters, over {_LONGEST_NAME}")
    missing = sorted(getattr(offered, "__abstractmethods__", ()))
    if missing:
        found.append(f"does not define {', '.join(missing)}")
    if kind == "augmenter" and not _makes_images(offered):
        found.append("defines none of apply, as_window, as_lut")
    if kind == "augmenter" and offered.family not in ("traditional", "generative"):
        found.append(f"family {offered.family!r} is neither traditional nor generative")
    try:
        found += [_typed(key) for key in options.names(offered) if key in _ATTRIBUTES]
        found += options.problems(offered)
    except (Exception, SystemExit) as error:
        found.append(f"options cannot be read: {cause(error)}")
    return found


def _typed(attribute: str) -> str:
    return f"{attribute!r} has a type, which makes it an option; write {attribute} = ..."


def _makes_images(offered: type) -> bool:
    return any(
        getattr(offered, method) is not getattr(Augmenter, method)
        for method in ("apply", "as_window", "as_lut")
    )


def _is_about(found: object) -> bool:
    """Return True for what a listing can show."""
    if not isinstance(found, About):
        return False
    words = (found.input_size, found.weights, found.source, found.licence)
    known = isinstance(found.parameters, int | None) and isinstance(found.here, bool | None)
    return known and all(isinstance(word, str) for word in words)
