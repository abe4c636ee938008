"""Options of a plugin: the fields of its dataclass, read from text or Python, checked once."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from augkit.errors import OptionError, PluginFailed
from augkit.tables import is_utf8

T = TypeVar("T")

SIZE = re.compile(r"[1-9]\d{0,3}x[1-9]\d{0,3}")
"""A size as users type it: WxH in pixels, such as 96x80."""


def option(
    default: Any, help: str = "", *, low: float | None = None, high: float | None = None
) -> Any:
    """Return a dataclass field: an option with a line of help and inclusive bounds.

    For a pair, such as a range, the bounds hold for both ends.
    """
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high})


def size_of(text: str) -> tuple[int, int]:
    """Return height and width of a size like 96x80, which names the width first; see `SIZE`."""
    width, height = map(int, text.split("x"))
    return height, width


def build(plugin: type[T], values: Mapping[str, Any] | None = None) -> T:
    """Return the plugin with the given options, text or Python values.

    Raises OptionError for an unknown key (listing the good ones) or a value that does not fit.
    """
    fields = _fields(plugin)
    types_of = typing.get_type_hints(plugin)
    converted: dict[str, Any] = {}
    for key, value in (values or {}).items():
        if key not in fields:
            raise OptionError(_unknown(plugin, key))
        where = f"option {key!r} of {_name(plugin)}"
        converted[key] = _convert(value, types_of[key], where)
        _check(converted[key], key, fields[key], where)
    made = plugin(**converted)
    check = getattr(made, "check", None)
    if callable(check):
        check()
    return made


def values(plugin: object) -> dict[str, Any]:
    """Return the options of a plugin as JSON values: name -> value, tuples as lists.

    Raises PluginFailed where its constructor made something else of one.
    """
    found = {}
    for name in _fields(type(plugin)):
        value = getattr(plugin, name)
        try:
            found[name] = _plain(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise PluginFailed(
                f"plugin {_name(type(plugin))!r} made {type(value).__name__} of its option "
                f"{name!r}, which JSON cannot hold; a constructor only stores options"
            ) from error
    return found


def defaults(plugin: type) -> dict[str, Any]:
    """Return name -> default value as JSON values."""
    return {name: _plain(item.default) for name, item in _fields(plugin).items()}


def meanings(plugin: type) -> dict[str, str]:
    """Return name -> the line of help that its declaration gives; empty where it gives none."""
    return {name: item.metadata.get("help", "") for name, item in _fields(plugin).items()}


def names(plugin: type) -> list[str]:
    """Return the names of the options, in the order of declaration."""
    return list(_fields(plugin))


def problems(plugin: type) -> list[str]:
    """Return what is wrong with a plugin's declaration of options; empty if nothing is."""
    if not dataclasses.is_dataclass(plugin) or "__dataclass_fields__" not in vars(plugin):
        return ["is not a dataclass"]
    hints = typing.get_type_hints(plugin)
    found = []
    for name, item in _fields(plugin).items():
        if item.default is dataclasses.MISSING:
            found.append(f"option {name!r} has no default value")
        elif not _supported(hints[name]):
            found.append(f"option {name!r} has a type that cannot be typed on a command line")
        else:
            found += _default_problems(name, item, hints[name])
    return found


def _default_problems(name: str, item: dataclasses.Field, kind: Any) -> list[str]:
    """Return why a default value is not one that a user could give; empty if it is."""
    where = f"the default of option {name!r}"
    try:
        _check(_convert(_plain(item.default), kind, where), name, item, where)
    except OptionError as error:
        return [str(error)]
    except TypeError:
        return [f"{where} is {item.default!r}, which JSON cannot hold"]
    return []


def _fields(plugin: type) -> dict[str, dataclasses.Field]:
    return {item.name: item for item in dataclasses.fields(plugin) if item.init}


def _name(plugin: type) -> str:
    return getattr(plugin, "name", "") or plugin.__name__


def _unknown(plugin: type, key: str) -> str:
    known = names(plugin)
    if not known:
        return f"{_name(plugin)} has no option {key!r}: it takes none"
    close = difflib.get_close_matches(key, known, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{_name(plugin)} has no option {key!r}{hint}; it takes: {', '.join(known)}"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _supported(kind: Any) -> bool:
    origin = typing.get_origin(kind)
    args = typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in args if a is not type(None)]
        return len(inner) == 1 and _supported(inner[0])
    if origin is tuple:
        return bool(args) and all(_single(a) for a in args if a is not Ellipsis)
    return _single(kind)


def _single(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Literal or kind in (int, float, bool, str)


def _convert(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as the declared type; text is parsed, anything else must fit already."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        for arg in args:
            if str(value) == str(arg):
                return arg
        raise OptionError(f"{where} is {value!r}; it must be one of: {_listed(args)}")
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
        return _convert(value, next(a for a in args if a is not type(None)), where)
    if origin is tuple:
        return _pair(value, args, where)
    return _scalar(value, kind, where)


def _pair(value: Any, args: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        parts = [parts]
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(parts)
    if len(parts) != len(args):
        raise OptionError(f"{where} is {value!r}; it takes {len(args)} values separated by a comma")
    return tuple(_convert(p, a, where) for p, a in zip(parts, args, strict=True))


def _scalar(value: Any, kind: type, where: str) -> Any:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    text = value.strip() if isinstance(value, str) else value
    made: Any
    if kind is bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        made = known.get(str(text).lower())
    elif kind is str:
        made = value if isinstance(value, str) and is_utf8(value) else None
    else:
        made = _number(text, kind)
    if made is None:
        raise OptionError(f"{where} is {value!r}; it must be {words[kind]}")
    return made


def _number(text: Any, kind: type) -> Any:
    if isinstance(text, bool):
        return None
    try:
        made = kind(text)
        finite = math.isfinite(made)
    except (TypeError, ValueError, OverflowError):
        return None
    if kind is int and not isinstance(text, str) and made != text:
        return None
    return made if finite else None


def _check(value: Any, key: str, item: dataclasses.Field, where: str) -> None:
    """Hold the value against its bounds, and a range against its order."""
    low, high = item.metadata.get("low"), item.metadata.get("high")
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, (int, float)) and not isinstance(part, bool):
            if low is not None and part < low:
                raise OptionError(f"{where} is {part}; it must be at least {low}")
            if high is not None and part > high:
                raise OptionError(f"{where} is {part}; it must be at most {high}")
    if key.endswith("_range") and isinstance(value, tuple) and value[0] > value[1]:
        raise OptionError(f"{where} is {value[0]},{value[1]}; the smaller end comes first")


def _listed(items: tuple[Any, ...]) -> str:
    return ", ".join(str(i) for i in items)
