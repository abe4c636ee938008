"""Rows described as windows and tables, rendered with one interpolation each.

A window (`augkit.interfaces.Window`) is the rectangle of the source that fills the output; a table
gives the new grey level for each old one. Geometry comes first, as one window; then one table;
the border, which is what a window shows beyond the image, stays black whatever the table says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from augkit.interfaces import Shape, Window

WINDOW_FIELDS: list[tuple[str, type]] = [
    ("x", np.int32),
    ("y", np.int32),
    ("width", np.int32),
    ("height", np.int32),
]
"""The fields in which a plan records the windows that it realised, in source pixels."""

Rectangle = tuple[int, int, int, int]
"""Left, right, upper and lower edge; right and lower are exclusive."""


def recorded_window(params: np.ndarray, *, exact: bool = False) -> Window:
    """Return the windows that a plan recorded in `WINDOW_FIELDS`; none is mirrored."""
    x, y, width, height = (params[name].astype(np.int64) for name, _ in WINDOW_FIELDS)
    return Window(x, y, width, height, np.zeros(len(params), bool), exact)


def compose(first: Window, then: Window, shape: Shape) -> Window:
    """Return one window that shows what `then` shows of the output of `first`.

    shape: of the images, the same before and after. Each edge is rounded once and lies within half
    a source pixel of the true one, or within one pixel where the window would be empty. Where
    `then` looks beyond the output of `first` is border, also if the source goes on there. Exact if
    either is.
    """
    left = np.where(first.mirrored, shape[1] - then.x - then.width, then.x)
    mirrored = first.mirrored ^ then.mirrored
    exact = first.exact or then.exact
    if _is_whole(first, shape):  # a mirror alone: nothing to scale, to round or to hide
        return Window(left, then.y, then.width, then.height, mirrored, exact)
    x, width = _along(first.x, first.width, left, then.width, shape[1])
    y, height = _along(first.y, first.height, then.y, then.height, shape[0])
    return Window(x, y, width, height, mirrored, exact, _seen(first, then, shape))


def _is_whole(window: Window, shape: Shape) -> bool:
    """Return True if each row shows just the image."""
    wide = (window.width == shape[1]).all() and (window.height == shape[0]).all()
    return bool(wide and window.seen is None and not (window.x.any() or window.y.any()))


def compose_tables(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Return the tables that do `first` and then `then`: uint8 (N, 256), as are both."""
    return np.take_along_axis(then, first.astype(np.intp), axis=1)


def render(images: np.ndarray, window: Window | None, table: np.ndarray | None) -> np.ndarray:
    """Return what each window shows of its image, with its table applied inside the border.

    images: uint8 (N, H, W, C), not modified. table: uint8 (N, 256). None: the whole image, or
    grey levels as they are. Returns uint8, same shape, a new array. A window that is the whole
    image copies it exactly; one that misses the image, or leaves less than half an output pixel
    of it, gives a black row. Raises ValueError if a window is empty or N differs.
    """
    import cv2

    if table is not None and table.shape != (len(images), 256):
        raise ValueError(f"{len(images)} images need tables of shape ({len(images)}, 256)")
    linear = cv2.INTER_LINEAR_EXACT if window is not None and window.exact else cv2.INTER_LINEAR
    single = images.shape[3] == 1
    out = np.empty(images.shape, np.uint8)
    source, target = (images[..., 0], out[..., 0]) if single else (images, out)
    _render(source, target, window, table=table, interpolation=linear)
    return out


def render_masks(masks: np.ndarray, window: Window) -> np.ndarray:
    """Return the masks moved like images under the same window, each pixel the nearest one.

    masks: uint8 (N, H, W) of 0 and 255, not modified. Returns uint8, same shape, a new array.
    """
    # Not cv2.resize: INTER_NEAREST is not centred, and INTER_NEAREST_EXACT breaks ties otherwise
    # in OpenCV 4 than in 5, so that a mask could not be made again.
    out = np.zeros(masks.shape, np.uint8)
    for mask, output, (near, place, mirrored) in zip(
        masks, out, _placements(window, masks), strict=True
    ):
        across = _nearest(near[0], near[1], place[1] - place[0])
        down = _nearest(near[2], near[3], place[3] - place[2])
        inside = output[place[2] : place[3], place[0] : place[1]]
        inside[:] = mask[down].take(across[::-1] if mirrored else across, axis=1)
    return out


def _nearest(start: int, stop: int, count: int) -> np.ndarray:
    """Return the source pixel under the centre of each of `count` pixels; a tie: the latter."""
    return start + (2 * np.arange(count) + 1) * (stop - start) // max(2 * count, 1)


