"""Training: one step against the formulas, turns, draws, checkpoints, budgets."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from augkit_dagan import Dagan, checkpoints, training
from augkit_dagan.augmenting import Policies, augment
from augkit_dagan.training import ClassTraining, Draws, n_steps, paper_steps, spoken

import augkit as ak
from augkit.errors import InputError, OptionError, StoreError, TrainingFailed
from augkit.interfaces import ArraySamples, Context
from augkit.testing import CLASSES, check_augmenter, toy_samples

TINY = {"size": "24x16", "batch": 4, "widths": (6, 4), "latent": 5, "precision": "float32"}
SHAPE = (16, 24, 1)


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run beside others; more threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dagan(**options):
    return Dagan(**{"preset": "quick", "steps": 6, **TINY, **options}).settle(SHAPE, "cpu")


def images(n=10, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, 1, 16, 24), np.uint8))


def one_class(options, n=10, **context):
    context = Context(0, ("a", "b"), **context)
    return ClassTraining(options, 0, images(n), SHAPE, context=context)


def samples(n=9):
    return toy_samples(n, height=16, width=24)


# One step against the formulas


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


def reference_generator(weights, z):
    """Return images (N, 1, 16, 24) by the paper's layers, written out in float64."""
    h = leaky(z @ weights["first.weight"].T + weights["first.bias"]).reshape(-1, 6, 4, 6)
    for i in range(2):
        h = leaky(F.conv2d(h, weights[f"convs.{i}.weight"], weights[f"convs.{i}.bias"], 1, 2))
        h = F.conv_transpose2d(h, weights[f"ups.{i}.weight"], weights[f"ups.{i}.bias"], 2, 2, 1)
        h = torch.tanh(h) if i == 1 else leaky(h)
    return h


def reference_critic(weights, x):
    for i in range(2):
        x = leaky(F.conv2d(x, weights[f"convs.{i}.weight"], weights[f"convs.{i}.bias"], 1, 2))
        x = leaky(F.conv2d(x, weights[f"downs.{i}.weight"], weights[f"downs.{i}.bias"], 2, 2))
    h = leaky(x.flatten(1) @ weights["hidden.weight"].T + weights["hidden.bias"])
    return (h @ weights["score.weight"].T + weights["score.bias"])[:, 0]


def in_float64(network):
    return {k: v.double().clone().requires_grad_() for k, v in network.state_dict().items()}


def first_adam_step(weights, gradients, rate):
    """Return the weights after Adam's first step, Kingma and Ba 2015, algorithm 1, betas 0, 0.9."""
    return {k: w.detach() - rate * g / (g.abs() + 1e-8) for (k, w), g in zip(
        weights.items(), gradients, strict=True
    )}  # fmt: skip


