"""Windows and tables: what is shown, where it lands, and what stays black."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.interfaces import Window
from augkit.windows import compose, compose_tables, render, render_masks

SIZES = [(1, 1), (1, 7), (7, 1), (2, 3), (40, 48), (31, 53)]


def window(*rows, mirrored=False, exact=False):
    x, y, width, height = np.array(rows, np.int64).T
    return Window(x, y, width, height, np.broadcast_to(mirrored, len(rows)), exact)


def random_windows(rng, n, shape, *, low=0.5, high=1.6):
    def along(size):
        length = np.maximum(1, rng.integers(int(low * size), int(high * size) + 2, n))
        return rng.integers(-size // 2, size // 2 + 1, n), length

    (x, width), (y, height) = along(shape[1]), along(shape[0])
    return Window(x, y, width, height, rng.random(n) < 0.5)


def noise(n, height, width, channels=1):
    return np.random.default_rng(0).integers(1, 256, (n, height, width, channels), np.uint8)


def resampled(line, start, length):
    """One axis in plain float64: the values of `line` under the window, NaN on the border."""
    size = len(line)
    near, far = max(start, 0), min(start + length, size)
    out = np.full((size, *line.shape[1:]), np.nan)
    if far <= near:
        return out
    left = math.ceil((near - start) * size / length - 0.5)
    right = math.floor((far - start) * size / length + 0.5)
    for i in range(left, right):
        at = (i + 0.5 - left) * (far - near) / (right - left) - 0.5 + near
        at = min(max(at, near), far - 1)
        below = min(math.floor(at), far - 1)
        above = min(below + 1, far - 1)
        out[i] = line[below] + (at - below) * (line[above].astype(float) - line[below])
    return out


def reference(image, x, y, width, height, mirrored):
    rows = resampled(image.astype(float), y, height)
    both = resampled(rows.swapaxes(0, 1), x, width).swapaxes(0, 1)
    return both[:, ::-1] if mirrored else both


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_rendering_agrees_with_plain_bilinear_interpolation(size, channels, exact):
    images = noise(40, *size, channels)
    windows = random_windows(np.random.default_rng(1), 40, size)
    windows = Window(*list(vars(windows).values())[:5], exact)
    made = render(images, windows, None)
    assert made.shape == images.shape
    assert made.dtype == np.uint8
    for i, image in enumerate(images):
        fields = (windows.x, windows.y, windows.width, windows.height, windows.mirrored)
        expected = reference(image, *(field[i].item() for field in fields))
        border = np.isnan(expected)
        assert (made[i][border] == 0).all()
        # OpenCV interpolates in fixed point, with coarser weights where it is bit-stable.
        error = np.abs(made[i][~border] - expected[~border]).max(initial=0)
        assert error <= (1.5 if exact else 1)


def test_the_border_stays_black_whatever_the_table_says():
    images = noise(2, 40, 48, 3)
    white = np.full((2, 256), 255, np.uint8)
    made = render(images, window((-6, -5, 60, 50), (-6, -5, 60, 50), mirrored=[False, True]), white)
    inside = np.zeros((40, 48), bool)
    inside[4:36, 5:43] = True
    assert (made[0][inside] == 255).all()
    assert (made[0][~inside] == 0).all()
    assert (made[1] == made[0][:, ::-1]).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_the_whole_image_is_copied_exactly_and_mirrored_exactly(size, channels):
    images = noise(2, *size, channels)
    whole = (0, 0, size[1], size[0])
    made = render(images, window(whole, whole, mirrored=[False, True]), None)
    assert (made[0] == images[0]).all()
    assert (made[1] == images[1][:, ::-1]).all()
    assert not np.shares_memory(made, images)
    assert (render(images, None, None) == images).all()


def test_a_shifted_window_moves_pixels_without_interpolation():
    images = noise(1, 10, 12)
    made = render(images, window((3, -2, 12, 10)), None)
    assert (made[0, 2:, :9] == images[0, :8, 3:]).all()
    assert made[0, :2].max() == 0
    assert made[0, :, 9:].max() == 0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_window_that_misses_the_image_is_black(mirrored):
    images = noise(6, 40, 48)
    windows = window(
        (48, 0, 48, 40),
        (-48, 0, 48, 40),
        (0, 400, 48, 40),
        (-90, 0, 48, 40),
        (-101, -3, 96, 7),  # its end would fall on half an output pixel
        (-24_000, -20_000, 48_000, 40_000),  # the image shrinks to a speck
        mirrored=mirrored,
    )
    made = render(images, windows, np.full((6, 256), 255, np.uint8))
    moved = render_masks(np.full((6, 40, 48), 255, np.uint8), windows)
    for out in (made, moved):
        assert out[:5].max() == 0
        assert (out[5] > 0).sum() <= 4


def test_an_empty_window_and_a_missing_table_are_refused():
    images = noise(2, 4, 4)
    with pytest.raises(ValueError, match="at least one pixel"):
        render(images, window((0, 0, 4, 4), (0, 0, 0, 4)), None)
    with pytest.raises(ValueError, match=r"need tables of shape \(2, 256\)"):
        render(images, None, np.zeros((3, 256), np.uint8))
    with pytest.raises(ValueError, match="shorter"):
        render(images, window((0, 0, 4, 4)), None)


def test_no_rows_give_no_rows():
    made = render(
        np.zeros((0, 4, 5, 1), np.uint8), random_windows(np.random.default_rng(0), 0, (4, 5)), None
    )
    assert made.shape == (0, 4, 5, 1)


def test_a_table_is_looked_up_grey_level_by_grey_level():
    images = noise(3, 9, 8, 3)
    tables = np.random.default_rng(3).integers(0, 256, (3, 256), np.uint8)
    made = render(images, None, tables)
    for i in range(3):
        assert (made[i] == tables[i][images[i]]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_results_depend_neither_on_the_block_nor_on_threads_nor_on_the_layout(channels):
    images = noise(24, 120, 144, 3)[..., :channels]
    images.flags.writeable = False
    before = images.copy()
    rng = np.random.default_rng(4)
    windows = random_windows(rng, 24, (120, 144))
    tables = rng.integers(0, 256, (24, 256), np.uint8)
    whole = render(images, windows, tables)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1 if threads > 1 else 4)
        for i in range(24):
            one = [field[i : i + 1] for field in list(vars(windows).values())[:5]]
            alone = render(before[i : i + 1], Window(*one), tables[i : i + 1])
            assert (alone[0] == whole[i]).all()
    finally:
        cv2.setNumThreads(threads)
    assert (images == before).all()


def test_masks_stay_binary_and_move_like_images():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:120, :144]
    ovals = [np.hypot((x - 60 - i % 9) / 40, (y - 50) / 30) < 1 for i in range(30)]
    masks = np.array(ovals, np.uint8) * 255
    before = masks.copy()
    windows = random_windows(rng, 30, (120, 144), low=0.7, high=1.4)
    moved = render_masks(masks, windows)
    images = render(masks[..., None], windows, None)[..., 0]
    assert set(np.unique(moved)) <= {0, 255}
    assert (masks == before).all()
    for mask, image in zip(moved > 0, images > 127, strict=True):
        assert (mask & image).sum() >= 0.97 * (mask | image).sum() > 0


def test_masks_are_centred_when_they_are_enlarged():
    mask = np.zeros((1, 31, 31), np.uint8)
    mask[0, 13:18, 13:18] = 255
    moved = render_masks(mask, window((11, 11, 9, 9)))
    assert (moved == moved[:, ::-1, ::-1]).all()
    # OpenCV's centred rule where no pixel lies on a tie; its plain INTER_NEAREST is shifted.
    exact, shifted = (
        cv2.resize(mask[0, 11:20, 11:20], (31, 31), interpolation=rule)
        for rule in (cv2.INTER_NEAREST_EXACT, cv2.INTER_NEAREST)
    )
    assert (moved[0] == exact).all()
    assert (moved[0] != shifted).any()


def test_masks_of_every_size_keep_what_the_window_shows():
    for size in SIZES:
        masks = np.full((40, *size), 255, np.uint8)
        windows = random_windows(np.random.default_rng(8), 40, size)
        assert (
            render_masks(masks, windows) == render(masks[..., None], windows, None)[..., 0]
        ).all()


def test_tables_compose_like_functions():
    rng = np.random.default_rng(6)
    first, then = rng.integers(0, 256, (2, 5, 256), np.uint8)
    both = compose_tables(first, then)
    assert both.dtype == np.uint8
    for i in range(5):
        assert [int(v) for v in both[i]] == [int(then[i][first[i][g]]) for g in range(256)]


def test_composing_with_the_whole_image_changes_nothing_but_the_mirror():
    rng = np.random.default_rng(7)
    some = random_windows(rng, 50, (40, 48))
    for mirrored in (False, True):
        whole = window(*[(0, 0, 48, 40)] * 50, mirrored=mirrored)
        after = compose(some, whole, (40, 48, 1))
        assert (after.x == some.x).all()
        assert (after.width == some.width).all()
        assert (after.mirrored == (some.mirrored ^ mirrored)).all()
        before = compose(whole, some, (40, 48, 1))
        assert (before.x == (48 - some.x - some.width if mirrored else some.x)).all()
        assert (before.y == some.y).all()


def test_composing_is_exact_if_either_window_is():
    one, other = window((0, 0, 4, 4)), window((0, 0, 4, 4), exact=True)
    assert compose(one, other, (4, 4, 1)).exact
    assert compose(other, one, (4, 4, 1)).exact
    assert not compose(one, one, (4, 4, 1)).exact


intervals = st.tuples(st.integers(-300, 300), st.integers(1, 600), st.booleans())


@settings(max_examples=300, deadline=None)
@given(first=intervals, then=intervals, size=st.integers(1, 300), at=st.floats(0, 1))
def test_composing_agrees_with_one_window_after_the_other(first, then, size, at):
    def source(one, position):
        start, length, mirrored = one
        position = size - position if mirrored else position
        return start + position * length / size

    def rows(one):
        return window((one[0], 0, one[1], size), mirrored=one[2])

    both = compose(rows(first), rows(then), (size, size, 1))
    realised = (both.x[0].item(), both.width[0].item(), bool(both.mirrored[0]))
    expected = source(first, source(then, at * size))
    assert abs(source(realised, at * size) - expected) <= 1
    assert both.y[0] == 0
    assert both.height[0] == size
