"""What a log entry must look like before anything in it is used: a digest proves no good intent.

Whoever writes a store can give any entry a digest that fits. So the shape of what is read later is
checked once, here: names that become paths, numbers that become sizes, lists that become arrays.
Kinds and keys that are not known are left alone, and nothing reads them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from augkit.partitions import N_FOLDS

LARGEST_ENTRY = 2**25
"""Bytes of a log entry: the groups of a million images fit in."""
MOST_VALUES = 2**22
"""Commas and brackets of a log entry, each of which takes about a hundred bytes when it is read."""

Check = Callable[[Any], bool]

_LARGEST = 2**31
_FEW_CLASSES = 64
"""So many a store may have whatever its images are: a purge leaves all classes, and few images."""


def fault_of(entry: dict[str, Any]) -> str:
    """Return what is wrong with the shape of a log entry; empty if nothing is."""
    if not isinstance(entry.get("kind"), str):
        return "it does not say of what kind it is"
    required = _REQUIRED.get(entry["kind"], {})
    given = {key: _KEYS[key] for key in _KEYS.keys() & entry.keys()}
    for key, check in {**given, **required}.items():
        if key not in entry or not check(entry[key]):
            return f"its {key!r} is missing or not what it should be"
    if entry["kind"] == "ingest":
        return _fault_of_ingest(entry)
    if entry["kind"] == "purging":
        faults = (fault_of(each) for each in entry["chain"])
        return next((f"in the log that is to come, {fault}" for fault in faults if fault), "")
    return _fault_of_run(entry) if entry["kind"] == "run" else ""


def _fault_of_ingest(entry: dict[str, Any]) -> str:
    classes = entry["classes"]
    if not set(entry["shard_classes"]) <= set(classes):
        return "its shard has classes that the store has not"
    if len(classes) > max(_FEW_CLASSES, len(entry["grouping"]["groups"])):
        return "it has more classes than images"
    return ""


def _fault_of_run(entry: dict[str, Any]) -> str:
    """A recipe that says more than its rows would fill the memory when it is followed again."""
    rows, found = entry["shard"]["rows"], entry.get("memorisation")
    amount = entry["recipe"]["amount"]
    if not rows or max(amount.values(), default=0) > rows or sum(entry["by_class"]) != rows:
        return "it counts other rows than its shard has"
    if found and len(found["by_class"]) != len(entry["by_class"]):
        return "it counts copies of other classes than it has"
    return ""


def is_modest(content: bytes) -> bool:
    """Return True if JSON is small enough to be read, and cannot grow out of all proportion."""
    if len(content) > LARGEST_ENTRY:
        return False
    return sum(content.count(mark) for mark in (b",", b"[", b"{")) <= MOST_VALUES


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _amount(value: Any) -> bool:
    """How many images a recipe asks for, a class or in all; empty: one for each source."""
    if not isinstance(value, dict) or len(value) > 1:
        return False
    return value.keys() <= {"per_class", "total"} and all(_count(n) and n for n in value.values())


def _seed(value: Any) -> bool:
    return _integer(value) and value >= 0


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 2**16


def _name(value: Any) -> bool:
    """A name that people read, on one line, and that is never a path."""
    return isinstance(value, str) and 0 < len(value) <= 500


def _hexadecimal(digits: int) -> Check:
    pattern = re.compile(f"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value))


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list(check: Check, most: int = _LARGEST) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(check, value))


def _names(value: Any) -> bool:
    return _list(_name, 10_000)(value) and len(set(value)) == len(value)


def _mapping(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _anything(value: Any) -> bool:
    return True


def _fields(required: dict[str, Check], **optional: Check) -> Check:
    """A mapping with these keys, and perhaps others; those that are optional may be None."""

    def check(value: Any) -> bool:
        if not isinstance(value, dict) or not required.keys() <= value.keys():
            return False
        given = {key: value[key] for key in optional if value.get(key) is not None}
        return all(test(value[key]) for key, test in required.items()) and all(
            optional[key](each) for key, each in given.items()
        )

    return check


def _decision(value: Any) -> bool:
    """Two real rows, the lower one first, and what a person decided about the pair."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    first, second, word = value
    ordered = _count(first) and _count(second) and first < second
    return ordered and word in ("same", "different")


_SHA256 = _hexadecimal(64)
_OPTIONS = _mapping(_anything)
_PLUGIN = _fields({"name": _name, "distribution": _text, "version": _text, "options": _OPTIONS})
_CODE = _fields({"distribution": _text, "version": _text, "record": _text})
_RECIPE = _fields(
    {
        "plugin": _name,
        "plugins": _list(_PLUGIN, 100),
        "seed": _seed,
        "amount": _amount,
        "partition": _text,
    }
)
_FITTED = _fields({"plugin": _fields({"name": _name}, options=_OPTIONS)})
_FILE = _fields({"bytes": _integer, "sha256": _SHA256})
_FOLD = _maybe(lambda value: _count(value) and value < N_FOLDS)
_POLICY = _maybe(lambda value: value in ("drop", "keep"))

_SHARD = _fields(
    {
        "name": _hexadecimal(32),
        "rows": _count,
        "bytes": _integer,
        "sha256": _SHA256,
        "content": _SHA256,
    }
)
_GROUPING = _fields(
    {"version": _count, "groups": _list(_count), "folds": _list(_FOLD), "conflicts": _POLICY},
    decisions=_list(_decision),
)
_COUNTS = _list(_count, 10_000)
_COPIES = _fields({"threshold": _number, "copies": _count, "by_class": _COUNTS, "redrawn": _count})

_PIECE = re.compile("(?:[0-9a-f]{2}){8,}")


def _pieces(value: Any) -> bool:
    """Bytes that are looked for, in hexadecimal digits."""
    return isinstance(value, str) and all(map(_PIECE.fullmatch, value.split()))


def _chain(value: Any) -> bool:
    """A whole log."""
    return isinstance(value, list) and bool(value) and all(isinstance(e, dict) for e in value)


_KEYS: dict[str, Check] = {
    "number": _count,
    "previous": _maybe(_SHA256),
    "shard": _SHARD,
    "grouping": _GROUPING,
    "environment": _mapping(_text),
    "code": _list(_CODE, 100),
    "memorisation": _maybe(_COPIES),
    "partition": _text,
    "fitted_on": _list(_integer),
    "complete": _truth,
    "note": _text,
    "details": _OPTIONS,
}
"""Of any entry that has these keys."""

_REQUIRED: dict[str, dict[str, Check]] = {
    "ingest": {
        "shard": _SHARD,
        "classes": _names,
        "shard_classes": _names,
        "grouping": _GROUPING,
        "mask_files": _count,
    },
    "grouping": {"grouping": _GROUPING},
    "run": {
        "run": _name,
        "family": lambda value: value in ("traditional", "generative"),
        "recipe": _RECIPE,
        "by_class": _COUNTS,
        "lineage": _fields({"kind": _text}, model=_SHA256, fitted_on=_list(_integer)),
        "trained_from": _text,
        "shard": _SHARD,
    },
    "model": {
        "model": _fields({"name": _SHA256, "files": _mapping(_FILE)}),
        "recipe": _FITTED,
        "trained_from": _text,
    },
    "retraction": {"run": _name},
    "purging": {
        "chain": _chain,
        "pieces": _pieces,
        "excused": lambda value: _mapping(_list(_pieces))(value) and all(map(_pieces, value)),
        "asked": _fields({"request": _OPTIONS, "found": _OPTIONS}),
    },
}
"""What an entry of a kind must have; `models.read_model` says what is missing of a model."""
