"""Chains: one interpolation, one table, the border last; strangers in between."""

from dataclasses import dataclass

import cv2
import h5py
import numpy as np
import pytest
from augkit_traditional import Brightness, Flip, Scale, Zoom

from augkit.chain import Chain, chain
from augkit.errors import OptionError, PluginFailed
from augkit.interfaces import Augmenter

LABELS = np.zeros(20, np.int64)


@dataclass
class Blur(Augmenter):
    """Neither a window nor a table: works on pixels, moves nothing, has masks."""

    name = "blur"

    def apply(self, images, labels, params):
        return np.stack([cv2.blur(image, (3, 3)).reshape(image.shape) for image in images])

    def apply_masks(self, masks, params):
        return masks


@dataclass
class Swirl(Augmenter):
    """Says nothing about masks and plans nothing."""

    name = "swirl"
    deterministic = True

    def plan(self, labels, shape, rng):
        return np.empty(len(labels), np.dtype([]))

    def apply(self, images, labels, params):
        assert len(params) == len(images)
        return np.roll(images, 3, axis=2)


@dataclass
class Broken(Augmenter):
    name = "broken"

    def apply(self, images, labels, params):
        return images / 255


@dataclass
class Learner(Augmenter):
    name = "learner"
    family = "generative"

    def fit(self, train, context):
        pass


def four():
    return chain([Flip(), Brightness(), Scale(), Zoom()])


def speckle(n=20, height=96, width=112, channels=1):
    raw = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), np.uint8)
    return np.stack([cv2.GaussianBlur(i, (0, 0), 0.8).reshape(i.shape) for i in raw]) // 2 + 64


def run(augmenter, images, seed=0):
    rng = np.random.default_rng(seed)
    params = augmenter.plan(np.zeros(len(images), np.int64), images.shape[1:], rng)
    return augmenter.apply(images, np.zeros(len(images), np.int64), params), params


def one_after_the_other(made, images, params):
    for member in made.members:
        images = member.apply(images, LABELS, params[member.name])
    return images


def sharpness(images):
    inner = images[:, 20:-20, 20:-20, 0]
    return np.array([cv2.Laplacian(image, cv2.CV_64F).var() for image in inner])


def test_a_chain_is_named_after_its_members_and_one_member_is_itself():
    flip = Flip()
    assert chain([flip]) is flip
    assert four().name == "flip+brightness+scale+zoom"
    assert four().family == "traditional"
    assert not four().learns
    assert Chain.name == ""


def test_a_chain_is_deterministic_if_all_its_members_are():
    assert chain([Flip(), Swirl()]).deterministic
    assert not chain([Flip(), Zoom()]).deterministic


def test_members_that_learn_and_empty_chains_are_refused():
    with pytest.raises(OptionError, match=r"'learner' in the chain 'flip.learner'.*Use it alone"):
        chain([Flip(), Learner()])
    with pytest.raises(OptionError, match="at least one augmenter"):
        chain([])


def test_each_member_has_its_own_field_and_its_own_random_numbers():
    made = chain([Flip(), Zoom(), Scale(), Zoom()])
    _, params = run(made, speckle())
    assert params.dtype.names == ("flip", "zoom", "scale", "zoom_2")
    assert (params["zoom"]["side"] != params["zoom_2"]["side"]).all()
    child = np.random.default_rng(0).spawn(4)[1]
    assert (params["zoom"] == Zoom().plan(LABELS, (96, 112, 1), child)).all()


def test_the_plan_survives_hdf5_and_replays_the_same_pixels(tmp_path):
    made = chain([Flip(), Swirl(), Brightness(), Scale(), Zoom()])
    images = speckle()
    before, params = run(made, images)
    assert "swirl" not in params.dtype.names
    with h5py.File(tmp_path / "plan.h5", "x") as file:
        file["params"] = params
    with h5py.File(tmp_path / "plan.h5") as file:
        read = file["params"][:]
    assert (made.apply(images, LABELS, read) == before).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(96, 112), (1, 1), (1, 9), (2, 3)])
