from dataclasses import replace

import numpy as np
import pytest
from augkit_classifiers import machines
from augkit_classifiers.machines import Recipe, Standard, _scores, fit_machine, row_weights

from augkit.errors import InputError, PluginFailed
from augkit.interfaces import Context

CONTEXT = Context(seed=0, classes=("benign", "malignant", "normal"))
RECIPES = {
    "linear": Recipe("texture"),
    "rbf": Recipe("texture", kernel="rbf"),
    "adaboost": Recipe("texture", machine="adaboost"),
}
every_machine = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


def rows(n, seed=0, *, n_classes=3, distance=1.5, width=6):
    """Return features with one cloud of points for each class, and labels in turn."""
    labels = np.arange(n) % n_classes
    noise = np.random.default_rng(seed).normal(size=(n, width))
    return (noise + distance * np.eye(n_classes, width)[labels]).astype(np.float32), labels


def fitted(train, val=None, recipe=RECIPES["linear"], context=CONTEXT):
    return fit_machine(*train, *(val or rows(60, 9)), recipe=recipe, context=context)


def accuracy(machine, features, labels):
    return (machine.predict_proba(features).argmax(1) == labels).mean()


@every_machine
def test_a_machine_learns_clouds_and_nothing_from_shuffled_labels(recipe):
    features, labels = rows(120, distance=3)
    test = rows(300, 1, distance=3)
    assert accuracy(fitted((features, labels), recipe=recipe), *test) > 0.85
    shuffled = np.random.default_rng(0).permutation(labels)
    val = rows(60, 9)
    val = (val[0], np.random.default_rng(1).permutation(val[1]))
    machine = fitted((features, shuffled), val, recipe)
    assert accuracy(machine, *test) < 0.5
    assert machine.predict_proba(test[0]).mean(0).max() < 0.45


def test_only_the_rbf_kernel_and_not_the_linear_one_learns_what_lies_within_a_ring():
    points = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    labels = (np.hypot(*points.T) > 1.2).astype(np.int64)
    train, val, test = [(points[i::3], labels[i::3]) for i in range(3)]
    assert accuracy(fitted(train, val, RECIPES["rbf"]), *test) > 0.9
    assert accuracy(fitted(train, val, RECIPES["linear"]), *test) < 0.7


@every_machine
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_the_likeliest_class_is_the_one_that_scikit_learn_predicts(recipe, n_classes):
    context = replace(CONTEXT, classes=tuple("abcde"[:n_classes]))
    train, test = rows(90, n_classes=n_classes), rows(200, 1, n_classes=n_classes)
    val = rows(40, 2, n_classes=n_classes)
    machine = fitted(train, val, recipe, context)
    if machine.rounds is not None:  # the model goes on for as many rounds as could be chosen
        machine = replace(machine, rounds=len(machine.model.estimators_))
    found = machine.predict_proba(test[0])
    assert found.shape == (200, n_classes)
    expected = machine.model.predict(machine.standard(test[0]))
    same = found.argmax(1) == expected
    # One against one: scikit-learn counts the pairs won, we add up by how much.
    assert same.mean() > (0.9 if recipe.kernel == "rbf" and n_classes > 2 else 0.999)


@every_machine
@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_sum_to_one_and_a_row_alone_is_predicted_as_among_others(recipe, n_classes):
    context = replace(CONTEXT, classes=CONTEXT.classes[:n_classes])
    machine = fitted(
        rows(60, n_classes=n_classes), rows(30, 9, n_classes=n_classes), recipe, context
    )
    features, _ = rows(50, 1, n_classes=n_classes)
    found = machine.predict_proba(features)
    assert found.dtype == np.float32 and (found >= 0).all()
    np.testing.assert_allclose(found.sum(1, dtype=np.float64), 1, atol=1e-6)
    np.testing.assert_allclose(machine.predict_proba(features[3:4]), found[3:4], atol=1e-6)
    assert machine.predict_proba(features[:0]).shape == (0, n_classes)


@every_machine
def test_eight_rows_are_learnt_by_heart(recipe):
    few = rows(8, distance=0)
    assert accuracy(fitted(few, few, recipe), *few) == 1


@every_machine
def test_plain_copies_of_the_rows_change_nothing(recipe):
    features, labels = rows(60)
    test, _ = rows(100, 1)
    once = fitted((features, labels), recipe=recipe).predict_proba(test)
    thrice = fitted((np.tile(features, (3, 1)), np.tile(labels, 3)), recipe=recipe)
    np.testing.assert_allclose(thrice.predict_proba(test), once, atol=2e-3)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_plain_copies_would_change_a_loss_that_is_summed_over_the_rows(kernel):
    features, labels = rows(60)
    test, _ = rows(100, 1)
    recipe = replace(RECIPES[kernel], C=1.0)
    once = fitted((features, labels), recipe=recipe).scores(test)
    summed = fitted((features, labels), recipe=replace(recipe, C=3.0)).scores(test)
    assert np.abs(once - summed).max() > 0.05


