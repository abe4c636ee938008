"""Keypoints say how one image lies in another, mirrored or not."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from augkit.ingestion import keypoints
from augkit.ingestion.keypoints import Keypoints, proposals


def blobs(seed):
    """Return a small scan-like texture, float32 (96, 96) in 0..255."""
    rng = np.random.default_rng(seed)
    mixed = sum(gaussian_filter(rng.normal(size=(96, 96)), s) * s for s in (1, 2, 4))
    return np.clip(128 + 60 * mixed, 0, 255).astype(np.float32)


def window(image, width, height, x=8, y=4):
    part = Image.fromarray(image[y : y + height, x : x + width])
    return np.asarray(part.resize((96, 96), Image.Resampling.BICUBIC))


def found(*images):
    points = Keypoints.empty(len(images))
    for index, image in enumerate(images):
        points.find(index, image)
    return points


def proposed(points, known=0, skip=()):
    with ThreadPoolExecutor(2) as pool:
        return list(proposals(points, known=known, skip=np.array(skip, np.int64), pool=pool))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_crop_is_proposed_with_its_size(mirrored):
    crop = window(blobs(0), 64, 76)
    crop = crop[:, ::-1] if mirrored else crop
    (only,) = proposed(found(blobs(0), blobs(1), np.ascontiguousarray(crop), blobs(2)))
    assert (only.first, only.second, only.mirrored) == (0, 2, mirrored)
    assert only.width == pytest.approx(96 / 64, rel=0.04)
    assert only.height == pytest.approx(96 / 76, rel=0.04)


def test_a_whole_is_proposed_to_its_crop_with_the_inverse_size():
    (only,) = proposed(found(window(blobs(0), 64, 76), blobs(0)))
    assert only.width == pytest.approx(64 / 96, rel=0.04)


def test_different_images_are_not_proposed():
    assert proposed(found(*map(blobs, range(12)))) == []


def test_known_and_skipped_pairs_are_not_proposed():
    points = found(blobs(0), blobs(0), blobs(1), blobs(0))
    pairs = {(p.first, p.second) for p in proposed(points) if not p.mirrored}
    assert pairs == {(0, 1), (0, 3), (1, 3)}
    assert {(p.first, p.second) for p in proposed(points, known=2)} == {(0, 3), (1, 3)}
    assert {(p.first, p.second) for p in proposed(points, skip=[1, 3])} == {(1, 3)}
    assert proposed(points, known=4) == []


def test_images_without_structure_have_no_keypoints():
    points = found(np.full((96, 96), 9, np.float32), np.zeros((96, 96), np.float32))
    assert points.counts.tolist() == [0, 0]
    assert proposed(points) == []


def test_the_descriptors_of_a_mirrored_image_are_those_of_the_image_rearranged():
    image = blobs(3)
    points = found(image, np.ascontiguousarray(image[:, ::-1]))
    here, there = (points.places[i, : points.counts[i]].astype(float) for i in (0, 1))
    mirrored = np.stack([95 - there[:, 0], there[:, 1], there[:, 2]], axis=1)
    far = np.abs(here[:, None] - mirrored).max(2)
    near = np.flatnonzero(far.min(1) < 0.8)
    assert len(near) > 20
    ours = points.descriptors[0, near].astype(float) * keypoints._MIRROR
    theirs = points.descriptors[1, far.argmin(1)[near]].astype(float)
    alike = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert np.median(alike) > 0.99


def test_the_cosines_of_a_descriptor_keep_its_length():
    turn = keypoints._cosines()
    np.testing.assert_allclose(turn @ turn.T, np.eye(128), atol=1e-5)
