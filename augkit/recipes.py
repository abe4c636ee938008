"""Recipes: what a run is, in words that can be kept, compared and applied again.

A recipe names plugins with their versions and options, a seed and an amount. It is kept with the
run as JSON values.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from augkit import options as option_tools
from augkit.chain import chain
from augkit.errors import OptionError
from augkit.interfaces import Augmenter
from augkit.partitions import HOLDOUT, Partition
from augkit.provenance import Code, code_of
from augkit.registry import Plugin, registry
from augkit.store import Run
from augkit.store.format import digest_of

log = logging.getLogger("augkit")


MOST = 100_000_000
"""Images of a class or in all: what is drawn for a run is drawn at once, and kept in memory."""


@dataclass(frozen=True)
class Amount:
    """How many images to make: so many a class, so many in all, or one for each source."""

    per_class: int | None = None
    total: int | None = None

    def __post_init__(self) -> None:
        if self.per_class is not None and self.total is not None:
            raise OptionError("give --n (images a class) or --total (images in all), not both")
        for name, value in (("n", self.per_class), ("total", self.total)):
            if value is not None and not 1 <= whole(name, value) <= MOST:
                raise OptionError(f"{name} is {value}; it must be at least 1, and at most {MOST}")

    def as_recipe(self) -> dict[str, int]:
        """Return what was asked for as JSON values; nothing: one for each source."""
        given = (("per_class", self.per_class), ("total", self.total))
        return {name: int(value) for name, value in given if value is not None}


def whole(name: str, value: Any) -> int:
    """Return a whole number of any integer type. Raises OptionError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise OptionError(f"{name} is {value!r}; it must be a whole number") from None


def listed(name: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple. Raises OptionError for a text, whose letters are no names."""
    if isinstance(given, str):
        raise OptionError(f"{name} is text; give a list of names, such as [{given!r}]")
    return tuple(given)


def recipes(
    specs: Sequence[str],
    given: Mapping[str, Any],
    amount: Amount,
    seed: int,
    reject_copies: bool = False,
    partition: Partition = HOLDOUT,
) -> list[dict[str, Any]]:
    """Return for each plugin or chain its recipe as JSON values, with every option spelt out.

    Raises PluginNotFound or OptionError.
    """
    if not 0 <= whole("seed", seed) < 2**63:
        raise OptionError(f"seed is {seed}; it must be at least 0 and below 2**63")
    chains = [[registry().find(n, "augmenter") for n in spec.split("+")] for spec in specs]
    shares = iter(_share([plugin for members in chains for plugin in members], given))
    return [
        {
            "plugin": spec,
            "plugins": [_member(plugin, next(shares)) for plugin in members],
            "seed": int(seed),
            "amount": amount.as_recipe(),
            "partition": partition.name,
            **({"reject_copies": True} if reject_copies and _learns(members) else {}),
        }
        for spec, members in zip(specs, chains, strict=True)
    ]


def _learns(members: Sequence[Plugin]) -> bool:
    return any(plugin.build().learns for plugin in members)


def _member(plugin: Plugin, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "options": option_tools.values(plugin.build(options)),
    }


def _share(plugins: list[Plugin], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the options of each plugin: "plugin.key" is for one, "key" for all that have it."""
    shares: list[dict[str, Any]] = [{} for _ in plugins]
    for key, value in given.items():
        owner, _, bare = key.rpartition(".")
        takers = [i for i, p in enumerate(plugins) if owner in ("", p.name)]
        having = [i for i in takers if bare in plugins[i].options]
        if not having:
            takes = "; ".join(f"{p.name}: {', '.join(p.options) or 'none'}" for p in plugins)
            raise OptionError(f"there is no option {key!r}; the options are {takes}")
        for i in having:
            shares[i][bare] = value
    return shares


def rebuild(recipe: Mapping[str, Any]) -> Augmenter:
    """Return the augmenter of a recipe. Raises PluginNotFound or OptionError."""
    found = registry()
    return chain(
        [found.find(p["name"], "augmenter").build(p["options"]) for p in recipe["plugins"]]
    )


def installed_code(run: Run) -> Code:
    """Return which packages offer the plugins of a run here and now."""
    here = [registry().find(p["name"], "augmenter") for p in run.recipe["plugins"]]
    return code_of([{"distribution": p.distribution, "version": p.version} for p in here])


def made_by(run: Run) -> str:
    """Return what names the code and the options that make the rows of a run here and now."""
    found = registry()
    here = [found.find(p["name"], "augmenter") for p in run.recipe["plugins"]]
    for plugin, then in zip(here, run.recipe["plugins"], strict=True):
        if (plugin.distribution, plugin.version) != (then["distribution"], then["version"]):
            log.warning(
                "run %r was made by %s %s; for other partitions it is made again by %s %s",
                run.name,
                *(then["distribution"], then["version"], plugin.distribution, plugin.version),
            )
    return digest_of([[p.distribution, p.version] for p in here] + [run.recipe["plugins"]])