def test_every_size_works_block_by_block_and_the_input_is_kept(size, channels):
    made = chain([Flip(), Brightness(), Scale(), Blur(), Zoom()])
    images = speckle(7, *size, channels)
    before = images.copy()
    whole, params = run(made, images)
    assert whole.shape == images.shape
    assert (images == before).all()
    for rows in (slice(0, 1), slice(1, 4), slice(4, 7)):
        assert (made.apply(images[rows], LABELS[rows], params[rows]) == whole[rows]).all()


def test_the_border_is_black_whatever_brightness_does():
    images = np.full((20, 60, 80, 1), 100, np.uint8)
    for order in ([Brightness, Scale], [Scale, Brightness], [Brightness, Flip, Scale, Brightness]):
        members = [kind((0.8, 0.8)) if kind is Scale else kind() for kind in order]
        members = [Brightness((1, 1), (0.5, 0.5)) if m == Brightness() else m for m in members]
        made, _ = run(chain(members), images)
        assert (made[:, 6:-6, 8:-8] >= 228).all()
        assert made[:, :6].max() == made[:, :, :8].max() == made[:, -6:].max() == 0


def test_a_chain_is_as_sharp_as_one_warp_and_two_warps_are_not():
    images = speckle()
    made = chain([Scale((1.06, 1.2)), Zoom((0.8, 0.95))])
    fused, params = run(made, images)
    once = []
    for image, scale, zoom in zip(images, params["scale"], params["zoom"], strict=True):
        height, width = image.shape[:2]
        zx, zy = scale["width"] / width, scale["height"] / height
        warp = np.array(
            [
                [zx * zoom["width"] / width, 0, scale["x"] + zx * zoom["x"]],
                [0, zy * zoom["height"] / height, scale["y"] + zy * zoom["y"]],
            ]
        )
        warp[:, 2] += (warp[:, 0] + warp[:, 1]) * 0.5 - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        once.append(cv2.warpAffine(image, warp, (width, height), flags=flags)[..., None])
    once = np.stack(once)
    assert sharpness(fused).mean() / sharpness(once).mean() == pytest.approx(1, abs=0.02)
    twice = one_after_the_other(made, images, params)
    assert sharpness(twice).mean() < 0.85 * sharpness(once).mean()


def test_flip_and_brightness_in_a_chain_are_exactly_what_they_are_alone():
    images = speckle()
    made = chain([Brightness(), Flip(), Brightness()])
    fused, params = run(made, images)
    expected = Brightness().apply(images, LABELS, params["brightness"])[:, :, ::-1]
    expected = Brightness().apply(expected, LABELS, params["brightness_2"])
    assert (fused == expected).all()


def test_geometry_lies_where_one_member_after_the_other_would_put_it():
    y, x = np.mgrid[:96, :112]
    smooth = (128 + 60 * np.sin(x / 23) + 50 * np.cos(y / 19)).astype(np.uint8)
    images = np.repeat(smooth[None, :, :, None], 20, 0)
    made = chain([Scale(), Flip(), Zoom()])
    fused, params = run(made, images)
    slow = one_after_the_other(made, images, params)
    assert np.abs(fused.astype(int) - slow)[:, 24:-24, 24:-24].max() <= 6


def test_a_member_without_a_window_works_between_the_segments():
    images = speckle()
    made = chain([Flip(), Brightness(), Swirl(), Scale(), Zoom(), Blur()])
    whole, params = run(made, images)
    left = chain([Flip(), Brightness()]).apply(images, LABELS, params)
    right = chain([Scale(), Zoom()]).apply(np.roll(left, 3, axis=2), LABELS, params)
    covered = chain([Scale(), Zoom()]).apply_masks(np.full(images.shape[:3], 255, np.uint8), params)
    blurred = Blur().apply(right, LABELS, None)
    assert (covered == 0).any()
    assert (whole == np.where(covered[..., None] > 0, blurred, 0)).all(), "the border is black"


