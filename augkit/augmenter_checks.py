"""What is checked of every augmenter: its plan, its pixels, its masks, and what it has learned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import AugkitError
from augkit.interfaces import ArraySamples, Augmenter, Context, Fitted, Shape
from augkit.phantoms import CLASSES
from augkit.plugin_checks import (
    Specimen,
    it_leaves_its_options_alone,
    it_prints_nothing,
    it_says_what_it_does,
    it_seeds_nothing_shared,
    its_name_can_be_typed,
    its_options_are_declared,
    its_options_are_explained,
    its_options_are_flags,
    its_options_are_only_stored,
    samples_of,
)

SHAPES: tuple[Shape, ...] = ((32, 40, 1), (32, 40, 3))
"""Grey images, and images in colour."""

_OTHER_SHAPE: Shape = (41, 18, 1)
_SAFE = {".json", ".safetensors"}


@dataclass
class AugmenterSpecimen(Specimen):
    """An augmenter class under examination, and what was made with it so far."""

    kept: dict[Shape, Augmenter] = field(default_factory=dict)
    seen: dict[Shape, ArraySamples] = field(default_factory=dict)
    """What those were fitted on, as they left it."""
    said: Any = None
    """What `fit` returned."""

    def samples(self, shape: Shape = SHAPES[0]) -> ArraySamples:
        """Return 24 phantoms, always the same, in new arrays."""
        return samples_of(8, 3, shape, seed=0)

    def fit(self, samples: ArraySamples) -> Augmenter:
        """Return a new augmenter, fitted with a budget of 2 steps if it learns."""
        augmenter = self.build()
        if augmenter.learns:
            with tempfile.TemporaryDirectory() as folder:
                context = Context(1, CLASSES, folder=Path(folder), max_steps=2)
                self.said = augmenter.fit(samples, context)
        return augmenter

    def fitted(self, shape: Shape = SHAPES[0]) -> Augmenter:
        """Return an augmenter that is fitted on these samples, the same at each call."""
        if shape not in self.kept:
            self.seen[shape] = self.samples(shape)
            self.kept[shape] = self.fit(self.seen[shape])
        return self.kept[shape]

    def plan(self, shape: Shape = SHAPES[0], seed: int = 1) -> Any:
        """Return its plan for the samples."""
        labels = self.samples(shape).targets
        return self.fitted(shape).plan(labels, shape, np.random.default_rng(seed))

    def pixels(self, augmenter: Augmenter, params: Any, shape: Shape = SHAPES[0]) -> np.ndarray:
        """Return what it makes of the samples, in new arrays."""
        return np.array(self.apply(augmenter, self.samples(shape), params))

    def apply(self, augmenter: Augmenter, samples: ArraySamples, params: Any) -> Any:
        """Return what it makes of these samples, which it gets in new arrays."""
        sources = None if augmenter.family == "generative" else samples[:]
        return augmenter.apply(sources, samples.targets.copy(), params.copy())

    @cached_property
    def masks(self) -> np.ndarray:
        """Return uint8 (N, H, W), the masks of the samples."""
        return np.where(self.samples().images[..., 0] > 127, 255, 0).astype(np.uint8)

    def moved(self, masks: np.ndarray) -> np.ndarray | None:
        """Return these masks moved as the plan says; None: it makes none."""
        augmenter = self.fitted()
        return (
            None if augmenter.family == "generative" else augmenter.apply_masks(masks, self.plan())
        )

    def work(self) -> Augmenter:
        """Return a new augmenter that has been fitted, if it learns, and applied."""
        augmenter = self.fit(self.samples())
        labels = self.samples().targets
        params = augmenter.plan(labels, SHAPES[0], np.random.default_rng(1))
        self.apply(augmenter, self.samples(), params)
        return augmenter


def its_family_is_known(plugin: AugmenterSpecimen) -> None:
    """The family is traditional or generative."""
    assert plugin.cls.family in ("traditional", "generative"), (  # type: ignore[attr-defined]
        f"{plugin.name} has family {plugin.cls.family!r}; "  # type: ignore[attr-defined]
        f"it must be traditional or generative"
    )


def its_plan_is_a_table(plugin: AugmenterSpecimen) -> None:
    """`plan` gives a structured array, after `fit` where it learns."""
    params = plugin.plan()
    assert isinstance(params, np.ndarray) and params.dtype.names, (
        f"{plugin.name}.plan gives {type(params).__name__}; it must give a structured array"
    )


def its_plan_has_a_row_for_each_image(plugin: AugmenterSpecimen) -> None:
    """`plan` gives as many rows as it gets labels."""
    params, n = plugin.plan(), len(plugin.samples())
    assert params.shape == (n,), (
        f"{plugin.name}.plan gives shape {params.shape} for {n} labels; one row an output"
    )


def its_plan_holds_numbers(plugin: AugmenterSpecimen) -> None:
    """The fields of a plan are numbers or truth values, which a store can hold."""
    kind = plugin.plan().dtype
    assert not kind.hasobject, f"{plugin.name}.plan gives object fields; they cannot be stored"
    assert _of_numbers(kind), (
        f"{plugin.name}.plan gives fields that are no numbers ({kind}); they cannot be stored"
    )


def _of_numbers(kind: np.dtype) -> bool:
    if kind.names is not None:
        return all(_of_numbers(kind[name]) for name in kind.names)
    return kind.base.kind in "biufc" if kind.base.names is None else _of_numbers(kind.base)


def its_plan_repeats_with_the_seed(plugin: AugmenterSpecimen) -> None:
    """The same seed gives the same plan, bit for bit."""
    first, again = plugin.plan(), plugin.plan()
    assert first.dtype == again.dtype and first.tobytes() == again.tobytes(), (
        f"{plugin.name}.plan gives other numbers for the same seed; all randomness comes from rng"
    )


def its_plan_follows_the_seed(plugin: AugmenterSpecimen) -> None:
    """Another seed gives another plan, unless the plugin is called deterministic."""
    if plugin.given or plugin.cls.deterministic:  # type: ignore[attr-defined]
        return  # options may leave nothing to draw
    assert plugin.plan(seed=1).tobytes() != plugin.plan(seed=2).tobytes(), (
        f"{plugin.name}.plan gives the same numbers for every seed; draw from rng, or say "
        f"deterministic = True"
    )


def it_makes_bytes(plugin: AugmenterSpecimen) -> None:
    """`apply` gives a uint8 array, and comes to an end."""
    made = plugin.apply(plugin.fitted(), plugin.samples(), plugin.plan())
    assert isinstance(made, np.ndarray) and made.dtype == np.uint8, (
        f"{plugin.name}.apply gives {getattr(made, 'dtype', type(made).__name__)}; "
        f"it must give uint8"
    )


def it_keeps_the_shape(plugin: AugmenterSpecimen) -> None:
    """New images have the shape of the sources, with one channel and with three."""
    for shape in SHAPES:
        samples = plugin.samples(shape)
        made = plugin.apply(plugin.fitted(shape), samples, plugin.plan(shape))
        assert made.shape == samples.images.shape, (
            f"{plugin.name}.apply gives shape {made.shape} for {samples.images.shape}; "
            f"the shape must be kept"
        )


def it_leaves_its_input_alone(plugin: AugmenterSpecimen) -> None:
    """`apply` changes neither the images nor the labels nor the plan that it gets."""
    augmenter, params = plugin.fitted(), plugin.plan()
    samples, drawn = plugin.samples(), params.copy()
    sources, labels = samples[:], samples.targets.copy()
    augmenter.apply(None if augmenter.family == "generative" else sources, labels, drawn)
    untouched = np.array_equal(sources, samples.images) and np.array_equal(labels, samples.targets)
    assert untouched and drawn.tobytes() == params.tobytes(), (
        f"{plugin.name}.apply modifies its input"
    )


def it_repeats_its_pixels(plugin: AugmenterSpecimen) -> None:
    """The same images and the same plan give the same pixels."""
    for shape in SHAPES:
        augmenter, params = plugin.fitted(shape), plugin.plan(shape)
        first = plugin.pixels(augmenter, params, shape)
        assert np.array_equal(first, plugin.pixels(augmenter, params, shape)), (
            f"{plugin.name}.apply gives other pixels for the same input; draw in plan, not in apply"
        )


def it_makes_each_row_by_itself(plugin: AugmenterSpecimen) -> None:
    """A row has the same pixels whatever rows are made with it, and however many."""
    for shape in SHAPES:
        augmenter, params, samples = plugin.fitted(shape), plugin.plan(shape), plugin.samples(shape)
        whole = plugin.pixels(augmenter, params, shape)
        for block in (1, 5):
            starts = range(0, len(samples), block)
            parts = [_part(plugin, augmenter, samples, params, slice(i, i + block)) for i in starts]
            assert np.array_equal(whole, np.concatenate(parts)), (
                f"{plugin.name}.apply gives other pixels in blocks of {block}; "
                f"each row must be by itself"
            )


def _part(
    plugin: AugmenterSpecimen,
    augmenter: Augmenter,
    samples: ArraySamples,
    params: np.ndarray,
    rows: slice,
) -> np.ndarray:
    part = ArraySamples(samples.images[rows], samples.targets[rows])
    return np.array(plugin.apply(augmenter, part, params[rows]))


def its_plan_says_all(plugin: AugmenterSpecimen) -> None:
    """Another instance makes the same pixels from the plan alone, as replaying a row does."""
    if plugin.fitted().learns:
        return  # `what_it_saves_is_all` asks it of those
    params = plugin.plan()
    assert np.array_equal(
        plugin.pixels(plugin.fitted(), params), plugin.pixels(plugin.build(), params)
    ), (
        f"{plugin.name} makes other pixels from the same plan in another process; what apply needs "
        f"stands in the plan, not in self"
    )


def it_is_as_deterministic_as_it_says(plugin: AugmenterSpecimen) -> None:
    """Where it is called deterministic, the seed changes nothing."""
    augmenter = plugin.fitted()
    if not augmenter.deterministic:
        return
    first, other = (plugin.pixels(augmenter, plugin.plan(seed=seed)) for seed in (1, 2))
    assert np.array_equal(first, other), (
        f"{plugin.name} is called deterministic, but the seed matters"
    )


def it_takes_images_of_another_size(plugin: AugmenterSpecimen) -> None:
    """It also makes images of 18x41, taller than wide, or refuses them in plain words."""
    samples = plugin.samples(_OTHER_SHAPE)
    try:
        made = plugin.apply(plugin.fitted(_OTHER_SHAPE), samples, plugin.plan(_OTHER_SHAPE))
    except AugkitError:
        return
    assert made.shape == samples.images.shape, (
        f"{plugin.name}.apply gives shape {made.shape} for {samples.images.shape}; "
        f"images may have any size"
    )


def its_window_and_table_are_what_it_does(plugin: AugmenterSpecimen) -> None:
    """What it offers for chains, as_window and as_lut, gives the pixels that `apply` gives."""
    augmenter, params, samples = plugin.fitted(), plugin.plan(), plugin.samples()
    window, table = augmenter.as_window(params, samples.shape), augmenter.as_lut(params)
    if augmenter.family == "generative" or (window is None and table is None):
        return
    from augkit.windows import render

    described = render(samples.images, window, table)
    assert np.array_equal(described, plugin.pixels(augmenter, params)), (
        f"{plugin.name} makes other pixels in a chain than alone; as_window and as_lut must say "
        f"all that apply does, or nothing"
    )


def its_way_begins_and_ends_with_its_images(plugin: AugmenterSpecimen) -> None:
    """What it offers between two images, `interpolate`, begins and ends with what `apply` makes."""
    for shape in SHAPES:
        augmenter, targets = plugin.fitted(shape), plugin.samples(shape).targets
        if not augmenter.interpolates:
            return
        label = int(targets[0])
        ends = plugin.plan(shape)[np.flatnonzero(targets == label)[:2]]
        way = augmenter.interpolate(label, ends.copy(), np.array([0.0, 0.5, 1.0]))
        assert isinstance(way, np.ndarray) and way.dtype == np.uint8 and way.shape == (3, *shape), (
            f"{plugin.name}.interpolate gives {getattr(way, 'dtype', type(way).__name__)} "
            f"{getattr(way, 'shape', '')}; it must give uint8, an image for each share"
        )
        assert np.array_equal(way[[0, 2]], augmenter.apply(None, targets[[0, 0]], ends.copy())), (
            f"{plugin.name}.interpolate gives other pixels at 0 and 1 than apply gives for its ends"
        )


def it_reaches_worker_processes(plugin: AugmenterSpecimen) -> None:
    """It can be sent to another process, and makes the same pixels there."""
    augmenter, params = plugin.fitted(), plugin.plan()
    try:
        arrived = ForkingPickler.loads(bytes(ForkingPickler.dumps(augmenter)))
    except Exception as error:
        raise AssertionError(
            f"{plugin.name} cannot be sent to another process ({error}); define its class at the "
            f"top of its module, and keep plain data in it"
        ) from error
    assert np.array_equal(plugin.pixels(augmenter, params), plugin.pixels(arrived, params)), (
        f"{plugin.name} makes other pixels after it was sent to another process"
    )


def it_leaves_masks_alone(plugin: AugmenterSpecimen) -> None:
    """`apply_masks` does not change the masks that it gets."""
    given = plugin.masks.copy()
    plugin.moved(given)
    assert np.array_equal(given, plugin.masks), f"{plugin.name}.apply_masks modifies its input"


def its_masks_have_the_shape_of_the_images(plugin: AugmenterSpecimen) -> None:
    """`apply_masks` gives uint8 (N, H, W), or None."""
    made = plugin.moved(plugin.masks.copy())
    assert made is None or (made.dtype == np.uint8 and made.shape == plugin.masks.shape), (
        f"{plugin.name}.apply_masks gives {made.dtype} {made.shape} for uint8 {plugin.masks.shape}"
    )


def its_masks_are_black_and_white(plugin: AugmenterSpecimen) -> None:
    """`apply_masks` gives 0 and 255, nothing between."""
    made = plugin.moved(plugin.masks.copy())
    assert made is None or np.isin(made, (0, 255)).all(), (
        f"{plugin.name}.apply_masks gives values other than 0 and 255"
    )


def its_masks_show_nothing_where_nothing_is(plugin: AugmenterSpecimen) -> None:
    """A black mask stays black, at the border too."""
    made = plugin.moved(np.zeros_like(plugin.masks))
    assert made is None or not np.any(made), (
        f"{plugin.name}.apply_masks marks pixels of an empty mask; what comes in from outside "
        f"is black"
    )


def its_masks_move_with_the_images(plugin: AugmenterSpecimen) -> None:
    """Where a disc appears in the new image, it appears in the new mask."""
    height, width, _ = SHAPES[0]
    disc = _disc(height, width)
    moved = plugin.moved(np.repeat(np.where(disc, 255, 0).astype(np.uint8)[None], 24, 0))
    if moved is None:
        return
    plain, augmenter, params = plugin.samples(), plugin.fitted(), plugin.plan()
    marked = ArraySamples(
        plain.images ^ np.where(disc, 128, 0).astype(np.uint8)[..., None], plain.targets
    )
    made = [np.array(plugin.apply(augmenter, s, params)).astype(int) for s in (plain, marked)]
    change = np.abs(made[0] - made[1]).max(3)  # (N, H, W)
    clear = (change >= 16) & (2 * change > change.max((1, 2), keepdims=True))
    inside = (clear & _grown(moved > 0)).sum((1, 2))
    assert (2 * inside >= clear.sum((1, 2))).all(), (
        f"{plugin.name} moves images but not their masks; write apply_masks, or return None from it"
    )


def _disc(height: int, width: int) -> np.ndarray:
    """Return bool (H, W): a disc in the left half, above the middle."""
    y, x = np.ogrid[:height, :width]
    return np.hypot(y - 0.4 * height, x - 0.25 * width) < 0.2 * min(height, width)


def _grown(masks: np.ndarray) -> np.ndarray:
    """Return bool (N, H, W), true up to two pixels farther than the masks."""
    from scipy.ndimage import binary_dilation

    return binary_dilation(masks, np.ones((1, 3, 3)), iterations=2)


def it_leaves_the_training_part_alone(plugin: AugmenterSpecimen) -> None:
    """`fit` changes neither the images nor the labels that it gets."""
    plugin.fitted()
    seen, fresh = plugin.seen[SHAPES[0]], plugin.samples()
    same = np.array_equal(seen.images, fresh.images)
    assert same and np.array_equal(seen.targets, fresh.targets), (
        f"{plugin.name} writes over the samples that it is given; copy before you change"
    )


def it_says_how_its_fit_ended(plugin: AugmenterSpecimen) -> None:
    """`fit` returns a Fitted, or None."""
    plugin.fitted()
    assert plugin.said is None or isinstance(plugin.said, Fitted), (
        f"{plugin.name}.fit gives {type(plugin.said).__name__}; it must give Fitted or None"
    )


def what_it_saves_is_safe(plugin: AugmenterSpecimen) -> None:
    """`save` writes safetensors and JSON, never pickle."""
    augmenter = plugin.fitted()
    if not augmenter.learns:
        return
    with tempfile.TemporaryDirectory() as folder:
        augmenter.save(Path(folder))
        files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
        assert files, f"{plugin.name}.save writes no file"
        other = [p.name for p in files if p.suffix not in _SAFE]
    assert not other, (
        f"{plugin.name}.save writes {', '.join(other)}; a model is kept as .safetensors and .json"
    )


def what_it_saves_is_all(plugin: AugmenterSpecimen) -> None:
    """A model that was saved and loaded makes the same pixels."""
    for shape in SHAPES:
        augmenter = plugin.fitted(shape)
        if not augmenter.learns:
            return
        params, loaded = plugin.plan(shape), plugin.build()
        with tempfile.TemporaryDirectory() as folder:
            augmenter.save(Path(folder))
            loaded.load(Path(folder))
        first = plugin.pixels(augmenter, params, shape)
        assert np.array_equal(first, plugin.pixels(loaded, params, shape)), (
            f"{plugin.name} gives other pixels after save and load"
        )


def it_learns_the_same_again(plugin: AugmenterSpecimen) -> None:
    """Fitted again on the same images with the same seed, it makes the same pixels."""
    for shape in SHAPES:
        augmenter = plugin.fitted(shape)
        if not augmenter.learns:
            return
        params, again = plugin.plan(shape), plugin.fit(plugin.samples(shape))
        first = plugin.pixels(augmenter, params, shape)
        assert np.array_equal(first, plugin.pixels(again, params, shape)), (
            f"{plugin.name} gives other pixels when it is fitted again with the same seed"
        )


DECIDES: tuple[Callable[[Any], None], ...] = (
    its_options_are_declared,
    its_plan_is_a_table,
    its_plan_has_a_row_for_each_image,
    it_makes_bytes,
    it_keeps_the_shape,
    it_repeats_its_pixels,
)
"""Where one of these fails, the checks after it cannot be done."""

CHECKS: tuple[Callable[[Any], None], ...] = (
    its_name_can_be_typed,
    its_options_are_declared,
    its_options_are_only_stored,
    its_options_are_flags,
    its_family_is_known,
    its_plan_is_a_table,
    its_plan_has_a_row_for_each_image,
    its_plan_holds_numbers,
    its_plan_repeats_with_the_seed,
    it_makes_bytes,
    it_keeps_the_shape,
    it_leaves_its_input_alone,
    it_repeats_its_pixels,
    it_makes_each_row_by_itself,
    its_plan_says_all,
    it_is_as_deterministic_as_it_says,
    its_plan_follows_the_seed,
    it_takes_images_of_another_size,
    its_window_and_table_are_what_it_does,
    its_way_begins_and_ends_with_its_images,
    it_reaches_worker_processes,
    it_leaves_masks_alone,
    its_masks_have_the_shape_of_the_images,
    its_masks_are_black_and_white,
    its_masks_show_nothing_where_nothing_is,
    its_masks_move_with_the_images,
    what_it_saves_is_safe,
    what_it_saves_is_all,
    it_learns_the_same_again,
    it_says_how_its_fit_ended,
    it_leaves_the_training_part_alone,
    it_leaves_its_options_alone,
    it_seeds_nothing_shared,
    it_prints_nothing,
    it_says_what_it_does,
    its_options_are_explained,
)
"""Every check of an augmenter, in this order."""