def test_a_critic_step_is_that_of_a_reference_in_float64():
    options = dagan(penalty_every=1, critic_steps=1, learning_rate=0.01)
    work = one_class(options)
    critic, generator = in_float64(work.critic), in_float64(work.generator)
    draws = Draws(options, 0, 10, 0)
    real = images()[torch.from_numpy(draws.rows(0))].double() / 127.5 - 1
    fake = reference_generator(generator, draws.latents().double()).detach()
    mixing = draws.mixing().double()
    mixed = (mixing * real + (1 - mixing) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(reference_critic(critic, mixed).sum(), mixed, create_graph=True)
    penalty = ((slope.square().sum((1, 2, 3)).sqrt() - 1) ** 2).mean()
    loss = reference_critic(critic, fake).mean() - reference_critic(critic, real).mean()
    total = loss + 10 * penalty
    gradients = torch.autograd.grad(total, list(critic.values()))
    expected = first_adam_step(critic, gradients, 0.01)

    work._critic_step(Draws(options, 0, 10, 0), 0)
    assert float(work.losses.critic) == pytest.approx(float(total.detach()), rel=1e-5)
    assert float(work.losses.penalty) == pytest.approx(float(penalty.detach()), rel=1e-5)
    assert float(work.losses.wasserstein) == pytest.approx(
        -float(loss.detach()), rel=1e-5, abs=1e-6
    )
    for (name, parameter), gradient in zip(work.critic.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(
            parameter.grad.double(), gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max())
        )
        settled = gradient.abs() > 1e-4 * gradient.abs().max()  # Adam's first step is its sign
        torch.testing.assert_close(
            parameter.detach().double()[settled], expected[name][settled], rtol=1e-5, atol=1e-5
        )


def test_a_generator_step_is_that_of_a_reference_in_float64():
    options = dagan(learning_rate=0.01)
    work = one_class(options)
    critic, generator = in_float64(work.critic), in_float64(work.generator)
    fake = reference_generator(generator, Draws(options, 0, 10, 0).latents().double())
    loss = -reference_critic(critic, fake).mean()
    gradients = torch.autograd.grad(loss, list(generator.values()))
    before = {k: v.clone() for k, v in work.critic.state_dict().items()}

    work._generator_step(Draws(options, 0, 10, 0))
    scale = max(float(g.abs().max()) for g in gradients)
    for parameter, gradient in zip(work.generator.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=1e-5, atol=1e-5 * scale)
    after = work.critic.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert all(p.requires_grad for p in work.critic.parameters())


def test_a_penalty_on_every_third_step_has_three_times_the_weight():
    options = dagan(penalty_every=3, critic_steps=2)
    work = one_class(options)
    work.advance(3)
    assert work.losses.penalties == 2  # critic steps 0 and 3 of 0 to 5
    single, triple = (one_class(dagan(penalty_every=n, critic_steps=1)) for n in (1, 3))
    for each in (single, triple):
        each._critic_step(Draws(each.options, 0, 10, 0), 0)
    penalty = float(single.losses.penalty)
    apart = float(triple.losses.critic) - float(single.losses.critic)
    assert apart == pytest.approx(2 * 10 * penalty, rel=1e-4)


def test_without_a_penalty_none_is_computed():
    work = one_class(dagan(penalty=0.0))
    work.advance(2)
    assert work.losses.penalties == 0


def test_the_average_follows_the_generator_and_without_ema_is_it():
    last, averaged = one_class(dagan(ema=0.0)), one_class(dagan(ema=0.999))
    for work in (last, averaged):
        work.advance(4)
    for mean, latest in zip(last.average.parameters(), last.generator.parameters(), strict=True):
        assert torch.equal(mean, latest)
    apart = [
        float((m - g).detach().abs().max())
        for m, g in zip(averaged.average.parameters(), averaged.generator.parameters(), strict=True)
    ]
    assert max(apart) > 0


# What is random


def test_every_real_image_is_shown_equally_often():
    options = dagan(batch=4, critic_steps=5)
    shown = np.concatenate([Draws(options, 0, 10, s).rows(k) for s in range(10) for k in range(5)])
    assert len(shown) == 200
    for start in range(0, 200, 10):
        assert sorted(shown[start : start + 10].tolist()) == list(range(10))


def test_a_batch_may_be_larger_than_the_class():
    shown = Draws(dagan(batch=64), 0, 10, 3).rows(2)
    assert len(shown) == 64
    assert np.bincount(shown).min() >= 5


def test_draws_depend_on_seed_class_and_step_alone():
    def drawn(seed=0, label=0, step=0):
        draws = Draws(dagan(fit_seed=seed), label, 10, step)
        return draws.rows(0).tolist(), draws.latents().sum().item()

    assert drawn() == drawn()
    others = [drawn(seed=1), drawn(label=1), drawn(step=1)]
    assert all(other[1] != drawn()[1] for other in others)


def test_no_draw_moves_the_global_random_state():
    before, numpys = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    one_class(dagan(diffaugment=("translation", "flip"))).advance(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpys)


def test_each_policy_changes_images_in_its_own_way_and_lets_gradients_through():
    x = (torch.rand(6, 1, 16, 24) * 2 - 1).requires_grad_()
    rng = np.random.default_rng(0)
    for name in ("translation", "brightness", "contrast", "flip"):
        changed = augment(x, Policies.draw((name,), 6, rng))
        assert changed.shape == x.shape and not torch.equal(changed, x)
        (gradient,) = torch.autograd.grad(changed.sum(), x)
        assert torch.isfinite(gradient).all()
    assert torch.equal(augment(x, Policies.draw((), 6, rng)), x)


def test_a_translation_moves_by_whole_pixels_and_a_flip_mirrors():
    x = torch.rand(1, 1, 16, 24)
    moved = augment(x, Policies(shift=np.array([[2 / 16, -3 / 24]], np.float32)))
    assert torch.equal(moved[..., 2:, :-3], x[..., :-2, 3:])
    assert float(moved[..., :2, :].max()) == -1 and float(moved[..., -3:].max()) == -1
    assert torch.equal(augment(x, Policies(flip=np.array([True]))), x.flip(3))


# Length


def test_the_paper_s_schedule_in_generator_steps():
    assert [paper_steps(n) for n in (297, 141, 91)] == [3500, 2100, 1400]
    paper = Dagan(preset="paper").settle((160, 192, 1), "cpu")
    assert [n_steps(paper, n) for n in (297, 141, 91)] == [3500, 2100, 1400]
    assert n_steps(replace(paper, epochs=None, steps=12), 297) == 12


def test_presets_fill_in_what_is_not_given_and_no_more():
    shape = (160, 192, 1)
    small = Dagan(preset="small").settle(shape, "cpu")
    assert (small.size, small.widths, small.batch) == ("96x80", (128, 64, 32, 16), 16)
    paper = Dagan(preset="paper", batch=32).settle(shape, "cpu")
    assert (paper.size, paper.epochs, paper.batch) == ("192x160", 700, 32)
    assert (paper.ema, paper.penalty_every, paper.learning_rate) == (0, 1, 1e-4)
    assert Dagan(preset="quick", epochs=2).settle(shape, "cpu").steps is None
    assert Dagan().settle(shape, "cpu").preset == "small"
    assert Dagan().settle(shape, "cuda").preset == "paper"
    assert small.settle(shape, "cuda") == small


def test_the_usual_budget_is_for_a_cpu_where_nothing_is_named():
    assert Dagan().usual_budget("cpu") == 1800
    assert Dagan().usual_budget("cuda") is None
    assert Dagan(preset="small").usual_budget("cpu") is None
    assert Dagan(steps=5).usual_budget("cpu") is None


@pytest.mark.parametrize(("shape", "size"), [((100, 100, 1), "96x96"), ((28, 28, 1), "32x32")])
def test_small_presets_train_beside_sizes_that_cannot_be_doubled_to(shape, size):
    assert Dagan(preset="small").settle(shape, "cpu").size == size
    with pytest.raises(OptionError, match=r"cannot double up to .* multiples of 8.*-o size="):
        Dagan(preset="paper").settle(shape, "cpu")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "96"}, "'size' of dagan is '96'; it must be like 96x80"),
        ({"size": "90x80"}, "cannot double up to 90x80"),
        ({"epochs": 3, "steps": 3}, "epochs or steps, not both"),
        ({"widths": (4, 4)}, "has 2 numbers; images of 96x80 are doubled 4 times"),
        ({"batch": 1}, "'batch' of dagan is 1; it must be at least 2"),
        ({"ema": 1.0}, "'ema' of dagan is 1.0; it must be at most"),
        ({"learning_rate": "fast"}, "it must be a number"),
        ({"diffaugment": "cutout"}, "must be one of: translation, brightness, contrast, flip"),
        ({"diffaugment": "flip,flip"}, "names a policy twice"),
        ({"preset": "large"}, "must be one of: auto, paper, small, quick"),
    ],
)
def test_an_option_out_of_range_is_refused(options, words):
    from augkit.options import build

    with pytest.raises(OptionError, match=words):
        build(Dagan, {"preset": "small", **options}).settle((160, 192, 1), "cpu")


