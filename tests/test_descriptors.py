import numpy as np
import pytest
from augkit_classifiers.linear import Linear

from augkit.descriptors import describe, outline
from augkit.interfaces import Context, extract
from augkit.testing import toy_samples

# Where each part of the features of a grey image begins and ends.
THUMBNAIL, GRADIENTS, LEVELS, PATTERNS = (
    slice(0, 256),
    slice(256, 544),
    slice(544, 672),
    slice(672, 908),
)


def ramp(across, down, shape=(96, 96)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (60 + across * x + down * y).astype(np.uint8)[None, ..., None]


def test_the_features_of_an_image_do_not_depend_on_its_neighbours():
    images = toy_samples(3, channels=3).images
    together = describe(images)
    assert together.shape == (9, 1420) and together.dtype == np.float32
    np.testing.assert_array_equal(together[4:5], describe(images[4:5]))
    assert describe(images[..., :1]).shape == (9, 908)


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 40, 3), (200, 150, 3)])
def test_any_size_of_image_is_described_by_the_same_number_of_features(shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    found = describe(images)
    assert found.shape == (2, 908 if shape[2] == 1 else 1420) and np.isfinite(found).all()


def test_a_flat_image_has_one_grey_level_and_no_gradient():
    (found,) = describe(np.full((1, 50, 60, 1), 100, np.uint8))
    np.testing.assert_allclose(found[THUMBNAIL], 100 / 255, rtol=1e-6)
    assert not found[GRADIENTS].any()
    levels = found[LEVELS].reshape(16, 8)
    np.testing.assert_array_equal(levels, np.tile(np.arange(8) == 100 // 32, (16, 1)))


@pytest.mark.parametrize(
    ("across", "down", "direction"), [(1, 0, 0), (1, 1, 2), (0, 1, 4), (0, 0, None)]
)
def test_a_ramp_has_the_gradient_of_its_direction_alone(across, down, direction):
    (found,) = describe(ramp(across, down) if direction is not None else ramp(0, 0))
    inner = found[GRADIENTS].reshape(6, 6, 8)[1:-1, 1:-1]
    expected = np.zeros(8)
    if direction is not None:
        expected[direction] = np.log1p(np.hypot(across, down))
    np.testing.assert_allclose(inner, np.broadcast_to(expected, inner.shape), atol=2e-3)


def test_the_squares_of_the_shares_in_a_cell_add_up_to_one():
    found = describe(toy_samples(2, height=80, width=96).images).astype(np.float64)
    for part, cells in ((LEVELS, 16), (PATTERNS, 4)):
        sums = np.square(found[:, part]).reshape(len(found), cells, -1).sum(-1)
        np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_the_linear_classifier_sees_exactly_these_features():
    seen = []

    def cached(key, function, samples):
        seen.append((key, extract(key, function, samples)))
        return seen[-1][1]

    train = toy_samples(4)
    Linear(C=1.0).fit(train, train, Context(0, ("benign", "malignant", "normal"), cached=cached))
    (key, features), *_ = seen
    assert key == "linear-features-1"
    np.testing.assert_array_equal(features, describe(train.images))


def test_an_outline_is_the_mean_grey_of_480_fields():
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 48, 1), np.uint8)
    (found,) = outline(image)
    fields = image[0, :, :, 0].reshape(20, 2, 24, 2).mean((1, 3)) / 255
    np.testing.assert_allclose(found, fields.ravel(), atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 40, 3), (200, 150, 3)])
def test_any_size_of_image_has_an_outline(shape):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    assert outline(images).shape == (2, 480) and outline(images).dtype == np.float32


def test_an_outline_is_blind_to_blur_and_a_description_is_not():
    from scipy.ndimage import gaussian_filter

    images = toy_samples(3, height=80, width=96).images
    blurred = np.rint(gaussian_filter(images.astype(float), (0, 1, 1, 0))).astype(np.uint8)

    def moved(features):
        real, other = features(images), features(blurred)
        return np.abs(real - other).mean() / np.abs(real - real.mean(0)).mean()

    assert moved(outline) < 0.2 < moved(describe)
