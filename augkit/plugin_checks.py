"""What is checked of every plugin, whatever it makes: its name, its options, its manners.

A check is a function of a specimen. Its name, with spaces, is the claim that it holds the plugin
to; the first line of its docstring says what it looks at. It raises AssertionError with one plain
sentence, or whatever the plugin raises. It looks at one thing and lets others pass.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from augkit import options
from augkit.interfaces import ArraySamples, Shape
from augkit.phantoms import CLASSES, phantoms
from augkit.tables import typed

_SEEDS = (3_141_592_653, 2_718_281_828)
"""None that a plugin would take."""


@dataclass
class Manners:
    """What a plugin did besides its work."""

    printed: str = ""
    shared: tuple[Any, ...] = ()
    """The states in which it left the random numbers that everybody shares; empty: as they were."""
    seeded: bool = False
    """True if it seeded them."""


@dataclass
class Specimen:
    """A plugin class under examination, with the options that it is to have."""

    cls: type
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what the plugin is called in sentences."""
        return str(getattr(self.cls, "name", "") or getattr(self.cls, "__name__", self.cls))

    def build(self) -> Any:
        """Return a new plugin."""
        return options.build(self.cls, self.given)

    def work(self) -> Any:
        """Return a new plugin that has done its work once, from options to result."""
        raise NotImplementedError

    @cached_property
    def worked(self) -> tuple[Any, Manners]:
        """Return a plugin that has done its work, and what it did besides."""
        with watched(_SEEDS[0]) as manners:
            plugin = self.work()
        if manners.shared:  # seeded, or drawn from without effect, as libraries do
            with watched(_SEEDS[1]) as others:
                self.work()
            pairs = zip(manners.shared, others.shared, strict=False)
            manners.seeded = any(one == other for one, other in pairs)
        return plugin, manners


def samples_of(n_per_class: int, n_classes: int, shape: Shape, seed: int) -> ArraySamples:
    """Return easy phantoms, always the same, in new arrays."""
    images, labels = _phantoms(n_per_class, n_classes, shape, seed)
    return ArraySamples(images.copy(), labels.copy())


@lru_cache(maxsize=32)
def _phantoms(
    n_per_class: int, n_classes: int, shape: Shape, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    height, width, channels = shape
    size = {"height": height, "width": width, "channels": channels}
    classes = CLASSES[:n_classes]
    images, _, labels = phantoms(n_per_class, classes=classes, seed=seed, difficulty=0, **size)
    return images, labels


@contextlib.contextmanager
def watched(seed: int) -> Iterator[Manners]:
    """Yield manners that are filled in at the end of the block.

    seed: of the random numbers that everybody shares, which are put back afterwards.
    """
    manners, said, original = Manners(), io.StringIO(), _shared_randomness()
    try:
        random.seed(seed)
        np.random.seed(seed)
        before = _shared_randomness()
        with contextlib.redirect_stdout(said):
            yield manners
        after = _shared_randomness()
        manners.printed, manners.shared = said.getvalue(), after if after != before else ()
    finally:
        random.setstate(original[0])
        np.random.set_state(original[1])


def _shared_randomness() -> tuple[Any, Any]:
    """Return the states of `random` and of `np.random`, comparable."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), (kind, tuple(keys), *rest)


def its_name_can_be_typed(plugin: Specimen) -> None:
    """The name is short, lower case and hyphenated."""
    name = getattr(plugin.cls, "name", None)
    assert isinstance(name, str) and re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name), (
        f"{plugin.cls.__name__} is named {name!r}; a name is short, lower case, hyphenated"
    )


def its_options_are_declared(plugin: Specimen) -> None:
    """It is a dataclass whose fields have types that can be typed, and defaults that fit them."""
    wrong = options.problems(plugin.cls)
    assert not wrong, f"{plugin.name} {'; '.join(wrong)}"


def its_options_are_only_stored(plugin: Specimen) -> None:
    """Made again from its own options it is the same; the constructor changes none."""
    made = options.values(plugin.build())
    again = options.values(options.build(plugin.cls, made))
    assert again == made, (
        f"{plugin.name} changes its options when it is made from them again; constructors only "
        f"store"
    )


def its_options_are_flags(plugin: Specimen) -> None:
    """Each default, typed as -o KEY=VALUE, gives the same plugin as no flag at all."""
    made = options.values(options.build(plugin.cls))
    for key, value in options.defaults(plugin.cls).items():
        flag = f"-o {key}={typed(value)}"
        by_flag = options.values(options.build(plugin.cls, {key: typed(value)}))
        assert by_flag == made, (
            f"{plugin.name}: {flag} gives {by_flag[key]!r}, not the default {value!r}; choose a "
            f"type or a default that can be typed"
        )


def it_says_what_it_does(plugin: Specimen) -> None:
    """Its docstring begins with a line for augkit plugins to show."""
    said = (plugin.cls.__doc__ or "").strip()
    made_up = said.startswith(f"{plugin.cls.__name__}(")  # by dataclass, where there is none
    assert said and not made_up, (
        f"{plugin.name} has no docstring; its first line is what augkit plugins shows"
    )


def its_options_are_explained(plugin: Specimen) -> None:
    """Each option has a line of help for augkit plugins NAME to show."""
    without = [key for key, help in options.meanings(plugin.cls).items() if not help.strip()]
    assert not without, (
        f"{plugin.name} does not say what {', '.join(without)} means; write "
        f"option(default, 'what it means')"
    )


def it_leaves_its_options_alone(plugin: Specimen) -> None:
    """Its options are the same before and after it has done its work."""
    before, after = options.values(plugin.build()), options.values(plugin.worked[0])
    changed = [key for key in before if after[key] != before[key]]
    assert not changed, (
        f"{plugin.name} changes its options while it works: {', '.join(changed)}; keep what is "
        f"learned in attributes that end in an underscore"
    )


def it_prints_nothing(plugin: Specimen) -> None:
    """Nothing is printed: stdout is for results, such as JSON."""
    printed = " ".join(plugin.worked[1].printed.split())
    assert not printed, f"{plugin.name} prints {printed[:40]!r}; use logging, or context.progress"


def it_seeds_nothing_shared(plugin: Specimen) -> None:
    """It does not seed the random numbers that everybody in the process shares."""
    assert not plugin.worked[1].seeded, (
        f"{plugin.name} seeds the random numbers that everybody shares; draw from the rng that it "
        f"is given, or from np.random.default_rng(seed)"
    )