def test_a_class_of_fewer_than_8_images_is_refused():
    with pytest.raises(InputError, match=r"class 'benign' has 7 training images; .* at least 8"):
        dagan().fit(samples(7), Context(0, CLASSES))


def test_a_class_without_images_has_no_generator_and_says_so():
    all_three = samples(9)
    two = ArraySamples(
        all_three.images[all_three.targets != 1], all_three.targets[all_three.targets != 1]
    )
    plugin = dagan(steps=1)
    plugin.fit(two, Context(0, CLASSES))
    params = plugin.plan(np.array([0, 2]), SHAPE, np.random.default_rng(0))
    assert plugin.apply(None, np.array([0, 2]), params).shape == (2, *SHAPE)
    with pytest.raises(InputError, match="no generator for class 'malignant'"):
        plugin.apply(None, np.array([1, 2]), params)


# Turns, deadlines, interruptions


def fitted(options, folder, **context):
    said = []
    plugin = replace(options)
    outcome = plugin.fit(
        samples(),
        Context(0, CLASSES, folder=folder, progress=lambda *a: said.append(a), **context),
    )
    return plugin, outcome, said


def weights(plugin):
    networks = plugin.generators_.networks
    return {
        f"{label}.{name}": value.numpy().tobytes()
        for label, network in networks.items()
        for name, value in network.state_dict().items()
    }


