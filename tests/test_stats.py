import math

import numpy as np
import pytest

from augkit.metrics import score
from augkit.stats import (
    Mean,
    effective_groups,
    holm,
    interval,
    mean_over_fits,
    smallest_detectable,
    standard_error,
)


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


def mean_of(right, **given):
    """Return the mean over fits (S, N) of one test part, each row a group."""
    values = right.mean(1)
    influences = (right - values[:, None]) / right.shape[1]
    rows = np.arange(right.shape[1])
    given = {"n_groups": len(rows)} | given
    return mean_over_fits(values[:, None], influences[:, None], rows, **given)


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_intervals_of_several_fits_cover_the_truth(drift):
    rng, truth, hits, alone = np.random.default_rng(2), expected(drift), 0, 0
    for _ in range(400):
        right = fits_of(rng, 100, 5, drift)
        mean = mean_of(right)
        low, high = interval(mean.value, mean.error, n_groups=100, freedom=mean.freedom)
        hits += low <= truth <= high
        influence = (right - right.mean(1, keepdims=True)).mean(0) / 100
        low, high = interval(mean.value, standard_error(influence, np.arange(100)), n_groups=100)
        alone += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.99
    assert drift == 0 or alone / 400 < 0.9


def test_what_fits_and_groups_share_is_not_counted_twice():
    rng, ratios = np.random.default_rng(3), []
    for _ in range(300):
        right = fits_of(rng, 100, 5, drift=0.0)
        influence = (right - right.mean(1, keepdims=True)).mean(0) / 100
        ratios.append(mean_of(right).error / standard_error(influence, np.arange(100)))
    assert 1 <= np.median(ratios) < 1.02


def test_the_variance_never_falls_under_that_of_groups_or_fits():
    rng = np.random.default_rng(4)
    for _ in range(50):
        right = fits_of(rng, 30, 3, drift=0.2)
        mean = mean_of(right)
        influence = (right - right.mean(1, keepdims=True)).mean(0) / 30
        over_groups = standard_error(influence, np.arange(30))
        assert mean.error**2 >= max(over_groups**2, right.mean(1).var(ddof=1) / 3) * (1 - 1e-12)
        assert mean.freedom > 0


def test_a_single_fit_has_the_error_of_the_groups():
    right = np.random.default_rng(0).random((1, 40)) < 0.7
    mean = mean_of(right)
    influence = (right[0] - right.mean()) / 40
    assert mean.error == pytest.approx(standard_error(influence, np.arange(40)))
    assert (mean.value, mean.freedom, mean.n_fits) == (right.mean(), pytest.approx(39), 1)


def folds_of(rng, n_groups, n_folds, n_seeds, *, spread=0.0):
    """Return values (S, P) and influences (S, P, N) of differences that are 0 in truth.

    spread: of what all fits of a fold have in common.
    """
    fold = rng.permutation(n_groups) % n_folds
    found = 0.3 * rng.standard_normal(n_groups) + 0.2 * rng.standard_normal((n_seeds, n_groups))
    found = found + spread * rng.standard_normal(n_folds)[fold]
    own = (found - found.mean(1, keepdims=True)) / n_groups
    influences = np.where(fold == np.arange(n_folds)[:, None], n_folds, 0) * own[:, None]
    return found.mean(1)[:, None] + influences.sum(2), influences


@pytest.mark.parametrize("n_seeds", [1, 5])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_a_difference_over_folds_is_found_by_chance_no_more_often_than_said(n_seeds, spread):
    rng, false, naive = np.random.default_rng(6), 0, 0
    for _ in range(600):
        values, influences = folds_of(rng, 200, 5, n_seeds, spread=spread)
        mean = mean_over_fits(values, influences, np.arange(200), n_groups=200)
        low, high = mean.interval()
        assert (mean.p < 0.05) == (not low <= 0 <= high), "interval and p are one statistic"
        false += mean.p < 0.05
        naive += abs(mean.value) > 1.97 * standard_error(influences.mean((0, 1)), np.arange(200))
    assert 0.02 <= false / 600 <= (0.07 if spread < 0.1 else 0.095)  # docs/statistics.md
    assert spread < 0.1 or naive / 600 > 0.2, "the groups alone do not know of the folds"


def test_groups_alone_carry_the_error_where_folds_and_seeds_add_nothing():
    rng, ratios = np.random.default_rng(7), []
    for _ in range(200):
        values, influences = folds_of(rng, 200, 5, 5)
        mean = mean_over_fits(values, influences, np.arange(200), n_groups=200)
        ratios.append(mean.error / standard_error(influences.mean((0, 1)), np.arange(200)))
    assert min(ratios) >= 1 and np.median(ratios) < 1.1


def test_arms_that_never_differ_differ_by_no_more_than_one_group():
    none = np.zeros((1, 5))
    mean = mean_over_fits(none, np.zeros((1, 5, 50)), np.arange(50), n_groups=50, least=1 / 50**2)
    low, high = mean.interval()
    assert (mean.value, mean.p) == (0, 1) and -0.05 < low < -0.03 and 0.03 < high < 0.05
    mean = mean_over_fits(none, np.zeros((1, 5, 50)), np.arange(50), n_groups=50)
    assert (mean.interval(), mean.p) == ((0, 0), 1)


def test_one_group_has_no_error():
    mean = mean_over_fits(np.ones((2, 1)), np.zeros((2, 1, 4)), np.zeros(4), n_groups=1)
    assert math.isnan(mean.error) and math.isnan(mean.p) and math.isnan(mean.interval()[0])


def test_holm_corrects_as_published():
    # Holm 1979: the smallest times 3, the next times 2, never falling.
    assert holm(np.array([0.04, 0.01, 0.03])) == pytest.approx([0.06, 0.03, 0.06])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    found = holm(np.array([0.02, math.nan, 0.03]))
    assert found[[0, 2]] == pytest.approx([0.04, 0.04]) and math.isnan(found[1])
    assert len(holm(np.zeros(0))) == 0


def test_what_is_detectable_is_found_in_four_of_five_cases():
    mean = Mean(0.0, 0.01, 1e9, 25)
    reach = smallest_detectable(mean)
    assert reach == pytest.approx((1.95996 + 1.03643) * 0.01, rel=1e-4)
    assert smallest_detectable(mean, level=0.05 / 4) > reach
    draws = np.random.default_rng(0).normal(reach, 0.01, 20_000)
    assert (draws > 1.96 * 0.01).mean() == pytest.approx(0.85, abs=0.01)


def test_the_influence_of_a_difference_is_the_difference_of_influences():
    rng = np.random.default_rng(5)
    first, second = rng.random(80) < 0.8, rng.random(80) < 0.7
    together = accuracy(first, None)[1] - accuracy(second, None)[1]
    paired = np.std(first.astype(float) - second, ddof=1) / math.sqrt(80)
    assert standard_error(together, np.arange(80)) == pytest.approx(paired)
