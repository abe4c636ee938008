import numpy as np
import pytest
from sklearn import metrics as peer
from sklearn.calibration import calibration_curve

from augkit.errors import PluginFailed
from augkit.metrics import N_BINS, score
from augkit.stats import standard_error

THREE = ("benign", "malignant", "normal")


def drawn(n, n_classes, seed=0, skill=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_classes, n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1)))
    logits = rng.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, chances


def by_peer(labels, chances, classes):
    calls, k = chances.argmax(1), range(len(classes))
    several = len(classes) > 2
    area = (
        peer.roc_auc_score(labels, chances, multi_class="ovr", average="macro")
        if several
        else peer.roc_auc_score(labels, chances[:, 1])
    )
    recall = peer.recall_score(labels, calls, average=None, labels=list(k))
    precision = peer.precision_score(labels, calls, average=None, labels=list(k))
    found = {
        "accuracy": peer.accuracy_score(labels, calls),
        "balanced_accuracy": peer.balanced_accuracy_score(labels, calls),
        "auroc": area,
        "f1": peer.f1_score(labels, calls, average="macro"),
        "mcc": peer.matthews_corrcoef(labels, calls),
        "brier": peer.brier_score_loss(
            labels, chances if several else chances[:, 1], labels=list(k), scale_by_half=True
        ),
    }
    for c in k:
        found[f"sensitivity:{classes[c]}"] = recall[c]
        found[f"ppv:{classes[c]}"] = precision[c]
        others = (
            peer.recall_score(labels != c, calls != c),
            peer.precision_score(labels != c, calls != c),
        )
        found[f"specificity:{classes[c]}"], found[f"npv:{classes[c]}"] = others
    return found


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_values_are_those_of_scikit_learn(n_classes, seed):
    classes = tuple("abcde"[:n_classes])
    labels, chances = drawn(150, n_classes, seed)
    found = score(labels, chances, classes)
    for name, value in by_peer(labels, chances, classes).items():
        assert found[name].value == pytest.approx(value, abs=1e-12), name


def test_ties_in_probability_count_half_as_in_scikit_learn():
    labels, chances = drawn(200, 3, 1)
    chances = np.round(chances, 1) + 1e-3
    chances /= chances.sum(1, keepdims=True)
    ours = score(labels, chances, THREE)["auroc"].value
    theirs = peer.roc_auc_score(labels, chances, multi_class="ovr", average="macro")
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_calibration_error_is_that_of_the_calibration_curve():
    labels, chances = drawn(400, 3, 2)
    right, confidence = chances.argmax(1) == labels, chances.max(1)
    observed, expected = calibration_curve(right, confidence, n_bins=N_BINS)
    counts = np.histogram(confidence, N_BINS, (0, 1))[0]
    wanted = (np.abs(observed - expected) * counts[counts > 0]).sum() / len(labels)
    assert score(labels, chances, THREE)["ece"].value == pytest.approx(wanted, abs=1e-12)


def test_the_auroc_is_averaged_within_fits_and_not_over_pooled_scores():
    labels, chances = drawn(300, 2, 3)
    fits = np.arange(300) % 3
    chances[:, 1] = np.clip(chances[:, 1] * 0.3 + 0.3 * fits, 0, 1)
    chances[:, 0] = 1 - chances[:, 1]
    areas = [peer.roc_auc_score(labels[fits == f], chances[fits == f, 1]) for f in range(3)]
    found = score(labels, chances, ("a", "b"), fits=fits)["auroc"].value
    assert found == pytest.approx(np.mean(areas), abs=1e-12)
    assert found > score(labels, chances, ("a", "b"))["auroc"].value + 0.05


def test_a_class_that_a_fold_lacks_is_left_out_of_its_mean():
    labels, chances = drawn(120, 3, 4)
    fits = (np.arange(120) >= 60).astype(int)
    labels[fits == 1] = np.where(labels[fits == 1] == 2, 0, labels[fits == 1])
    first = peer.roc_auc_score(labels[:60], chances[:60], multi_class="ovr")
    second = [peer.roc_auc_score(labels[60:] == c, chances[60:, c]) for c in (0, 1)]
    found = score(labels, chances, THREE, fits=fits)["auroc"]
    assert found.value == pytest.approx((first + np.mean(second)) / 2, abs=1e-12)
    assert abs(found.influence.sum()) < 1e-12


def test_what_cannot_be_computed_is_nan_and_the_rest_is_there():
    chances = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    found = score(np.array([0, 0]), chances, THREE)
    for name in ("auroc", "mcc", "sensitivity:normal", "specificity:benign", "ppv:malignant"):
        assert np.isnan(found[name].value) and np.isnan(found[name].influence).all(), name
    assert found["balanced_accuracy"].value == found["sensitivity:benign"].value == 1
    assert found["specificity:normal"].value == 1
    empty = score(np.empty(0, np.int64), np.empty((0, 3)), THREE)
    assert all(np.isnan(one.value) and one.influence.shape == (0,) for one in empty.values())


def test_influences_sum_to_zero():
    labels, chances = drawn(90, 3, 5)
    for name, one in score(labels, chances, THREE, fits=np.arange(90) % 2).items():
        assert one.influence.shape == one.weight.shape == (90,)
        assert abs(one.influence.sum()) < 1e-12, name
        assert (one.weight >= 0).all()


def test_the_influence_of_a_row_is_what_its_weight_in_the_data_changes():
    labels, chances = drawn(60, 3, 6)
    many = 400
    whole = score(np.tile(labels, many), np.tile(chances, (many, 1)), THREE)
    for row in range(0, 60, 7):
        more = score(
            np.append(np.tile(labels, many), labels[row]),
            np.vstack([np.tile(chances, (many, 1)), chances[row]]),
            THREE,
        )
        for name, one in score(labels, chances, THREE).items():
            moved = (more[name].value - whole[name].value) * many
            assert moved == pytest.approx(one.influence[row], abs=2e-4), name


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["balanced_accuracy", "auroc", "f1", "mcc", "ppv:normal", "brier"])
def test_standard_errors_match_the_spread_over_repeated_draws(name):
    scores = [score(*drawn(240, 3, seed), THREE)[name] for seed in range(400)]
    spread = np.std([one.value for one in scores])
    errors = [standard_error(one.influence, np.arange(240)) for one in scores]
    assert np.mean(errors) == pytest.approx(spread, rel=0.12)


def test_wrong_probabilities_are_refused_with_a_plain_line():
    with pytest.raises(PluginFailed, match=r"shape \(4, 2\) for 4 images of 3 classes"):
        score(np.zeros(4, np.int64), np.full((4, 2), 0.5), THREE)
    with pytest.raises(PluginFailed, match="not finite"):
        score(np.zeros(4, np.int64), np.full((4, 3), np.nan), THREE)