def test_classes_take_turns_and_end_with_their_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "TURN_SECONDS", 0.0)
    _, outcome, said = fitted(dagan(steps=3), tmp_path)
    assert outcome.complete
    assert outcome.details["steps"] == {name: [3, 3] for name in CLASSES}
    assert [stage for stage, *_ in said] == [*CLASSES] * 4, "a bar for each at once, then 3 steps"


@pytest.mark.slow
def test_a_short_budget_is_shared_by_all_classes(tmp_path):
    options = dagan(steps=4_000_000)
    _, outcome, _ = fitted(options, tmp_path, deadline=time.monotonic() + 4)
    done = [n for n, _ in outcome.details["steps"].values()]
    assert max(done) <= 3 * min(done), done


def test_a_deadline_that_is_over_gives_every_class_one_step(tmp_path):
    _, outcome, _ = fitted(dagan(steps=1000), tmp_path, deadline=time.monotonic() - 1)
    assert not outcome.complete
    assert outcome.details["steps"] == {name: [1, 1000] for name in CLASSES}
    assert outcome.note == "prototype: 3 of the paper's 2100 generator steps"


def test_another_size_than_the_store_s_is_a_prototype_however_long():
    options = Dagan(**{**TINY, "size": "16x16", "steps": 2}).settle(SHAPE, "cpu")
    outcome = options.fit(samples(), Context(0, CLASSES))
    assert "at 16x16" in outcome.note


@pytest.mark.slow
def test_what_is_stopped_and_continued_ends_with_the_same_weights(tmp_path):
    options = dagan(steps=7, ema=0.9, diffaugment=("translation", "contrast"))
    whole, outcome, _ = fitted(options, tmp_path / "whole")
    answers = iter([False] * 9 + [True] * 99)
    _, stopped, _ = fitted(options, tmp_path / "cut", interrupted=lambda: next(answers))
    assert 0 < sum(done for done, _ in stopped.details["steps"].values()) < 21
    continued, again, _ = fitted(options, tmp_path / "cut")
    assert outcome.complete and again.complete
    assert weights(continued) == weights(whole)
    other, _, _ = fitted(replace(options, fit_seed=1), tmp_path / "other")
    assert weights(other) != weights(whole)


@pytest.mark.slow
def test_the_log_of_what_was_continued_is_that_of_what_was_not(tmp_path):
    options = dagan(steps=230)
    options = replace(options, critic_steps=1, widths=(2, 2), batch=2)
    fitted(options, tmp_path / "whole")
    fitted(options, tmp_path / "cut", max_steps=120)
    with (tmp_path / "cut" / "log.jsonl").open("a") as file:  # what a kill leaves behind
        file.write('{"class": "benign", "step": 200, "half a line')
    fitted(options, tmp_path / "cut")

    def lines(name):
        text = (tmp_path / name / "log.jsonl").read_text()
        found = [json.loads(line) for line in text.splitlines()]
        assert all(math.isfinite(line["wasserstein"]) for line in found)
        return [{k: v for k, v in line.items() if k != "seconds"} for line in found]

    key = lambda line: (line["class"], line["step"])  # noqa: E731
    assert sorted(lines("cut"), key=key) == sorted(lines("whole"), key=key)
    assert {line["step"] for line in lines("whole")} >= {230}


def test_a_sheet_shows_real_images_above_generated_ones(tmp_path):
    from PIL import Image

    fitted(dagan(steps=2), tmp_path)
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.size[0] >= 8 * 24 and sheet.size[1] >= 6 * 16
    assert (tmp_path / "samples-100.png").exists()


