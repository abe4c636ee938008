import numpy as np
import pytest

from augkit import distances as module
from augkit.descriptors import LEAST_SPREAD, describe
from augkit.distances import class_distances, kid, standardised, undertrained
from augkit.testing import phantoms


def drawn(n, d, seed, mean=0.0):
    return (np.random.default_rng(seed).normal(size=(n, d)) + mean).astype(np.float32)


def by_hand(a, b):
    """Return equation 4 of Binkowski et al. 2018, term by term."""

    def kernel(x, y):
        return (sum(float(u) * float(v) for u, v in zip(x, y, strict=True)) / len(x) + 1) ** 3

    m, n = len(a), len(b)
    first = sum(kernel(a[i], a[j]) for i in range(m) for j in range(m) if i != j)
    second = sum(kernel(b[i], b[j]) for i in range(n) for j in range(n) if i != j)
    between = sum(kernel(x, y) for x in a for y in b)
    return first / (m * (m - 1)) + second / (n * (n - 1)) - 2 * between / (m * n)


@pytest.fixture(scope="module")
def sets():
    """Two independent sets of phantoms as standardised features, and their labels."""
    (real, _, labels), (made, _, _) = (
        phantoms(30, height=80, width=96, seed=s, difficulty=0.2) for s in (0, 1)
    )
    features = describe(real)
    return standardised(features, features), standardised(describe(made), features), labels


def distances(sets, labels):
    real, made, real_labels = sets
    return class_distances(made, labels, real, real_labels=real_labels, n_classes=3)


@pytest.mark.parametrize(("m", "n", "d"), [(2, 2, 1), (5, 9, 4), (12, 7, 30)])
def test_the_distance_is_that_of_the_paper(m, n, d):
    a, b = drawn(m, d, 1), drawn(n, d, 2, mean=0.5)
    assert kid(a, b) == pytest.approx(by_hand(a, b), rel=1e-9, abs=1e-12)


def test_the_size_of_a_block_changes_nothing(monkeypatch):
    a, b = drawn(30, 6, 1), drawn(23, 6, 2)
    whole = kid(a, b)
    monkeypatch.setattr(module, "_ROWS", 7)
    assert kid(a, b) == pytest.approx(whole, rel=1e-12)


def test_sets_of_one_kind_are_zero_apart_on_average_and_others_are_not():
    same = [kid(drawn(20, 5, 2 * s), drawn(15, 5, 2 * s + 1)) for s in range(300)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * error and min(same) < 0
    other = [kid(drawn(20, 5, 2 * s), drawn(15, 5, 2 * s + 1, mean=0.5)) for s in range(30)]
    assert np.mean(other) > 30 * error


def test_the_order_of_the_sets_and_of_their_rows_does_not_matter():
    a, b = drawn(11, 4, 1), drawn(8, 4, 2)
    assert kid(a, b) == pytest.approx(kid(b[::-1], a[::-1]), rel=1e-9)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (1, 5), (5, 1), (0, 0)])
def test_sets_of_less_than_two_rows_have_no_distance(m, n):
    assert np.isnan(kid(drawn(m, 3, 1), drawn(n, 3, 2)))


def test_generated_phantoms_are_nearest_to_their_own_class_and_noise_is_far(sets):
    real, _, labels = sets
    found = distances(sets, labels)
    assert found.shape == (3, 3) and found.dtype == np.float64
    others = found[~np.eye(3, dtype=bool)].reshape(3, 2)
    assert (np.diagonal(found) < others.min(1) - 0.05).all()
    assert undertrained(found) == ()
    noise = np.random.default_rng(0).integers(0, 256, (90, 80, 96, 1), np.uint8)
    originals = describe(phantoms(30, height=80, width=96, difficulty=0.2)[0])
    assert kid(standardised(describe(noise), originals), real) > 10 * others.max()


def test_class_distances_are_the_distances_of_the_classes(sets):
    real, made, labels = sets
    found = distances(sets, labels)
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(kid(made[labels == i], real[labels == j]), rel=1e-9)


def test_classes_that_are_made_in_place_of_each_other_are_undertrained(sets):
    assert undertrained(distances(sets, (sets[2] + 1) % 3)) == (0, 1, 2)


def test_most_classes_of_shuffled_images_are_undertrained(sets):
    shuffled = [np.random.default_rng(seed).permutation(sets[2]) for seed in range(20)]
    counts = [len(undertrained(distances(sets, labels))) for labels in shuffled]
    assert np.mean(counts) > 1.5, "two of three are expected: one real class is nearest to all"


def test_only_the_class_that_was_not_learned_is_undertrained(sets):
    labels = sets[2].copy()
    labels[labels == 2] = -1  # nothing was made of it but images of the first
    labels[np.flatnonzero(labels == 0)[:10]] = 2
    assert undertrained(distances(sets, labels)) == (2,)


def test_a_class_of_less_than_two_images_has_no_distance_and_is_not_judged(sets):
    labels = sets[2].copy()
    labels[labels == 1] = 0
    labels[0] = 1
    found = distances(sets, labels)
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()
    assert 1 not in undertrained(found)
    real, made, real_labels = sets
    found = class_distances(made, real_labels, real, real_labels=labels, n_classes=3)
    assert np.isnan(found[:, 1]).all() and np.isfinite(found[:, [0, 2]]).all()


def test_a_class_is_undertrained_where_another_is_as_near():
    nan = np.nan
    assert undertrained(np.array([[1.0, 1.0], [3.0, 2.0]])) == (0,)
    assert undertrained(np.array([[1.0, nan, 0.5], [nan] * 3, [nan, nan, 1.0]])) == (0,)
    assert undertrained(np.array([[5.0]])) == ()
    assert undertrained(np.empty((0, 0))) == ()


def test_standardised_real_features_have_mean_zero_and_spread_one():
    real = drawn(200, 4, 1) * [1, 5, 100, 0.2] + [0, 3, -50, 1]
    found = standardised(real, real)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(0), 1)


def test_a_feature_that_is_constant_in_the_real_images_keeps_its_size():
    real = np.full((10, 1), 0.3, np.float32)
    found = standardised(np.array([[0.3], [0.8]], np.float32), real)
    np.testing.assert_allclose(found, [[0], [0.5 / LEAST_SPREAD]], atol=1e-4)
