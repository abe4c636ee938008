"""The training loop of the networks: batches, class weights, looks, memory, numbers."""

import logging
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from augkit_classifiers import training
from augkit_classifiers.efficientnet_lite import EfficientNetLite0
from augkit_classifiers.network import seeded
from augkit_classifiers.preprocessing import Preprocessing
from augkit_classifiers.resnet import ResNet
from augkit_classifiers.training import Plan, Rows, Training, batches, class_weights, predict

from augkit.errors import InputError, TrainingFailed
from augkit.features import FeatureCache
from augkit.interfaces import ArraySamples, Context
from augkit.testing import toy_samples

CPU = torch.device("cpu")


def drawn(steps, n, batch, **how):
    rng = np.random.default_rng(0)
    return np.array(list(islice(batches(n, batch, rng, **how), steps)))


def problem(n=40, d=5, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    held = torch.from_numpy(x)
    return Rows(lambda rows: held[torch.from_numpy(rows)], (x[:, 0] > 0).astype(np.int64))


def plan(steps=50, looks=5, *, n=40, batch=8, seed=0, rate=0.05, **more):
    draws = batches(n, batch, np.random.default_rng(seed), n_real=n, real_share=None)
    return Plan(steps, looks, draws, np.ones(2), np.ones(2), rate, **more)


def linear(d=5):
    with seeded(0):
        return torch.nn.Linear(d, 2)


# -- batches -----------------------------------------------------------------------------------


def test_every_row_comes_once_before_any_comes_again():
    rows = drawn(7, 14, 6, n_real=14, real_share=None).ravel()
    for k in range(3):
        assert sorted(rows[14 * k : 14 * (k + 1)]) == list(range(14))


def test_batches_are_full_even_of_one_row():
    assert drawn(3, 1, 4, n_real=1, real_share=None).tolist() == [[0] * 4] * 3


@pytest.mark.parametrize(("share", "real"), [(0.5, 4), (0.25, 2), (1.0, 8), (0.01, 1), (0.99, 7)])
def test_a_share_of_each_batch_is_real(share, real):
    rows = drawn(20, 110, 8, n_real=10, real_share=share)
    assert ((rows < 10).sum(1) == real).all()


def test_an_arm_of_real_images_only_ignores_the_share():
    same = drawn(5, 10, 4, n_real=10, real_share=0.5)
    assert (same == drawn(5, 10, 4, n_real=10, real_share=None)).all()


# -- class weights -----------------------------------------------------------------------------


def test_classes_weigh_the_same_in_the_batches_that_are_drawn():
    labels = np.array([0] * 8 + [1] * 2 + [0] * 30 + [1] * 70)
    for share in (None, 0.5, 0.2):
        weights = class_weights(labels, 3, n_real=10, real_share=share, balanced=True)
        rows = drawn(4000, 110, 10, n_real=10, real_share=share).ravel()
        mass = np.bincount(labels[rows], minlength=2) * weights[:2]
        assert mass[0] / mass[1] == pytest.approx(1, abs=0.05)
        assert weights[2] == 0, "a class without images weighs nothing"


def test_without_balance_every_image_weighs_the_same():
    weights = class_weights(np.array([0, 0, 1]), 2, n_real=3, real_share=None, balanced=False)
    assert weights.tolist() == [1, 1]


# -- the loop ----------------------------------------------------------------------------------


def test_it_learns_what_can_be_learned():
    rows, network = problem(), linear()
    Training(network, plan(), CPU).run(rows, problem(seed=1))
    found = predict(network, problem(seed=2).inputs, 40, at_once=7)
    assert (found.argmax(1).numpy() == problem(seed=2).labels).mean() > 0.9


def test_a_look_tells_the_mean_loss_of_the_batches_since_the_one_before():
    told, rows = [], problem()
    work = Training(linear(), plan(20, 4, progress=lambda *a: told.append(a[3])), CPU)
    losses, step = [], work.step
    work.step = lambda train: losses.append(step(train)) or losses[-1]  # type: ignore[method-assign]
    work.run(rows, problem(seed=1))
    assert [look.step for look in work.history] == [5, 10, 15, 20]
    means = np.reshape(losses, (4, 5)).mean(1)
    assert [look.train_loss for look in work.history] == pytest.approx(means.tolist())
    assert min(look.validation_loss for look in work.history) == work.best_loss


def test_the_best_look_is_restored():
    """Validation labels are the opposite of what is learned: the first look is the best."""
    rows = problem()
    opposite = Rows(rows.inputs, 1 - rows.labels)
    kept, first = linear(), linear()
    Training(kept, plan(100, 10), CPU).run(rows, opposite)
    Training(first, plan(10, 1), CPU).run(rows, opposite)
    assert torch.equal(kept.weight, first.weight)


def test_batch_normalisation_forgets_what_it_was_initialised_with():
    """Activations a thousand times smaller than its initial variance, and ten steps."""
    rows = problem()
    small = Rows(lambda chosen: rows.inputs(chosen) * 1e-3, rows.labels)
    with seeded(0):
        network = torch.nn.Sequential(torch.nn.BatchNorm1d(5, momentum=0.01), torch.nn.Linear(5, 2))
    Training(network, plan(30, 1), CPU).run(small, small)
    found = predict(network, small.inputs, 40, at_once=40)
    assert (found.argmax(1).numpy() == rows.labels).mean() > 0.9
    assert network[0].momentum == 0.01


def test_patience_ends_the_training():
    seen = []
    rows = problem()
    opposite = Rows(rows.inputs, 1 - rows.labels)
    note = lambda stage, done, total, note="": seen.append(done)  # noqa: E731
    Training(linear(), plan(100, 10, patience=3, progress=note), CPU).run(rows, opposite)
    assert seen[-2] < 50, "after the first look and three without improvement"
    assert seen[-1] == 100, "the progress bar is closed all the same"


def test_looks_are_equally_far_apart_and_the_last_step_is_one():
    assert training._positions(100, 4) == {25, 50, 75, 100}
    assert training._positions(3, 10) == {1, 2, 3}


def test_nothing_to_look_at_keeps_the_last_weights():
    nothing = Rows(problem().inputs, np.zeros(0, np.int64))
    network = linear()
    Training(network, plan(), CPU).run(problem(), nothing)
    found = predict(network, problem().inputs, 40, at_once=40).argmax(1).numpy()
    assert (found == problem().labels).mean() > 0.9, "what it learned in all its steps"


def test_the_same_seed_gives_the_same_weights_to_the_last_bit():
    found = []
    for _ in range(2):
        network = linear()
        Training(network, plan(), CPU).run(problem(), problem(seed=1))
        found.append(network.weight)
    assert torch.equal(*found)


def test_a_loss_that_is_no_number_names_the_step():
    rows = problem()
    calls = []

    def broken(chosen):
        calls.append(1)
        return rows.inputs(chosen) * (float("nan") if len(calls) == 3 else 1)

    with pytest.raises(TrainingFailed, match=r"loss is nan at step 3 of 50.*learning_rate=0\.005"):
        Training(linear(), plan(), CPU).run(Rows(broken, rows.labels), rows)


class Hungry(torch.nn.Linear):
    """Runs out of memory with more than a few images."""

    most = 3

    def forward(self, x):
        if len(x) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9999 bytes")
        return super().forward(x)


def hungry():
    with seeded(0):
        return Hungry(5, 2)


def test_where_memory_runs_out_smaller_pieces_give_the_same_gradient(caplog):
    caplog.set_level(logging.WARNING, "augkit")
    plain, small = linear(), hungry()
    Training(plain, plan(at_once=2), CPU).run(problem(), problem(seed=1))
    Training(small, plan(at_once=2), CPU).run(problem(), problem(seed=1))
    assert torch.allclose(plain.weight, small.weight, atol=1e-5)
    assert "not enough memory for 8 images at once: going on with 4" in caplog.text
    assert "for 4 images at once: going on with 2" in caplog.text


def test_prediction_also_takes_smaller_pieces():
    expected = predict(linear(), problem().inputs, 40, at_once=40)
    assert torch.equal(predict(hungry(), problem().inputs, 40, at_once=40), expected)


@pytest.mark.parametrize("batch", [5, 9, 33])
def test_no_piece_of_a_batch_is_a_single_image(batch):
    network, seen = hungry(), []
    network.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    nothing = Rows(problem().inputs, np.zeros(0, np.int64))
    Training(network, plan(2, batch=batch), CPU).run(problem(), nothing)
    assert min(seen) >= 2, "batch normalisation cannot work on one"


def test_looks_weigh_the_classes_alike_in_all_arms():
    """Two arms of unlike class weights see the same candidates, and keep the same one."""
    rows, kept = problem(), []
    for weights in (np.array([0.5, 5.0]), np.ones(2)):
        work = Training(linear(), replace(plan(), class_weights=weights), CPU)
        work._look(rows)
        kept.append(work.best_loss)
    assert kept[0] == kept[1]


def test_a_validation_loss_that_is_never_a_number_is_an_error():
    rows = problem()
    broken = Rows(lambda chosen: rows.inputs(chosen) * float("nan"), rows.labels)
    with pytest.raises(TrainingFailed, match="validation part was no number at any look"):
        Training(linear(), plan(), CPU).run(rows, broken)


def test_memory_for_not_even_two_images_is_a_plain_error():
    network = hungry()
    network.most = 1
    with pytest.raises(TrainingFailed, match="not enough memory for the network and 2 images"):
        Training(network, plan(), CPU).run(problem(), problem())


def test_other_errors_are_not_taken_for_lack_of_memory():
    network = torch.nn.Linear(4, 2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Training(network, plan(), CPU).run(problem(), problem())


# -- seeds and sizes ---------------------------------------------------------------------------


def test_the_global_generator_of_torch_is_left_as_it_was():
    before = torch.random.get_rng_state()
    samples = toy_samples(3, classes=("benign", "normal"))
    network = ResNet(depth="18", weights="none", batch=4)
    network.fit(samples, samples, Context(5, ("a", "b"), max_steps=1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.seconds
def test_all_arms_start_from_the_same_weights():
    found = []
    for n in (3, 6):
        samples = toy_samples(n, classes=("benign", "normal"))
        network = ResNet(depth="18", weights="none", learning_rate=1e-7)
        network.fit(samples, samples, Context(5, ("a", "b"), max_steps=1, n_real=6))
        found.append(network.network_.fc.weight.detach())
    assert torch.allclose(*found, atol=1e-6)


def test_one_class_only_is_a_plain_error():
    one = toy_samples(3, classes=("benign",))
    with pytest.raises(InputError, match="holds only images of class 'a'; resnet needs at least"):
        ResNet(weights="none").fit(one, one, Context(0, ("a", "b"), max_steps=1))
    none = ArraySamples(one.images[:0], one.targets[:0])
    with pytest.raises(InputError, match="holds no images"):
        ResNet(weights="none").fit(none, none, Context(0, ("a", "b"), max_steps=1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wanted", [1, 3])
def test_images_are_resized_scaled_and_given_channels(channels, wanted):
    images = np.full((2, 10, 12, channels), 255, np.uint8)
    x = Preprocessing(20, 16, wanted, (0.5,) * 3, (0.25,) * 3)(images)
    assert x.shape == (2, wanted, 20, 16)
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.full_like(x, 2.0))


def test_an_image_of_the_right_size_is_not_touched():
    images = np.random.default_rng(0).integers(0, 256, (2, 10, 12, 1), np.uint8)
    x = Preprocessing(10, 12, 1, (0.0,), (1.0,))(images)
    assert np.array_equal((x * 255).round().numpy()[:, 0], images[..., 0])


def test_an_output_layer_is_the_same_whether_its_features_were_known_or_not(tmp_path):
    """Loading a body draws random numbers; the seed of the fit must not be what they come from."""
    samples = toy_samples(4)
    found = []
    for _ in range(2):
        cache = FeatureCache(tmp_path)
        network = EfficientNetLite0(input_size="64x64")
        network.fit(samples, samples, Context(7, ("a", "b", "c"), max_steps=3, cached=cache))
        found.append(network.network_.weight.detach())
    assert torch.equal(*found)