# Checkpoints


def checkpoint(folder, label=0):
    return folder / f"checkpoint-{label}.safetensors"


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    fitted(dagan(steps=20), tmp_path, max_steps=2)
    before = checkpoint(tmp_path).read_bytes()

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.durable, "write_new", full)
    with pytest.raises(StoreError, match="No space left on device"):
        fitted(dagan(steps=20), tmp_path, max_steps=2)
    assert checkpoint(tmp_path).read_bytes() == before


@pytest.mark.parametrize("place", [20, -20])
def test_a_damaged_checkpoint_is_named_and_nothing_else_is_touched(tmp_path, place):
    fitted(dagan(steps=20), tmp_path, max_steps=2)
    content = bytearray(checkpoint(tmp_path).read_bytes())
    content[place] ^= 1
    checkpoint(tmp_path).write_bytes(content)
    other = checkpoint(tmp_path, 1).read_bytes()
    with pytest.raises(TrainingFailed, match=r"checkpoint-0.safetensors is damaged.*Remove it"):
        fitted(dagan(steps=20), tmp_path)
    assert checkpoint(tmp_path, 1).read_bytes() == other
    checkpoint(tmp_path).unlink()
    _, outcome, _ = fitted(dagan(steps=20), tmp_path, max_steps=1)
    assert [done for done, _ in outcome.details["steps"].values()] == [1, 3, 3]


def test_a_cut_off_checkpoint_is_named(tmp_path):
    fitted(dagan(steps=20), tmp_path, max_steps=2)
    checkpoint(tmp_path).write_bytes(checkpoint(tmp_path).read_bytes()[:1000])
    with pytest.raises(TrainingFailed, match="is damaged"):
        fitted(dagan(steps=20), tmp_path)


@pytest.mark.parametrize("other", [{"batch": 5}, {"widths": (7, 4)}, {"fit_seed": 3}])
def test_a_checkpoint_of_another_training_is_refused(tmp_path, other):
    fitted(dagan(steps=20, **other), tmp_path, max_steps=2)
    with pytest.raises(TrainingFailed, match="is of another training"):
        fitted(dagan(steps=20), tmp_path)


def test_a_checkpoint_that_no_such_training_wrote_is_refused(tmp_path):
    fitted(dagan(steps=20), tmp_path, max_steps=2)
    state, about, _ = checkpoints.read(tmp_path, 0)
    state.pop("critic.score.weight")
    checkpoints.write(tmp_path, 0, state, about)
    with pytest.raises(TrainingFailed, match="is of another training"):
        fitted(dagan(steps=20), tmp_path)


@pytest.mark.slow
def test_other_threads_are_warned_of(tmp_path, caplog):
    fitted(dagan(steps=20), tmp_path, max_steps=2)
    torch.set_num_threads(2)
    fitted(dagan(steps=20), tmp_path, max_steps=1)
    assert "goes on with threads 2 instead of 1" in caplog.text


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    options = dagan(steps=50, learning_rate=1e-4)
    fitted(options, tmp_path, max_steps=2)
    good = checkpoint(tmp_path).read_bytes()
    state, about, _ = checkpoints.read(tmp_path, 0)
    state["critic.score.weight"][0, 0] = float("nan")
    checkpoints.write(tmp_path, 0, state, about)
    poisoned = checkpoint(tmp_path).read_bytes()
    with pytest.raises(TrainingFailed) as failure:
        fitted(options, tmp_path)
    words = str(failure.value)
    assert "training of 'benign' diverged: the loss is nan at generator step 3" in words
    assert "the checkpoint of step 2 is kept" in words and "learning_rate=2.5e-05" in words
    assert checkpoint(tmp_path).read_bytes() == poisoned != good


def test_weights_that_are_no_numbers_are_never_kept(tmp_path):
    work = one_class(dagan(), folder=tmp_path)
    work.advance(1)
    work.keep()
    before = checkpoint(tmp_path).read_bytes()
    work.advance(2)
    with torch.no_grad():
        work.generator.first.bias[0] = float("inf")
    with pytest.raises(TrainingFailed, match="a weight is no number after generator step 2"):
        work.keep()
    assert checkpoint(tmp_path).read_bytes() == before