def lean(recipe, context=CONTEXT):
    """Return what is fitted to 10 rows of class 0 and 40 of the others, and with 10 as 40."""
    features, labels = rows(120, distance=1)
    kept = np.flatnonzero((labels > 0) | (np.arange(120) < 30))
    equal = np.concatenate([kept, *[kept[labels[kept] == 0]] * 3])
    assert len(set(np.bincount(labels[equal]))) == 1
    test, _ = rows(200, 1, distance=1)
    return [
        fitted((features[at], labels[at]), recipe=recipe, context=context).predict_proba(test)
        for at in (kept, equal)
    ]


@every_machine
def test_repeating_a_class_until_it_is_as_large_as_the_others_changes_nothing(recipe):
    few, equal = lean(recipe)
    np.testing.assert_allclose(few, equal, atol=2e-3)


@pytest.mark.seconds
@every_machine
def test_without_balance_a_rare_class_is_predicted_less_whatever_the_option_says(recipe):
    balanced, _ = lean(recipe)
    by_option, _ = lean(replace(recipe, balanced=False))
    by_context, _ = lean(recipe, replace(CONTEXT, balance=False))
    np.testing.assert_array_equal(by_option, by_context)
    assert (by_option.argmax(1) == 0).mean() < 0.8 * (balanced.argmax(1) == 0).mean()


@every_machine
def test_the_temperature_keeps_the_order_and_has_the_least_loss_on_the_validation_part(recipe):
    val = rows(90, 9, distance=1)
    machine = fitted(rows(90, distance=1), val, recipe)
    assert machine.temperature > 0
    scores, found = machine.scores(val[0]), machine.predict_proba(val[0])
    np.testing.assert_array_equal(scores.argsort(1, kind="stable"), found.argsort(1, kind="stable"))

    def loss(machine):
        chances = machine.predict_proba(val[0])[np.arange(90), val[1]]
        return -np.log(np.maximum(chances, 1e-12)).mean()

    others = [replace(machine, temperature=machine.temperature * by) for by in (0.5, 2)]
    assert all(loss(machine) < loss(other) for other in others)


def test_scores_that_are_right_on_every_validation_row_do_not_become_certainties():
    train, val = rows(60, distance=12), rows(9, 9, distance=12)
    found = fitted(train, val).predict_proba(val[0])
    assert accuracy(fitted(train, val), *val) == 1
    assert 0.5 < found.max(1).mean() < 0.9  # 3 rows a class: (3 + 1) / (3 + 3)


def test_scores_that_say_nothing_become_equal_chances():
    val = rows(300, 9, distance=0)
    found = fitted(rows(60, distance=0), val).predict_proba(val[0])
    assert found.max() < 0.5


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_strength_is_the_one_of_least_loss_on_the_validation_part(kernel):
    train, val = rows(45, distance=0.7, width=30), rows(90, 5, distance=0.7, width=30)
    chosen = fitted(train, val, RECIPES[kernel]).predict_proba(val[0])
    losses = []
    usual = {"linear": (1, 10, 100), "rbf": (100, 1000, 10_000)}[kernel]
    for strength in (128 / 30 * c if kernel == "linear" else c for c in usual):
        machine = fitted(train, val, replace(RECIPES[kernel], C=strength))
        chances = machine.predict_proba(val[0])
        loss = -np.log(chances[np.arange(90), val[1]]).mean()
        losses.append((loss, np.array_equal(chances, chosen)))
    assert min(losses)[1] and sum(same for _, same in losses) == 1


def test_adaboost_stops_earlier_where_more_trees_learn_only_noise():
    noise = rows(60, distance=0.5)
    assert fitted(noise, rows(300, 9, distance=0.5), RECIPES["adaboost"]).rounds == 10
    assert fitted(noise, noise, RECIPES["adaboost"]).rounds == 100


@every_machine
def test_a_class_that_is_absent_from_training_gets_probability_zero(recipe):
    features, labels = rows(90)
    kept = labels != 1
    machine = fitted((features[kept], labels[kept]), recipe=recipe)
    found = machine.predict_proba(features)
    assert (found[:, 1] == 0).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert accuracy(machine, features[kept], labels[kept]) > 0.7


