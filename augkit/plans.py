"""Plans: everything random of a run, drawn at once, before any image is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from augkit.engines.local import ordered_map
from augkit.errors import AugkitError, OptionError, PluginFailed, cause
from augkit.interfaces import Augmenter, Classifier, Samples, Shape

P = TypeVar("P", Augmenter, Classifier)

_LONGEST_WORD = 1000
TIME_LIMIT = 600.0
"""Seconds that a plugin may take to draw a plan, or to make one block of images."""


@dataclass(frozen=True)
class Plan:
    """Everything random of a run: for each new image its parent and its parameters."""

    parents: np.ndarray
    """int64 (N,), positions in the training part; -1 for generated images."""
    labels: np.ndarray
    """int64 (N,)."""
    params: np.ndarray
    """Structured (N,)."""


def draw(
    augmenter: Augmenter,
    recipe: Mapping[str, Any],
    source: Samples,
    *,
    limit: float = TIME_LIMIT,
) -> Plan:
    """Return the whole plan of a run: depends on recipe, labels and image shape alone.

    limit: seconds that the plugin may take.
    """
    entropy = int.from_bytes(hashlib.sha256(recipe["plugin"].encode()).digest()[:8], "big")
    stream = np.random.SeedSequence([recipe["seed"], entropy])
    for_sources, for_params = (np.random.Generator(np.random.Philox(s)) for s in stream.spawn(2))
    labels = source.labels
    chosen = _choose_sources(labels, recipe["amount"], augmenter, for_sources)
    wanted = labels[chosen]
    params = call_in_time(limit, augmenter, "plan", wanted.copy(), source.shape, for_params)
    if (
        not isinstance(params, np.ndarray)
        or params.shape != wanted.shape
        or params.dtype.names is None
        or not _of_numbers(params.dtype)
    ):
        raise PluginFailed(
            f"plugin {augmenter.name!r}: plan() must return a structured array of numbers, "
            f"{len(wanted)} rows"
        )
    parents = chosen if augmenter.family == "traditional" else np.full(len(chosen), -1)
    return Plan(parents, wanted, params.copy())  # the plugin may keep its own, and change it


def _of_numbers(kind: np.dtype) -> bool:
    """Return True if a type holds numbers and truth values only: HDF5 has no place for others."""
    if kind.names is not None:
        return all(_of_numbers(kind[name]) for name in kind.names)
    if 0 in kind.shape:  # HDF5 has no type for nothing either
        return False
    return kind.base.kind in "biufc" if kind.base.names is None else _of_numbers(kind.base)


def _choose_sources(
    labels: np.ndarray, amount: Mapping[str, int], augmenter: Augmenter, rng: np.random.Generator
) -> np.ndarray:
    """Return int64 (N,): the source of each new image, each used equally often within one."""
    pools = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    if "per_class" in amount:
        counts = [amount["per_class"]] * len(pools)
    elif "total" in amount:
        counts = _apportion(amount["total"], [len(pool) for pool in pools])
    elif augmenter.family == "generative":
        raise OptionError(f"say how many images {augmenter.name} is to make: --n IMAGES_A_CLASS")
    else:
        return np.arange(len(labels))
    for pool, count in zip(pools, counts, strict=True):
        if augmenter.deterministic and count > len(pool):
            raise OptionError(
                f"{augmenter.name} has nothing random and makes one image of each source; "
                f"{count} of {len(pool)} sources cannot be had: ask for {len(pool)} or fewer, or "
                f"chain it with another: {augmenter.name}+zoom"
            )
    return np.concatenate([_repeat(p, n, rng) for p, n in zip(pools, counts, strict=True)])


def _apportion(total: int, sizes: Sequence[int]) -> list[int]:
    """Return how many each class gets, by its share of the sources (largest remainder)."""
    exact = np.array(sizes) * total / sum(sizes)
    counts = np.floor(exact).astype(np.int64)
    rest = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1
    return [int(n) for n in counts]


def _repeat(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    times, rest = divmod(count, len(pool))
    extra = np.sort(rng.permutation(pool)[:rest])
    return np.concatenate([np.tile(pool, times), extra])


def call_in_time(limit: float, plugin: Augmenter | Classifier, method: str, *arguments: Any) -> Any:
    """Call a plugin, for at most `limit` seconds. Raises PluginFailed."""
    try:
        (found,) = ordered_map(
            lambda _: call(plugin, method, *arguments), [None], workers=1, limit=limit
        )
    except TimeoutError as error:
        raise too_long(plugin, f"{method}()", limit) from error
    return found


def settled(plugin: P, shape: Shape, device: str) -> P:
    """Return a plugin with the options filled in that the images or the device decide."""
    found = call(plugin, "settle", shape, device)
    if not isinstance(found, type(plugin)):
        raise PluginFailed(
            f"plugin {plugin.name!r}: settle() returned {type(found).__name__}, not a plugin: it "
            "must return self, or another of its class"
        )
    return found


def environment_of(augmenter: Augmenter) -> dict[str, str]:
    """Return what besides options and model decides the pixels. Raises PluginFailed."""
    found = call(augmenter, "environment")
    if not isinstance(found, dict) or not all(map(_is_word, (*found, *found.values()))):
        raise PluginFailed(
            f"plugin {augmenter.name!r}: environment() must return short texts by name, such as "
            '{"numpy": "2.1.0"}'
        )
    return found


def _is_word(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_WORD and value.isprintable()


def too_long(plugin: Augmenter | Classifier, what: str, limit: float) -> PluginFailed:
    """Return the error of a plugin that has not ended in time."""
    return PluginFailed(
        f"plugin {plugin.name!r}: {what} has not ended after {limit:g} s; if it only is slow, "
        "--time-limit SECONDS allows more"
    )


def call(plugin: Augmenter | Classifier, method: str, *arguments: Any, **named: Any) -> Any:
    """Call a plugin; whatever it raises becomes a named error with the cause kept."""
    try:
        return getattr(plugin, method)(*arguments, **named)
    except (AugkitError, KeyboardInterrupt):
        raise
    except BaseException as error:
        why = cause(error)
        raise PluginFailed(f"plugin {plugin.name!r} failed in {method}(): {why}") from error
