"""Filmstrips: one image through every augmenter, and the way between two generated images."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
from PIL import Image

from augkit.errors import AugkitError, OptionError, StoreError
from augkit.interfaces import Augmenter
from augkit.making import check_pixels
from augkit.partitions import PARTS, Partition
from augkit.plans import call
from augkit.recipes import rebuild
from augkit.registry import registry
from augkit.reports.captions import Captioned, Line, draw_lines
from augkit.store import DatasetStore, Run, Snapshot
from augkit.tables import counted, one_line

log = logging.getLogger("augkit")

_LEAST_STEPS = 3


# -- one image through every augmenter -----------------------------------------------------------


def filmstrip(
    snapshot: Snapshot, parent: str, partition: Partition, *, n: int, seed: int
) -> tuple[Image.Image, int]:
    """Return one training image over what every traditional augmenter makes of it, n times.

    parent: its key, or the end of it. Augmenters have their default options; those that learn, that
    fail, or that change nothing are left out. Also returns how many images are shown. Raises
    OptionError unless exactly one training image is meant.
    """
    row = _row_of(snapshot, parent, partition)
    image, label = snapshot.inspect().gather(np.array([row])), snapshot.real.labels[row]
    first, lines = [Captioned((image[0],), "the image itself")], []
    for name, made in _made(image, int(label), n, seed):
        if len(made) == 1:
            first.append(Captioned((made[0],), name))
        else:
            lines.append(Line(name, [Captioned((one,)) for one in made]))
    lines.insert(0, Line("", first))
    heading = f"{snapshot.real.keys[row]} ({snapshot.classes[label]})"
    return draw_lines(lines, heading), sum(len(line.pictures) for line in lines)


def _row_of(snapshot: Snapshot, parent: str, partition: Partition) -> int:
    keys = snapshot.real.keys
    same = np.flatnonzero(keys == parent)
    if not len(same):
        same = np.flatnonzero(np.char.endswith(keys, f"/{parent}"))
    if len(same) > 1:
        some = " and ".join(map(repr, keys[same[:2]].tolist()))
        raise OptionError(f"{counted(len(same), 'image')} end with {parent!r}, such as {some}")
    if not len(same):
        close = difflib.get_close_matches(parent, keys.tolist(), 1, 0.4)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise OptionError(
            f"{snapshot.path} has no image {parent!r}{hint}; augkit info --rows FILE.csv lists them"
        )
    part = int(snapshot.parts(partition)[same[0]])
    if part != 0:
        where = f"in the {PARTS[part]} part" if part > 0 else "in no part"
        raise OptionError(f"{keys[same[0]]} lies {where}; choose an image of the training part")
    return int(same[0])


def _made(image: np.ndarray, label: int, n: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each traditional augmenter with what it makes of an image: uint8 (n, H, W, C)."""
    for plugin in registry().of_kind("augmenter"):
        if plugin.family != "traditional":
            continue
        try:
            augmenter = plugin.build()
            if augmenter.learns:
                continue
            made = _through(augmenter, image, label, n, seed)
        except AugkitError as error:
            log.warning("%s is left out: %s", plugin.name, error)
            continue
        if (made != image).any():
            yield plugin.name, made


def _through(augmenter: Augmenter, image: np.ndarray, label: int, n: int, seed: int) -> np.ndarray:
    """Return n images that an augmenter makes of one, or one where nothing is random."""
    count = 1 if augmenter.deterministic else n
    images, labels = np.repeat(image, count, 0), np.full(count, label)
    rng = np.random.Generator(np.random.Philox(seed))
    params = call(augmenter, "plan", labels, image.shape[1:], rng)
    made = call(augmenter, "apply", images, labels, params)
    check_pixels(augmenter, "apply", made, images.shape)
    return made


# -- from one generated image to another ---------------------------------------------------------


def interpolation(
    store: DatasetStore, snapshot: Snapshot, run: Run, pairs: Sequence[tuple[int, int]], *, n: int
) -> tuple[Image.Image, int]:
    """Return for each pair of rows of a run a line from one to the other, n images long.

    Also how many images are shown. Raises OptionError if the plugin cannot do that, or rows do not
    exist or are of different classes.
    """
    if n < _LEAST_STEPS:
        raise OptionError(f"n is {n}; from one image to another it takes at least {_LEAST_STEPS}")
    augmenter = rebuild(run.recipe)
    if not augmenter.interpolates:
        raise OptionError(
            f"plugin {augmenter.name!r} of run {run.name!r} does not interpolate: choose one "
            "that does (it has a method interpolate)"
        )
    labels = snapshot.inspect(run.name).labels
    for pair in pairs:
        _check_pair(snapshot, run, labels, pair)
    params, shares = snapshot.params(run.name), np.linspace(0, 1, n)
    lines = []
    with ExitStack() as held:
        if run.model is not None:
            call(augmenter, "load", held.enter_context(store.model_folder(run.model)))
        for a, b in pairs:
            label = int(labels[a])
            made = call(augmenter, "interpolate", label, params[[a, b]], shares)
            check_pixels(augmenter, "interpolate", made, (n, *snapshot.shape))
            cells = [
                Captioned((image,), f"{100 * s:.0f} %")
                for image, s in zip(made, shares, strict=True)
            ]
            name = one_line(snapshot.classes[label])
            lines.append(Line(f"{name}: from row {a} to row {b}", cells))
    return draw_lines(lines, f"run {run.name}, from one image to another"), n * len(lines)


def first_pairs(snapshot: Snapshot, run: Run) -> list[tuple[int, int]]:
    """Return the first two rows of each class. Raises StoreError where no class has two."""
    labels = snapshot.inspect(run.name).labels
    found = [np.flatnonzero(labels == label)[:2].tolist() for label in np.unique(labels)]
    pairs = [(pair[0], pair[1]) for pair in found if len(pair) == 2]
    if not pairs:
        raise StoreError(f"run {run.name!r} has no two rows of one class; choose another run")
    return pairs


def _check_pair(snapshot: Snapshot, run: Run, labels: np.ndarray, pair: tuple[int, int]) -> None:
    for row in pair:
        if not 0 <= row < len(labels):
            raise OptionError(f"run {run.name!r} has rows 0 to {len(labels) - 1}; not {row}")
    one, other = (snapshot.classes[labels[row]] for row in pair)
    if one != other:
        raise OptionError(
            f"row {pair[0]} is {one} and row {pair[1]} is {other}: choose two of one class"
        )
