import math

import numpy as np
import pytest

from augkit.metrics import score
from augkit.stats import combine, effective_groups, interval, mean_of_fits, standard_error


def accuracy(right, groups):
    """Return value, influence of a share of right answers: what augkit.metrics gives."""
    value = right.mean()
    return value, (right - value) / len(right)


def test_the_standard_error_of_independent_rows_is_that_of_a_mean():
    right = np.random.default_rng(0).random(50) < 0.7
    value, influence = accuracy(right, None)
    expected = math.sqrt(value * (1 - value) / 49)
    assert standard_error(influence, np.arange(50)) == pytest.approx(expected)


def test_copies_of_a_group_add_no_certainty():
    right = np.random.default_rng(0).random(40) < 0.7
    once = standard_error(accuracy(right, None)[1], np.arange(40))
    thrice = standard_error(accuracy(np.repeat(right, 3), None)[1], np.repeat(np.arange(40), 3))
    assert thrice == pytest.approx(once)
    assert standard_error(accuracy(np.repeat(right, 3), None)[1], np.arange(120)) < 0.6 * once


def test_one_group_has_no_standard_error_and_its_interval_says_nothing():
    assert math.isnan(standard_error(np.array([0.1, -0.1]), np.zeros(2)))
    assert interval(0.5, math.nan, n_groups=1) == (0.0, 1.0)
    assert all(map(math.isnan, interval(math.nan, 0.1, n_groups=9)))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_interval_never_degenerates(value):
    low, high = interval(value, 0.0, n_groups=20)
    assert 0.15 < high - low < 0.25
    assert low <= value <= high and (low == 0 or high == 1)


def test_the_interval_is_wilsons_with_many_groups():
    low, high = interval(0.8, math.sqrt(0.8 * 0.2 / 100_000), n_groups=100_000)
    assert low == pytest.approx(0.8 - 1.96 * math.sqrt(0.16 / 100_000), abs=2e-5)
    low, high = interval(0.9, math.sqrt(0.09 / 30), n_groups=1e9)
    assert (low, high) == pytest.approx((0.7438, 0.9654), abs=1e-4)  # 27 of 30, Wilson 1927


def test_a_score_with_other_bounds_gets_an_interval_within_them():
    low, high = interval(0.98, 0.03, n_groups=30, bounds=(-1.0, 1.0))
    assert -1 < low < 0.95 and 0.98 < high <= 1