def _seen(first: Window, then: Window, shape: Shape) -> np.ndarray | None:
    """Return what `then` may show of the source: where it looks too far, what `first` shows."""
    height, width = shape[:2]
    whole = np.tile(np.array([0, width, 0, height]), (len(first.x), 1))  # (N, 4)
    before = whole if first.seen is None else first.seen
    far_x = (then.x < 0) | (then.x + then.width > width)
    far_y = (then.y < 0) | (then.y + then.height > height)
    if first.seen is None and not (far_x.any() or far_y.any()):
        return None
    far = np.stack([far_x, far_x, far_y, far_y], 1)
    right, lower = first.x + first.width, first.y + first.height
    low = np.maximum(before[:, ::2], np.stack([first.x, first.y], 1))
    high = np.minimum(before[:, 1::2], np.stack([right, lower], 1))
    frame = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], 1)
    return np.where(far, frame, before)


def _along(
    start: np.ndarray, length: np.ndarray, inner: np.ndarray, inner_length: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return start and length, along one axis, of the inner interval of an interval."""
    scale = length / size
    left, right = start + inner * scale, start + (inner + inner_length) * scale
    near, far = np.rint(left), np.rint(right)
    # Both edges on one pixel boundary: show the pixel in which the interval begins.
    near = np.where(far > near, near, np.floor(left)).astype(np.int64)
    return near, np.maximum(far.astype(np.int64) - near, 1)


def _render(
    source: np.ndarray,
    target: np.ndarray,
    window: Window | None,
    *,
    table: np.ndarray | None,
    interpolation: int,
) -> None:
    """Fill `target` row by row; both are (N, H, W) or (N, H, W, C)."""
    import cv2
    from stringzilla import translate

    resize, flip = cv2.resize, cv2.flip
    tables = [None] * len(source) if table is None else [grey.tobytes() for grey in table]
    scratch = np.empty(math.prod(source.shape[1:]), np.uint8)
    rows = zip(source, target, tables, _placements(window, source), strict=True)
    for image, output, grey, (near, place, mirrored) in rows:
        left, right, upper, lower = place
        width, height = right - left, lower - upper
        inside = output[upper:lower, left:right]
        if inside.shape != output.shape:
            output.fill(0)  # the border
            if width <= 0 or height <= 0:
                continue
        # A table wants one run of bytes, and a mirror another place than where the pixels end.
        direct = not mirrored and (grey is None or inside.shape == output.shape)
        made = inside if direct else scratch[: inside.size].reshape(inside.shape)
        shown = image[near[2] : near[3], near[0] : near[1]]
        if shown.shape != made.shape:
            resize(shown, (width, height), dst=made, interpolation=interpolation)
        elif grey is None and mirrored:
            made = shown
        else:
            made[:] = shown
        if grey is not None:
            translate(made.reshape(-1).data, grey, inplace=True)
        if mirrored:
            flip(made, 1, dst=inside)
        elif not direct:
            inside[:] = made


def _placements(
    window: Window | None, source: np.ndarray
) -> Iterator[tuple[Rectangle, Rectangle, bool]]:
    """Yield for each row the rectangle of the source, where it goes, and whether mirrored."""
    size, height, width = source.shape[:3]
    if window is None:
        whole = (0, width, 0, height)
        return iter([(whole, whole, False)] * size)
    if np.any(window.width < 1) or np.any(window.height < 1):
        raise ValueError("a window must be at least one pixel wide and high")
    seen = np.array([[0, width, 0, height]]) if window.seen is None else window.seen
    x_near, x_place = _visible(window.x, window.width, width, seen[:, :2])
    y_near, y_place = _visible(window.y, window.height, height, seen[:, 2:])
    left, right = x_place
    mirrored = np.asarray(window.mirrored, bool)
    x_place = np.where(mirrored, width - right, left), np.where(mirrored, width - left, right)
    near = zip(*(edge.tolist() for edge in (*x_near, *y_near)), strict=True)
    place = zip(*(edge.tolist() for edge in (*x_place, *y_place)), strict=True)
    return zip(near, place, mirrored.tolist(), strict=True)


Edges = tuple[np.ndarray, np.ndarray]


def _visible(
    start: np.ndarray, length: np.ndarray, size: int, seen: np.ndarray
) -> tuple[Edges, Edges]:
    """Return, along one axis, the edges of what a window shows, in the source and in the output.

    seen: (N or 1, 2), the edges of what may be shown of the source.
    Edges in the output are rounded to whole pixels, halves outwards, so that a mirrored window
    gives the mirrored place.
    """
    near = np.maximum(start, seen[:, 0])
    far = np.maximum(np.minimum(start + length, seen[:, 1]), near)
    left = -((length - 2 * (near - start) * size) // (2 * length))
    right = (2 * (far - start) * size + length) // (2 * length)
    return (near, far), (left, np.where(far > near, right, left))
