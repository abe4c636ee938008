"""Flip, brightness, scale and zoom against their formulas, written out independently."""

import subprocess
import sys

import numpy as np
import pytest
from augkit_traditional import Brightness, Flip, Scale, Zoom, register_augmenters

from augkit import options
from augkit.errors import OptionError

SIZES = [(1, 1), (1, 6), (6, 1), (2, 2), (3, 5), (160, 192), (61, 47)]
ALL = [Flip(), Brightness(), Scale(), Zoom(), Scale(exact=True), Zoom(exact=True)]


def planned(augmenter, n, shape, seed=0):
    return augmenter.plan(np.zeros(n, np.int64), shape, np.random.default_rng(seed))


def applied(augmenter, images, seed=0):
    params = planned(augmenter, len(images), images.shape[1:], seed)
    return augmenter.apply(images, np.zeros(len(images), np.int64), params), params


def noise(n, height, width, channels=1, *, low=1):
    return np.random.default_rng(9).integers(low, 256, (n, height, width, channels), np.uint8)


def waves():
    """A smooth picture of 120 x 144, 4 grey levels a pixel at most, also as a function."""

    def at(x, y):
        return 128 + 60 * np.sin(x / 23 + 1) + 50 * np.cos(y / 19 + x / 70)

    y, x = np.mgrid[:120, :144]
    return at, np.rint(at(x, y)).astype(np.uint8)[None, :, :, None]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("augmenter", ALL, ids=repr)
def test_every_size_and_channel_count_works_and_the_input_is_kept(augmenter, size, channels):
    images = noise(7, *size, channels)
    before = images.copy()
    made, params = applied(augmenter, images)
    assert made.shape == images.shape
    assert made.dtype == np.uint8
    assert not np.shares_memory(made, images)
    assert (images == before).all()
    for i in range(7):
        alone = augmenter.apply(images[i : i + 1], np.zeros(1, np.int64), params[i : i + 1])
        assert (alone[0] == made[i]).all()


@pytest.mark.parametrize("augmenter", ALL, ids=repr)
def test_the_same_seed_plans_the_same_and_another_seed_differs(augmenter):
    one, same, other = (planned(augmenter, 20, (40, 48, 1), seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one == other).all() == augmenter.deterministic


def test_flip_is_an_exact_mirror():
    images = noise(5, 33, 47, 3)
    made, params = applied(Flip(), images)
    assert (made == images[:, :, ::-1]).all()
    assert params.dtype.names == ("mirrored",)
    assert params["mirrored"].all()
    assert Flip.deterministic


def test_brightness_follows_its_formula():
    images = noise(6, 5, 50, 1, low=0)
    made, params = applied(Brightness((0.5, 1.7), (-0.2, 0.2)), images)
    for image, out, (gain, shift) in zip(images, made, params.tolist(), strict=True):
        for grey, new in zip(image.ravel().tolist(), out.ravel().tolist(), strict=True):
            assert new == min(max(round(gain * grey + shift * 255), 0), 255)


def test_brightness_rounds_so_that_it_does_not_darken():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (400, 1, 1))[..., None]
    made, params = applied(Brightness(), ramp)
    wanted = np.minimum(ramp * params["gain"][:, None, None, None], 255)
    assert abs((made - wanted).mean()) < 0.02


def test_brightness_by_default_changes_the_gain_alone_within_its_range():
    params = planned(Brightness(), 2000, (4, 4, 1))
    assert (params["shift"] == 0).all()
    assert 0.8 <= params["gain"].min() < 0.81
    assert 1.19 < params["gain"].max() <= 1.2


@pytest.mark.parametrize("size", [(160, 192), (61, 47), (500, 500)])
def test_scale_realises_a_window_within_0_7_pixels_and_keeps_the_centre(size):
    params = planned(Scale(), 3000, (*size, 1))
    errors = []
    for start, length, side in (("y", "height", size[0]), ("x", "width", size[1])):
        first, last = params[start].astype(float), params[start].astype(float) + params[length]
        assert (first + last == side).all()
        continuous = side / params["factor"]
        errors.append(first - (side - continuous) / 2)
        assert np.allclose(errors[-1], (side + continuous) / 2 - last)
    assert np.hypot(*errors).max() <= 0.7072
    assert (params["width"] > size[1]).any()
    assert (params["width"] < size[1]).any()


@pytest.mark.parametrize("size", [(160, 192), (61, 47), (500, 500)])
def test_zoom_realises_a_window_within_0_7_pixels_of_its_side_and_inside(size):
    params = planned(Zoom(), 3000, (*size, 1))
    for start, length, side in (("y", "height", size[0]), ("x", "width", size[1])):
        first, count = params[start].astype(float), params[length]
        assert (first >= 0).all()
        assert (first + count <= side).all()
        # Two edges of at most half a pixel each.
        assert np.abs(count - params["side"] * side).max() <= 1
        room = side - params["side"] * side
        assert abs((first / np.maximum(room, 1)).mean() - 0.5) < 0.03
    assert 0.7 <= params["side"].min() < 0.71
    assert 0.99 < params["side"].max() <= 1


