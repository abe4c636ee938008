"""Prints: kept in a byte a pixel, and seen small in many sizes at once."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from augkit.ingestion.prints import (
    Prints,
    coarse,
    coarse_views,
    concentration,
    fingerprints,
    views,
)

SIZES = [
    (1.0, 1.0),
    (0.92, 1.0),
    (0.71, 1.0),
    (1.0, 0.84),
    (0.84, 0.84),
    (-1.0, 1.0),
    (-0.92, 0.84),
]


@pytest.fixture(scope="module")
def prints():
    rng = np.random.default_rng(0)
    images = 120 + 150 * gaussian_filter(rng.normal(size=(6, 96, 96)), (0, 1.5, 1.5))
    return fingerprints(np.clip(images, 0, 255).astype(np.uint8)[..., None])


def kept(prints):
    stored = Prints.empty(len(prints))
    stored.put(slice(0, len(prints)), prints)
    return stored


def test_a_print_of_bytes_correlates_with_itself_and_others_as_before(prints):
    stored = kept(prints)
    assert stored.codes.nbytes == prints.nbytes / 4
    there = np.einsum("nhw,mhw->nm", prints, prints)
    here = np.einsum("nhw,mhw->nm", stored[:], stored[:])
    np.testing.assert_allclose(here, there, atol=1e-3)


def test_prints_are_taken_out_one_by_one_in_order_or_by_number(prints):
    stored = kept(prints)
    assert stored[3].dtype == stored[[3, 1]].dtype == stored[1:4].dtype == np.float32
    np.testing.assert_array_equal(stored[3], stored[[3, 1]][0])
    np.testing.assert_array_equal(stored[1:4][2], stored[3])
    assert len(stored.first(4)) == 4 and stored.first(4).codes.base is not None


def test_a_print_of_nothing_stays_nothing():
    assert not kept(np.zeros((2, 96, 96), np.float32))[:].any()


def test_small_views_of_many_prints_are_those_of_each(prints):
    together = coarse_views(prints, SIZES)
    assert together.shape == (6, len(SIZES), 48, 25)
    for one, seen in zip(prints, together, strict=True):
        np.testing.assert_allclose(seen, coarse(views(one, SIZES)), atol=2e-4)


def test_detail_in_half_of_an_image_is_twice_as_concentrated(prints):
    half = prints.copy()
    half[:, 48:] = 0
    everywhere, there = concentration(prints), concentration(half)
    assert (everywhere >= 1).all() and everywhere.max() < 1.4
    np.testing.assert_allclose(there / everywhere, 1.8, atol=0.25)
    assert concentration(np.zeros((2, 96, 96), np.float32)).tolist() == [1, 1]
