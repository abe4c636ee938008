"""Several augmenters in a row, such as `flip+brightness+scale+zoom`, as one augmenter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from augkit.errors import OptionError, PluginFailed
from augkit.interfaces import Augmenter, Shape, Window
from augkit.windows import compose, compose_tables, render, render_masks


def chain(members: Sequence[Augmenter]) -> Augmenter:
    """Return the members, joined in order, as one augmenter; a single member as it is.

    Raises OptionError if there is none, or if one of several learns or is not traditional.
    """
    if not members:
        raise OptionError("a chain needs at least one augmenter, such as flip+zoom")
    return members[0] if len(members) == 1 else Chain(tuple(members))


@dataclass
class Chain(Augmenter):
    """Applies its members in order, neighbours that are windows or tables at once.

    Such neighbours mean: geometry first, as one window and one interpolation; then one table; the
    border last, black, so brightness never lights it. A member that offers neither works on the
    pixels between its neighbours; after it the border is made black again, where the member's
    `apply_masks` says that it went, or where it was if the member has none.
    """

    members: tuple[Augmenter, ...]

    def __post_init__(self) -> None:
        self.name = "+".join(member.name for member in self.members)  # type: ignore[misc]
        self.deterministic = all(m.deterministic for m in self.members)  # type: ignore[misc]
        for member in self.members:
            if member.learns or member.family != "traditional":
                raise OptionError(
                    f"{member.name!r} in the chain {self.name!r} makes images from what it has "
                    f"learned; only traditional augmenters can be chained. Use it alone"
                )

    def plan(self, labels: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        """Return a structured array (N,) with the plan of each member as a field of its name.

        The second of a name is called `name_2`. A member that plans nothing has no field, since
        HDF5 cannot store one without content. Each member draws from its own child of `rng`.
        """
        children = rng.spawn(len(self.members))
        plans = {
            label: member.plan(labels, shape, child)
            for (label, member), child in zip(self._labelled(), children, strict=True)
        }
        plans = {label: plan for label, plan in plans.items() if plan.dtype.names}
        params = np.empty(len(labels), [(label, plan.dtype) for label, plan in plans.items()])
        for label, plan in plans.items():
            params[label] = plan
        return params

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        """Return uint8 (N, H, W, C), each member applied as its part of `params` says."""
        if images is None:
            raise ValueError(f"{self.name} needs images: it makes none of its own")
        steps = list(self._steps(params, images.shape[1:]))
        for step in steps:
            if step.fused:
                images = render(images, step.window, step.table)
            else:
                images = _applied(step, images, labels)
        return images if len(steps) == 1 else _without_border(images, steps)

    def apply_masks(self, masks: np.ndarray, params: np.ndarray) -> np.ndarray | None:
        """Return uint8 (N, H, W) moved like the images, or None if a member cannot tell how."""
        moved: np.ndarray | None = masks
        for step in self._steps(params, (*masks.shape[1:], 1)):
            if moved is None:
                return None
            if not step.fused:
                moved = step.member.apply_masks(moved, step.params)
            elif step.window is not None:
                moved = render_masks(moved, step.window)
        return moved

    def as_window(self, params: np.ndarray, shape: Shape) -> Window | None:
        """Return the geometry of all members as one window, if they are windows and tables only.

        The table, if there is one as well, comes after it.
        """
        only = self._only_step(params, shape)
        return only.window if only else None

    def as_lut(self, params: np.ndarray) -> np.ndarray | None:
        """Return the tables of all members as one, if they are windows and tables only."""
        # Whether a member is a window does not depend on the shape: any will do to find out.
        only = self._only_step(params, (1, 1, 1))
        return only.table if only else None

    def _only_step(self, params: np.ndarray, shape: Shape) -> _Step | None:
        steps = list(self._steps(params, shape))
        return steps[0] if len(steps) == 1 and steps[0].fused else None

    def _steps(self, params: np.ndarray, shape: Shape) -> Iterator[_Step]:
        """Yield what to do, in order, with neighbouring windows and tables joined."""
        pending: _Step | None = None
        for label, member in self._labelled():
            rows = _rows(params, label)
            step = _Step(member, rows, member.as_window(rows, shape), member.as_lut(rows))
            if pending is None:
                pending = step
            elif pending.fused and step.fused:
                pending = pending.joined(step, shape)
            else:
                yield pending
                pending = step
        if pending is not None:
            yield pending

    def _labelled(self) -> Iterator[tuple[str, Augmenter]]:
        seen: Counter[str] = Counter()
        for member in self.members:
            seen[member.name] += 1
            count = seen[member.name]
            yield (member.name if count == 1 else f"{member.name}_{count}"), member


@dataclass
class _Step:
    """One member, or several joined; fused if it is a window, a table, or both."""

    member: Augmenter
    params: np.ndarray
    window: Window | None
    table: np.ndarray | None

    @property
    def fused(self) -> bool:
        return self.window is not None or self.table is not None

    def joined(self, then: _Step, shape: Shape) -> _Step:
        window, table = then.window or self.window, self.table if then.table is None else then.table
        if self.window is not None and then.window is not None:
            window = compose(self.window, then.window, shape)
        if self.table is not None and then.table is not None:
            table = compose_tables(self.table, then.table)
        return _Step(then.member, then.params, window, table)


def _applied(step: _Step, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what a member that is neither window nor table makes of the images."""
    made = step.member.apply(images, labels, step.params)
    if getattr(made, "shape", None) != images.shape or made.dtype != np.uint8:
        found = f"{getattr(made, 'dtype', type(made).__name__)} {getattr(made, 'shape', '')}"
        raise PluginFailed(
            f"{step.member.name!r} returned {found.strip()} for images uint8 {images.shape}; "
            f"take it out of the chain, or report this to its author"
        )
    return made


def _without_border(images: np.ndarray, steps: Sequence[_Step]) -> np.ndarray:
    """Return the images, black wherever no pixel of the source has come to lie."""
    if all(step.window is None for step in steps):
        return images
    covered = np.full(images.shape[:3], 255, np.uint8)
    for step in steps:
        if step.window is not None:
            covered = render_masks(covered, step.window)
        elif not step.fused:
            moved = step.member.apply_masks(covered, step.params)
            covered = covered if moved is None else moved
    return np.where(covered[..., None] > 0, images, np.uint8(0))


def _rows(params: np.ndarray, label: str) -> np.ndarray:
    """Return a member's part of the plan; rows without a field if it planned nothing."""
    if label in (params.dtype.names or ()):
        return params[label]
    return np.empty(len(params), np.dtype([]))