def test_few_groups_of_a_class_count_as_few():
    labels = np.repeat([0, 1], [90, 10])
    chances = np.eye(2)[labels]
    groups = np.concatenate([np.arange(90), 90 + np.arange(10) // 2])
    found = score(labels, chances, ("a", "b"))
    assert effective_groups(found["sensitivity:b"].weight, groups) == pytest.approx(5)
    assert effective_groups(found["sensitivity:a"].weight, groups) == pytest.approx(90)
    assert effective_groups(found["auroc"].weight, groups) == pytest.approx(1 / (1 / 90 + 1 / 5))
    n_groups = effective_groups(found["sensitivity:b"].weight, groups)
    assert interval(1.0, 0.0, n_groups=n_groups)[0] < 0.5
    assert effective_groups(np.zeros(4), np.arange(4)) == 0


def simulated(rng, n_groups, chance, kinship):
    """Return right answers and groups of 1 to 4 rows, correlated within a group."""
    sizes = rng.integers(1, 5, n_groups)
    a, b = chance * (1 - kinship) / kinship, (1 - chance) * (1 - kinship) / kinship
    groups = np.repeat(np.arange(n_groups), sizes)
    return rng.random(len(groups)) < rng.beta(a, b, n_groups)[groups], groups


@pytest.mark.parametrize("n_groups, chance", [(40, 0.75), (120, 0.7), (40, 0.93)])
def test_intervals_of_clustered_answers_cover_the_truth(n_groups, chance):
    rng, hits, naive = np.random.default_rng(1), 0, 0
    for _ in range(400):
        right, groups = simulated(rng, n_groups, chance, kinship=0.5)
        value, influence = accuracy(right, groups)
        low, high = interval(value, standard_error(influence, groups), n_groups=n_groups)
        hits += low <= chance <= high
        rows = np.arange(len(right))
        low, high = interval(value, standard_error(influence, rows), n_groups=len(right))
        naive += low <= chance <= high
    assert 0.92 <= hits / 400 <= 0.98
    assert naive / 400 < 0.92


def fits_of(rng, n_groups, n_fits, drift):
    """Return right answers (S, N) of fits that differ by `drift` on the scale of a logit."""
    ability = rng.normal(1, 1, n_groups) + rng.normal(0, drift, (n_fits, 1))
    return rng.random((n_fits, n_groups)) < 1 / (1 + np.exp(-ability))


def expected(drift):
    rng = np.random.default_rng(0)
    return fits_of(rng, 400, 4000, drift).mean()


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_intervals_of_several_fits_cover_the_truth(drift):
    rng, truth, hits, alone = np.random.default_rng(2), expected(drift), 0, 0
    for _ in range(400):
        right = fits_of(rng, 100, 5, drift)
        values = right.mean(1)
        value, influence, fits = mean_of_fits(values, (right - values[:, None]) / 100)
        error = standard_error(influence, np.arange(100))
        low, high = interval(value, error, n_groups=100, fits=fits)
        hits += low <= truth <= high
        low, high = interval(value, error, n_groups=100)
        alone += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.99
    assert drift == 0 or alone / 400 < 0.9


def test_the_shared_variance_is_not_counted_twice():
    rng, ratios = np.random.default_rng(3), []
    for _ in range(300):
        right = fits_of(rng, 100, 5, drift=0.0)
        values = right.mean(1)
        fits = mean_of_fits(values, (right - values[:, None]) / 100).fit_variance
        ratios.append((fits.between, fits.shared))
    between, shared = np.mean(ratios, axis=0)
    assert shared == pytest.approx(between, rel=0.15)


def test_the_variance_never_falls_under_that_of_groups_or_fits():
    rng = np.random.default_rng(4)
    for _ in range(50):
        right = fits_of(rng, 30, 3, drift=0.2)
        values = right.mean(1)
        _, influence, fits = mean_of_fits(values, (right - values[:, None]) / 30)
        error = standard_error(influence, np.arange(30))
        both, freedom = combine(error, 30, fits)
        assert both**2 >= max(error**2, fits.between) * (1 - 1e-12)
        assert freedom > 0


def test_a_single_fit_adds_nothing():
    value, influence, fits = mean_of_fits([0.8], np.ones((1, 4)))
    assert (value, fits.between, fits.n_fits) == (0.8, 0.0, 1)
    assert interval(value, 0.1, n_groups=9, fits=fits) == interval(value, 0.1, n_groups=9)
    assert np.array_equal(influence, np.ones(4))


def test_the_influence_of_a_difference_is_the_difference_of_influences():
    rng = np.random.default_rng(5)
    first, second = rng.random(80) < 0.8, rng.random(80) < 0.7
    together = accuracy(first, None)[1] - accuracy(second, None)[1]
    paired = np.std(first.astype(float) - second, ddof=1) / math.sqrt(80)
    assert standard_error(together, np.arange(80)) == pytest.approx(paired)


def test_two_fits_do_not_make_the_interval_the_whole_range():
    rng = np.random.default_rng(0)
    scores = (rng.random((2, 200)) < 0.97).astype(float)
    influences = (scores - scores.mean(1, keepdims=True)) / 200
    mean = mean_of_fits(scores.mean(1), influences)
    error = standard_error(mean.influence, np.arange(200))
    low, high = interval(mean.value, error, n_groups=200, fits=mean.fit_variance)
    alone = interval(mean.value, error, n_groups=200)
    assert low <= alone[0] < mean.value < high
    assert high - low < 0.15