@every_machine
@pytest.mark.parametrize("val_classes", [(), (1,), (0, 2)])
def test_a_validation_part_without_some_or_all_classes_is_taken(recipe, val_classes):
    features, labels = rows(60, 9, distance=3)
    kept = np.isin(labels, val_classes)
    val = (features[kept] if kept.any() else np.empty((0, 0), np.float32), labels[kept])
    machine = fitted(rows(60, distance=3), val, recipe)
    assert np.isfinite(machine.predict_proba(features)).all()
    assert accuracy(machine, features, labels) > 0.8


@every_machine
def test_validation_rows_of_classes_that_were_not_in_training_do_not_count(recipe):
    features, labels = rows(60)
    train = (features[labels != 1], labels[labels != 1])
    val, val_labels = rows(60, 9)
    known = val_labels != 1
    whole = fitted(train, (val, val_labels), recipe).predict_proba(features)
    part = fitted(train, (val[known], val_labels[known]), recipe).predict_proba(features)
    np.testing.assert_array_equal(whole, part)


@every_machine
def test_fitting_again_with_another_seed_changes_nothing(recipe):
    found = [
        fitted(rows(60), recipe=recipe, context=replace(CONTEXT, seed=seed)).scores(rows(9, 1)[0])
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_training_part_of_one_class_is_an_error_that_names_it():
    features, labels = rows(30)
    with pytest.raises(InputError, match=r"only images of class 'malignant'; texture needs"):
        fitted((features[labels == 1], labels[labels == 1]))
    with pytest.raises(InputError, match="holds no images"):
        fitted((np.empty((0, 0), np.float32), labels[:0]))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_an_optimiser_that_does_not_converge_says_what_to_do(monkeypatch, kernel):
    monkeypatch.setitem(machines._MAX_ITERATIONS, kernel, 1)
    with pytest.raises(PluginFailed, match=r"texture did not converge with C=20\. .*-o C=2$"):
        fitted(rows(60), recipe=replace(RECIPES[kernel], C=20.0))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("strength", [1e-6, 1e6])
def test_the_extreme_strengths_converge(kernel, strength):
    recipe = replace(RECIPES[kernel], C=strength)
    features, _ = rows(60, 9)
    assert np.isfinite(fitted(rows(200, distance=0.5), recipe=recipe).scores(features)).all()


def test_scores_of_pairs_are_added_up_by_class():
    class Pairs:
        classes_ = np.arange(3)
        decision_function_shape = "ovo"

        def decision_function(self, features):
            return np.array([[1.0, 2.0, 4.0]])  # 0 beats 1, 0 beats 2, 1 beats 2

    np.testing.assert_allclose(_scores(Pairs(), np.zeros((1, 2)), None), [[1, 1, -2]])


def test_the_standard_is_the_weighted_one_and_leaves_constant_features_finite():
    features, labels = rows(40)
    features[:, 2] = 7
    weights = row_weights(labels[:31], balanced=True)
    standard = Standard.of(features[:31], weights)
    expected = np.average(features[:31].astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(standard.mean, expected)
    made = standard(features)
    np.testing.assert_allclose(made[:, 2], 0, atol=1e-9)
    spread = np.average(np.square(made[:31]), axis=0, weights=weights)
    np.testing.assert_allclose(spread[[0, 1, 3, 4, 5]], 1)


def test_weights_give_every_class_the_same_sum():
    labels = np.array([0, 0, 0, 2, 1, 1])
    weights = row_weights(labels, balanced=True)
    np.testing.assert_allclose(np.bincount(labels, weights), 2)
    assert (row_weights(labels, balanced=False) == 1).all()


@every_machine
def test_features_that_are_all_the_same_are_taken_or_refused_in_words(recipe):
    same = (np.zeros((12, 3), np.float32), np.arange(12) % 3)
    if recipe.machine == "adaboost":
        with pytest.raises(PluginFailed, match="all alike"):
            fitted(same, same, recipe)
    else:
        found = fitted(same, same, recipe).predict_proba(same[0])
        np.testing.assert_allclose(found, 1 / 3, atol=1e-3)


def test_a_strength_that_does_not_converge_leaves_the_choice_to_the_others(monkeypatch):
    plain = machines._vectors

    def stubborn(standard, labels, weights, recipe, strength):
        if strength > 50:
            raise PluginFailed("did not converge")
        return plain(standard, labels, weights, recipe, strength)

    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 128)).astype(np.float32)
    labels = np.arange(60) % 3
    features[:, 0] += 3 * labels
    monkeypatch.setattr(machines, "_vectors", stubborn)
    given = (features[:45], labels[:45], features[45:], labels[45:])
    context = Context(0, ("a", "b", "c"))
    made = fit_machine(*given, recipe=Recipe("svm"), context=context)
    assert made.model.C in (1 / 45, 10 / 45)
    with pytest.raises(PluginFailed, match="did not converge"):
        fit_machine(*given, recipe=Recipe("svm", C=100.0), context=context)