@pytest.mark.parametrize("order", [(Zoom, Scale), (Scale, Zoom), (Zoom, Flip, Scale)])
def test_a_border_is_where_one_after_the_other_would_have_it(order):
    images = np.full((40, 160, 192, 1), 200, np.uint8)
    labels = np.zeros(40, np.int64)
    members = [made() for made in order]
    together = chain(members)
    params = together.plan(labels, (160, 192, 1), np.random.default_rng(3))
    one_by_one = images
    for member in members:
        one_by_one = member.apply(one_by_one, labels, params[member.name])
    fused = together.apply(images, labels, params)
    assert (fused == 0).any()
    differing = ((fused > 0) != (one_by_one > 100)).mean(axis=(1, 2, 3))
    assert differing.max() < 0.03, "half a source pixel on each side, enlarged, at most"


def test_a_chain_is_a_window_and_a_table_only_if_all_members_are():
    images = speckle()
    made, shape = four(), images.shape[1:]
    _, params = run(made, images)
    assert made.as_window(params, shape).mirrored.all()
    assert made.as_lut(params).shape == (20, 256)
    assert chain([Flip(), Zoom()]).as_lut(params) is None
    assert chain([Brightness(), Brightness()]).as_window(params_of_two(), shape) is None
    other = chain([Flip(), Blur(), Brightness()])
    _, rows = run(other, images)
    assert other.as_window(rows, shape) is None
    assert other.as_lut(rows) is None


def params_of_two():
    return chain([Brightness(), Brightness()]).plan(LABELS, (4, 4, 1), np.random.default_rng(0))


def test_a_chain_in_a_chain_is_fused_as_well():
    images = speckle()
    inner = chain([Brightness(), Scale()])
    outer = chain([Flip(), inner, Zoom()])
    made, params = run(outer, images)
    flat = np.empty(20, [(n, params[n].dtype) for n in ("flip", "zoom")] + inner_fields(params))
    for name in ("flip", "zoom"):
        flat[name] = params[name]
    for name in ("brightness", "scale"):
        flat[name] = params["brightness+scale"][name]
    assert (made == four_in_that_order().apply(images, LABELS, flat)).all()


def inner_fields(params):
    inner = params["brightness+scale"]
    return [(name, inner[name].dtype) for name in inner.dtype.names]


def four_in_that_order():
    return chain([Flip(), Brightness(), Scale(), Zoom()])


@pytest.mark.parametrize(
    "members",
    [
        [Flip(), Brightness(), Scale(), Zoom()],
        [Zoom(), Brightness()],
        [Scale(), Blur(), Flip(), Zoom()],
        [Brightness(), Brightness()],
    ],
    ids=lambda members: "+".join(member.name for member in members),
)
def test_a_mask_still_covers_its_oval(members):
    y, x = np.mgrid[:120, :144]
    oval = np.hypot((x - 70) / 40, (y - 55) / 30) < 1
    images = np.tile(np.where(oval, 220, 40).astype(np.uint8)[None, :, :, None], (20, 1, 1, 1))
    masks = np.tile(np.where(oval, 255, 0).astype(np.uint8), (20, 1, 1))
    made = chain(members)
    out, params = run(made, images)
    moved = made.apply_masks(masks, params)
    assert set(np.unique(moved)) == {0, 255}
    for image, mask in zip(out[..., 0] > 125, moved > 0, strict=True):
        assert (image & mask).sum() >= 0.95 * (image | mask).sum()


def test_one_member_that_cannot_move_masks_leaves_none():
    made = chain([Flip(), Swirl(), Zoom()])
    _, params = run(made, speckle())
    assert made.apply_masks(np.zeros((20, 96, 112), np.uint8), params) is None


def test_a_member_that_breaks_the_contract_is_named():
    with pytest.raises(PluginFailed, match=r"'broken' returned float64 \(20, 96, 112, 1\)"):
        run(chain([Flip(), Broken()]), speckle())