@pytest.mark.seconds
def test_an_extreme_rate_diverges_with_a_plain_error(tmp_path):
    options = dagan(steps=20, learning_rate=1.0, penalty=1e38, penalty_every=1)
    with pytest.raises(
        TrainingFailed, match=r"diverged: (the loss is (nan|inf)|a weight is no number)"
    ):
        fitted(options, tmp_path)


# What is said


def test_steps_and_time_are_told_before_the_training_begins(tmp_path, caplog):
    caplog.set_level("INFO", logger="augkit")
    fitted(dagan(steps=3), tmp_path, deadline=time.monotonic() + 60)
    assert "generator steps to do: benign 3 (9 images), malignant 3 (9 images)" in caplog.text
    assert " s a step, " in caplog.text and "are enough for" in caplog.text


@pytest.mark.parametrize(("seconds", "words"), [(3.2, "3 s"), (1800, "30 min"), (7200, "2.0 h")])
def test_times_are_said_as_people_say_them(seconds, words):
    assert spoken(seconds) == words


def test_the_estimate_leaves_the_training_as_it_was():
    work = one_class(dagan(batch=64))
    before = {k: v.clone() for k, v in work.state().items()}
    assert training._seconds_a_step(work) > 0
    after = work.state()
    assert work.step == 0 and all(torch.equal(after[k], before[k]) for k in before)


# The contract


@pytest.mark.slow
def test_dagan_keeps_the_contract_of_plugins():
    check_augmenter(Dagan, preset="quick", widths="6,6,4", latent=8, batch=4)


def test_the_weights_are_laid_out_alike_after_training_and_after_loading(tmp_path):
    plugin = Dagan(preset="quick", widths=(6, 4), latent=8, batch=4).settle(SHAPE, "cpu")
    samples = toy_samples(8, height=16, width=24)
    plugin.fit(samples, Context(1, CLASSES, max_steps=1))
    for network in plugin.generators_.networks.values():
        for value in network.parameters():
            assert (
                value.is_contiguous()
                and value.stride()
                == torch.empty_like(value, memory_format=torch.contiguous_format).stride()
            )


def test_dagan_is_found_like_any_other_plugin():
    assert ak.plugins().find("dagan", "augmenter").family == "generative"


@pytest.mark.gpu
def test_training_runs_on_a_gpu(tmp_path):
    options = Dagan(preset="quick", steps=3, size="24x16").settle(SHAPE, "cuda")
    plugin = replace(options)
    outcome = plugin.fit(samples(), Context(0, CLASSES, device="cuda", folder=Path(tmp_path)))
    assert outcome.complete and outcome.details["device"] == "cuda"


def assert_near(state, expected):
    """A GPU adds in another order each time, and Adam turns on the sign of small gradients."""
    for name, value in expected.items():
        assert (state[name] - value).norm() <= 0.05 * value.norm() + 1e-6, name


@pytest.mark.gpu
@pytest.mark.parametrize("penalty_every", [1, 2])
def test_recorded_steps_change_the_weights_as_steps_that_are_not(penalty_every):
    """Six generator steps are thirty of the critic: three as they are, the others replayed."""
    found = {}
    for recorded in (False, True):
        work = one_class(dagan(steps=8, penalty_every=penalty_every, ema=0.0), device="cuda")
        work.steps.recorded = recorded
        work.advance(6)
        found[recorded] = work.state()
        assert work.losses.penalties == 30 // penalty_every
    assert_near(found[True], found[False])


@pytest.mark.gpu
def test_recorded_steps_go_on_from_a_checkpoint(tmp_path):
    def trained(*stops):
        for stop in stops:
            work = one_class(dagan(steps=8), device="cuda", folder=tmp_path / str(stops))
            work.resume()
            work.advance(stop)
            work.keep()
        return work.state()

    assert_near(trained(4, 6), trained(6))


@pytest.mark.gpu
def test_steps_that_change_what_the_critic_sees_are_not_recorded():
    work = one_class(dagan(steps=8, diffaugment=("translation", "flip")), device="cuda")
    work.advance(6)
    assert not work.steps.recorded and math.isfinite(float(work.losses.critic))
