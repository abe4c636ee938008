"""Designs: what a study is about, as its YAML file says it.

classifiers: [linear, {name: resnet, options: {depth: 18}}]
datasets: {busi: [busi], both: [busi, breast]}
arms: [real, traditional, dagan]
folds: 5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augkit.errors import InputError, OptionError
from augkit.evaluation import Settings


@dataclass(frozen=True)
class Design(Settings):
    """What a study is about."""

    classifiers: tuple[tuple[str, dict[str, Any]], ...]
    """Names with their options."""
    datasets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names for what is evaluated, each with data sets of the store; empty: each data set, and all
    of them together."""
    protocol: str = "augkit"
    budget: str | None = None
    """The most time for each generator that is fitted anew."""

    @classmethod
    def read(cls, path: str | Path) -> Design:
        """Return the study in a YAML file. Raises InputError or OptionError in one plain line."""
        import yaml

        try:
            found = _load(_text_of(Path(path)))
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror}; name a YAML file, or give --preset paper"
            ) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{path} is no YAML: {why}; docs/studies.md has examples") from error
        if not isinstance(found, dict):
            raise InputError(f"{path} holds no study: it needs a list of classifiers")
        return cls.of(found, str(path))

    @classmethod
    def of(cls, found: Mapping[str, Any], where: str) -> Design:
        """Return the study that a mapping describes. `where` is named in errors."""
        known = [*_KINDS]
        unknown = [str(key) for key in found if key not in known]
        if unknown:
            raise OptionError(
                f"{where}: there is no key {unknown[0]!r}; the keys are: {', '.join(known)}"
            )
        given = {key: value for key, value in found.items() if value is not None}
        for key, value in given.items():
            if isinstance(value, int) and abs(value) >= 2**63:
                raise OptionError(f"{where}: {key} must be a number of fewer digits")
            if not (isinstance(value, _KINDS[key]) and value is not True):
                what = _SAID[_KINDS[key]]
                raise OptionError(f"{where}: {key} is {_short(value)}; it must be {what}")
        if given.get("protocol", "augkit") not in ("augkit", "paper"):
            raise OptionError(
                f"{where}: protocol is {_short(given['protocol'])}; it must be augkit or paper"
            )
        given["classifiers"] = tuple(_classifier(c, where) for c in given.get("classifiers", []))
        if not given["classifiers"]:
            raise OptionError(f"{where}: name at least one classifier")
        if "datasets" in given:
            given["datasets"] = {str(k): _names(v) for k, v in given["datasets"].items()}
        if "arms" in given:
            given["arms"] = _names(given["arms"])
        return cls(**given)


LARGEST = 2**20
"""Bytes of a study file."""


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 200 else f"{shown[:200]}..."


def _text_of(path: Path) -> str:
    """Return the text of a regular file of modest size."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no file that can be read; name a YAML file")
    if path.exists() and path.stat().st_size > LARGEST:
        raise InputError(f"{path} is larger than a study can be, {LARGEST} bytes: split it")
    return path.read_text(encoding="utf-8")


def _load(text: str) -> Any:
    """Return what YAML says in plain values, each said once.

    Aliases are refused: a few lines of them stand for more values than any memory holds.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has an alias (*name); write the values out")
            return super().compose_node(parent, index)

    loader = Plain(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


_KINDS: dict[str, Any] = {
    "classifiers": list,
    "datasets": dict,
    "arms": list,
    "folds": int,
    "repeats": int,
    "seeds": int,
    "split": str,
    "primary": str,
    "positive": str,
    "test_on": str,
    "protocol": str,
    "device": str,
    "budget": str,
    "real_share": (int, float),
}
_SAID = {
    list: "a list",
    dict: "a mapping from names to lists of data sets",
    int: "a whole number",
    str: "text",
    (int, float): "a number",
}


def _classifier(given: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of `resnet` or `{name: resnet, options: {depth: 18}}`."""
    if isinstance(given, str):
        return given, {}
    wrong = not isinstance(given, dict) or not {"name"} <= set(given) <= {"name", "options"}
    options = {} if wrong else given.get("options") or {}
    if wrong or not isinstance(given["name"], str) or not isinstance(options, dict):
        raise OptionError(
            f"{where}: {_short(given)} is no classifier; write a name, or name: and options:"
        )
    return given["name"], options


def _names(given: Any) -> tuple[str, ...]:
    return tuple(map(str, given)) if isinstance(given, list) else (str(given),)


NETWORKS = ("alexnet", "vgg16", "inception", "resnet", "nasnet")
ARMS = ("real", "traditional", "dagan", "all")

PAPER = Design(
    tuple((name, {}) for name in NETWORKS),
    arms=ARMS,
    split="70/15/15",
)
"""Table II: five networks, four forms, on each data set and on all together."""