def test_zoom_rounds_each_edge_to_the_nearest_pixel():
    class Fixed:
        def uniform(self, low, high, n):
            return np.full(n, 0.77)

        def random(self, shape):
            return np.linspace(0, 1, shape[0] * shape[1]).reshape(shape)

    params = Zoom().plan(np.zeros(50, np.int64), (61, 47, 1), Fixed())
    across, down = Fixed().random((2, 50))
    for start, length, side, place in (("y", "height", 61, down), ("x", "width", 47, across)):
        left = place * side * 0.23
        assert np.abs(params[start] - left).max() <= 0.5 + 1e-9
        assert np.abs(params[start] + params[length] - left - 0.77 * side).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("exact", [False, True])
def test_scale_shows_the_picture_scaled_about_its_centre(exact):
    at, image = waves()
    made, params = applied(Scale(exact=exact), np.repeat(image, 30, 0))
    y, x = np.mgrid[:120, :144].astype(float)
    for out, factor in zip(made[..., 0], params["factor"], strict=True):
        sx, sy = (x - 71.5) / factor + 71.5, (y - 59.5) / factor + 59.5
        inside = (sx >= 1) & (sx <= 142) & (sy >= 1) & (sy <= 118)
        outside = (sx < -1.5) | (sx > 144.5) | (sy < -1.5) | (sy > 120.5)
        error = np.abs(out - at(sx, sy))[inside]
        assert error.max() < 6
        assert error.mean() < 1.5
        assert (out[outside] == 0).all()


def test_the_centre_of_a_scaled_image_does_not_move():
    spot = np.zeros((40, 61, 61, 1), np.uint8)
    spot[:, 30, 30] = 255
    spot[:, 27:34, 27:34] = 200
    made, _ = applied(Scale(), spot)
    weight = made[..., 0].astype(float)
    y, x = np.mgrid[:61, :61]
    for image in weight:
        assert (image * x).sum() / image.sum() == pytest.approx(30, abs=0.02)
        assert (image * y).sum() / image.sum() == pytest.approx(30, abs=0.02)


@pytest.mark.parametrize("exact", [False, True])
def test_zoom_shows_its_window_enlarged_to_the_whole_image_without_a_border(exact):
    at, image = waves()
    made, params = applied(Zoom(exact=exact), np.repeat(image, 30, 0))
    y, x = np.mgrid[:120, :144].astype(float)
    for out, row in zip(made[..., 0], params, strict=True):
        sx = (x + 0.5) * row["width"] / 144 - 0.5 + row["x"]
        sy = (y + 0.5) * row["height"] / 120 - 0.5 + row["y"]
        assert np.abs(out - at(sx, sy)).max() < 3
    assert made.min() > 0


@pytest.mark.parametrize("augmenter", [Flip(), Brightness(), Scale(), Zoom()], ids=repr)
def test_a_mask_still_covers_its_oval(augmenter):
    y, x = np.mgrid[:120, :144]
    oval = np.hypot((x - 75) / 40, (y - 50) / 28) < 1
    images = np.tile(np.where(oval, 220, 40).astype(np.uint8)[None, :, :, None], (20, 1, 1, 1))
    masks = np.tile(np.where(oval, 255, 0).astype(np.uint8), (20, 1, 1))
    made, params = applied(augmenter, images)
    moved = augmenter.apply_masks(masks, params)
    assert set(np.unique(moved)) == {0, 255}
    for image, mask in zip(made[..., 0] > 130, moved > 0, strict=True):
        assert (image & mask).sum() >= 0.97 * (image | mask).sum()


def test_a_factor_or_side_of_one_copies_exactly():
    images = noise(3, 20, 24, 3)
    for augmenter in (Scale((1, 1)), Zoom((1, 1)), Brightness((1, 1))):
        assert (applied(augmenter, images)[0] == images).all()


@pytest.mark.parametrize(
    ("plugin", "key", "value", "message"),
    [
        (Scale, "factor_range", "0,1", "at least 0.01"),
        (Scale, "factor_range", "1.2,0.8", "smaller end comes first"),
        (Zoom, "side_range", "0.7,1.1", "at most 1"),
        (Brightness, "gain_range", "-1,1", "at least 0.01"),
        (Brightness, "shift_range", "0,2", "at most 1"),
        (Flip, "p", "0.5", "flip has no option 'p': it takes none"),
    ],
)
def test_a_bad_option_is_named(plugin, key, value, message):
    with pytest.raises(OptionError, match=message):
        options.build(plugin, {key: value})


def test_extreme_options_still_give_windows_that_show_something():
    for size in SIZES:
        images = noise(20, *size)
        for plugin, key, ends in ((Scale, "factor_range", "50,100"), (Zoom, "side_range", "0.01")):
            ends = ends if "," in ends else f"{ends},{ends}"
            made, params = applied(options.build(plugin, {key: ends}), images)
            assert made.min() > 0
            assert params["width"].min() >= 1
        assert applied(Scale((0.01, 0.02)), images)[0].shape == images.shape


def test_all_four_are_registered_and_declare_their_options_well():
    assert [plugin.name for plugin in register_augmenters()] == [
        "flip",
        "brightness",
        "scale",
        "zoom",
    ]
    for plugin in register_augmenters():
        assert options.problems(plugin) == []
        assert plugin.family == "traditional"


def test_importing_and_planning_leave_opencv_and_torch_unimported():
    code = (
        "import sys, numpy as np, augkit_traditional as a, augkit.chain;"
        "[p().plan(np.zeros(2, int), (4, 4, 1), np.random.default_rng(0))"
        " for p in a.register_augmenters()];"
        "assert not {'cv2', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
