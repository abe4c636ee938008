"""Verdicts: from the predictions of arms to one word, on outcomes that are made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from augkit import scoring
from augkit.errors import OptionError
from augkit.scoring import Fit, curves, difference, estimates, measure
from augkit.verdicts import PRIMARY, Case, check_primary, judge

CLASSES = ("benign", "malignant", "normal")
N = 300
LABELS = np.arange(N) % 3


def part(n_folds=5, groups=None):
    fold = (np.arange(N) // 3) % n_folds
    rows = tuple(np.flatnonzero(fold == k) for k in range(n_folds))
    return scoring.Tested(LABELS, np.arange(N) if groups is None else groups, rows, CLASSES)


def chances(right, rows):
    """Return float32 (n, 3): sure of the true class, or of the next one."""
    shown = np.where(right[rows], LABELS[rows], (LABELS[rows] + 1) % 3)
    return (0.8 * np.eye(3) + 0.2 / 3)[shown].astype(np.float32)


def arm(share, *, where=None, n_seeds=3, like=None, noise=0.02, seed=0):
    """Return the metrics of an arm that is right on a share of the images.

    like: shares of images already right, as (N,) uniform draws that arms have in common.
    """
    where = where or part()
    rng = np.random.default_rng([seed, n_seeds])
    common = np.random.default_rng(99).random(N) if like is None else like
    fits = []
    for number, rows in enumerate(where.rows):
        for k in range(n_seeds):
            right = common + noise * rng.standard_normal(N) < share
            fits.append(Fit(number, k, chances(right, rows)))
    return measure(fits, where)


def case(name, share, real=0.6, balanced=None, *, control="balanced", where=None, **given):
    where = where or part()
    measured = {
        "real": arm(real, where=where, seed=1, **given),
        "balanced": arm(real if balanced is None else balanced, where=where, seed=2, **given),
        name: arm(share, where=where, seed=3, **given),
    }
    return Case(name, control, measured[name], measured["real"], measured["balanced"], where)


def words(*cases, primary=PRIMARY):
    return [verdict.word for _, verdict in judge(cases, primary)]


def test_an_arm_that_is_better_than_both_helps_and_a_worse_one_hurts():
    assert words(case("a", 0.75), case("b", 0.45), case("c", 0.605)) == [
        "helps",
        "hurts",
        "cannot tell",
    ]


def test_better_than_real_but_not_than_its_control_is_balance_not_images():
    ((_, verdict),) = judge([case("a", 0.75, balanced=0.75)], PRIMARY)
    assert verdict.word == "cannot tell"
    assert verdict.sentence.startswith("balance, not images")


def test_better_than_real_but_worse_than_its_control_does_not_help():
    assert words(case("a", 0.75, balanced=0.95)) == ["cannot tell"]


def test_worse_than_its_control_alone_does_not_hurt():
    assert words(case("a", 0.6, balanced=0.8)) == ["cannot tell"]


def test_both_rows_of_an_arm_carry_its_verdict_and_only_in_the_primary_metric():
    ((comparisons, _),) = judge([case("a", 0.75)], "accuracy")
    decisive = [c for c in comparisons if c.verdict]
    assert [(c.versus, c.metric) for c in decisive] == [
        ("real", "accuracy"),
        ("balanced", "accuracy"),
    ]
    for found in decisive:
        assert found.low < found.difference < found.high
        assert found.p <= found.p_holm < 0.05
        assert 0 < found.smallest_detectable < 0.2
    others = [c for c in comparisons if c.metric != "accuracy"]
    assert {c.metric for c in others} >= {"auroc", "brier", "ece", "f1", "mcc", "npv:normal"}
    assert all(c.p is c.p_holm is c.verdict is c.smallest_detectable is None for c in others)
    assert all(c.low <= c.difference <= c.high for c in others)


def test_the_interval_and_the_p_value_are_one_statistic():
    for share in (0.61, 0.63, 0.65, 0.67, 0.69):
        found = judge([case("a", share, control="real")], PRIMARY)[0][0][0]
        assert (found.p < 0.05) == (found.low > 0)


def test_many_arms_make_each_harder_to_believe():
    one = judge([case("a", 0.68)], PRIMARY)[0][0][0]
    among = judge([case("a", 0.68), *(case(f"b{i}", 0.6) for i in range(9))], PRIMARY)[0][0][0]
    assert among.p == one.p and among.p_holm == pytest.approx(min(1, 10 * one.p_holm))
    assert among.smallest_detectable > one.smallest_detectable


def test_what_claims_nothing_is_corrected_as_well():
    cases = [case("a", 0.55, balanced=0.75), *(case(f"b{i}", 0.6) for i in range(9))]
    comparisons, _ = judge(cases, PRIMARY)[0]
    assert comparisons[0].difference < 0 and comparisons[1].p < 1e-3
    assert comparisons[1].p_holm == pytest.approx(10 * comparisons[1].p)


def test_what_has_no_error_and_a_difference_gives_no_verdict():
    four = scoring.Tested(LABELS[:4], np.arange(4), (np.arange(4),), CLASSES)
    perfect = np.eye(3, dtype=np.float32)[LABELS[:4]]
    flat = np.full((4, 3), 1 / 3, np.float32)
    arms = [measure([Fit(0, k, p) for k in range(3)], four) for p in (perfect, flat)]
    (found,) = judge([Case("a", "real", arms[0], arms[1], arms[1], four)], "auroc")
    assert found[1].word != "helps"


def test_the_least_error_of_a_rank_is_that_of_a_pair_and_of_a_hit_that_of_a_group():
    rng, where = np.random.default_rng(3), part(1)
    n = len(where.labels)
    own = np.eye(3)[where.labels] + rng.normal(0, 0.4, (n, 3))
    arms = []
    for _ in range(2):  # whose scores hardly differ, and whose hits not at all
        found = np.exp(own + rng.normal(0, 1e-3, (3, n, 3)))
        probabilities = (found / found.sum(-1, keepdims=True)).astype(np.float32)
        arms.append(measure([Fit(0, k, p) for k, p in enumerate(probabilities)], where))
    error = {
        name: scoring.difference(name, arms[1][name], arms[0][name], where).error
        for name in ("auroc", "balanced_accuracy")
    }
    assert 0 < error["auroc"] < 0.002
    assert error["balanced_accuracy"] == pytest.approx(1 / n)


def test_on_one_split_the_sentence_says_so():
    found = judge([replace(case("a", 0.9, where=part(1)), one_split=True)], PRIMARY)[0][1]
    assert found.word == "helps" and found.sentence.endswith("on this one split")


def test_fewer_than_three_fits_give_no_verdict_and_do_not_count():
    where = part(1)
    few = [case(n, 0.9, where=where, n_seeds=2) for n in ("a", "b")]
    (comparisons, verdict), second = judge(few, PRIMARY)
    assert verdict.word is second[1].word is None
    assert "2 of the 3 fits" in verdict.sentence
    assert comparisons[0].p is None and comparisons[0].difference > 0.2
    assert words(case("a", 0.9, where=where, n_seeds=3)) == ["helps"]


def test_a_single_fit_on_each_of_five_folds_is_enough():
    assert words(case("a", 0.9, n_seeds=1)) == ["helps"]


def test_arms_that_predict_the_same_cannot_be_told_apart():
    real = arm(0.6)
    same = Case("copy", "real", real, real, real, part())
    ((comparisons, verdict),) = judge([same], PRIMARY)
    assert verdict.word == "cannot tell"
    assert comparisons[0].difference == 0 and comparisons[0].p == 1
    assert comparisons[0].low < 0 < comparisons[0].high, "no interval may have no width"


def test_the_arms_share_their_test_images_and_the_comparison_knows():
    together = judge([case("a", 0.65)], PRIMARY)[0][0][0]
    apart = Case(
        "a",
        "real",
        arm(0.65, like=np.random.default_rng(1).random(N)),
        arm(0.6, like=np.random.default_rng(2).random(N)),
        arm(0.6, like=np.random.default_rng(2).random(N)),
        part(),
    )
    alone = judge([apart], PRIMARY)[0][0][0]
    assert together.high - together.low < 0.6 * (alone.high - alone.low)


def test_images_of_one_group_count_as_one():
    one = judge([case("a", 0.65)], PRIMARY)[0][0][0]
    groups = np.arange(N) // 30
    many = judge([case("a", 0.65, where=part(groups=groups))], PRIMARY)[0][0][0]
    assert many.difference == one.difference
    assert many.high - many.low > one.high - one.low


def test_what_is_lower_may_be_better():
    assert words(case("a", 0.75), primary="brier") == ["helps"]
    assert words(case("a", 0.45), primary="brier") == ["hurts"]


def test_only_some_metrics_can_decide():
    assert check_primary("auroc") == "auroc"
    with pytest.raises(OptionError, match="'sensitivity:benign'; it must be one of: balanced_acc"):
        check_primary("sensitivity:benign")


def test_label_metrics_are_pooled_over_the_folds_and_auroc_is_not():
    where, rng = part(), np.random.default_rng(3)
    found = rng.dirichlet(np.ones(3), N).astype(np.float32)
    found[where.rows[0]] = np.roll(found[where.rows[0]], 1, axis=1)
    measured = measure([Fit(k, 0, found[rows]) for k, rows in enumerate(where.rows)], where)
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    value = {name: each.value for name, each in estimates(measured, where).items()}
    assert value["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(LABELS, found.argmax(1))
    )
    within = [roc_auc_score(LABELS[r], found[r], multi_class="ovr") for r in where.rows]
    assert value["auroc"] == pytest.approx(np.mean(within))
    assert measured["auroc"].values[0] == pytest.approx(within)


def test_the_fits_of_a_metric_average_to_its_value():
    measured = arm(0.7)
    for name in ("accuracy", "balanced_accuracy", "mcc", "f1", "sensitivity:normal"):
        each = measured[name]
        assert each.values.shape == (3, 5)
        assert each.influences.sum(2) + each.values.mean(1)[:, None] == pytest.approx(each.values)


def test_a_round_of_folds_counts_once_however_many_there_are():
    where = part()
    twice = scoring.Tested(LABELS, where.groups, where.rows * 2, CLASSES, repeats=2)
    right = np.random.default_rng(0).random((10, N)) < 0.7
    fits = [Fit(k, 0, chances(right[k], rows)) for k, rows in enumerate(twice.rows)]
    alone = [Fit(fit.partition % 5, 0, fit.probabilities) for fit in fits]
    once = [measure(half, where)["accuracy"].values.mean() for half in (alone[:5], alone[5:])]
    both = measure(fits, twice)["accuracy"]
    assert both.values.mean() == pytest.approx(np.mean(once))
    assert difference("accuracy", both, both, twice).value == 0


def test_curves_are_those_of_scikit_learn():
    from sklearn.metrics import confusion_matrix, roc_curve

    n = 298  # 199 images of other classes: no point of the grid is one of the curve
    where = scoring.Tested(LABELS[:n], np.arange(n), (np.arange(n),), CLASSES)
    found = np.random.default_rng(4).dirichlet(np.ones(3), n).astype(np.float32).round(2)  # ties
    drawn, true = curves([Fit(0, 0, found)], where), LABELS[:n]
    assert np.array(drawn.confusion).tolist() == confusion_matrix(true, found.argmax(1)).tolist()
    alarms, hits, _ = roc_curve(true == 1, found[:, 1], drop_intermediate=False)
    expected = np.interp(np.linspace(0, 1, 101)[1:-1], alarms, hits)
    assert np.array(drawn.roc["malignant"])[1:-1] == pytest.approx(expected, abs=1e-4)
    assert drawn.roc["malignant"][-1] == 1
