"""Training a generator for each class: WGAN-GP, after Gulrajani et al. 2017, algorithm 1.

The classes take turns, so that at any moment each has had the same share of its schedule, and
whatever stops the training leaves something of every class. All that is random in a step is drawn
from the fit seed, the class and the number of the step: a checkpoint needs no state of a random
generator, and what is continued ends, on a CPU, with the same weights as what was not stopped.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkit.devices import realised_precision
from augkit.errors import TrainingFailed
from augkit.interfaces import Context, Fitted, Samples, Shape, silent
from augkit.options import size_of, values
from augkit_dagan import checkpoints
from augkit_dagan.augmenting import Policies, augment
from augkit_dagan.dagan import PAPER_BATCH, PAPER_EPOCHS, Dagan
from augkit_dagan.graphs import Steps
from augkit_dagan.networks import Critic, Generator, build_critic, build_generator, initialise
from augkit_dagan.records import TrainingLog, draw_sheet
from augkit_dagan.sampling import Generators, resized, to_grey_levels

log = logging.getLogger("augkit.dagan")

CHECKPOINT_SECONDS = 60.0
"""The longest time of training that a kill can cost, about."""

TURN_SECONDS = 2.0
"""How long a class trains before it is another's turn, at most; shorter where time is short."""

LOGGED = 100
"""Generator steps that a line of the log is the mean of: single batches jump too much."""


def train_generators(options: Dagan, train: Samples, context: Context) -> tuple[Generators, Fitted]:
    """Return a generator for each class of `train`, and how far each has come.

    options: settled. Ends when every class has had its steps, at `context.deadline` (after one
    step of each class at least), or when `context.interrupted` says so; then with a checkpoint.
    """
    began = time.monotonic()
    device = torch.device(context.device)
    real = load_classes(train, size_of(options.size or ""))
    classes = {
        label: ClassTraining(options, label, images, train.shape, context=context)
        for label, images in real.items()
    }
    for training in classes.values():
        training.resume()
    _announce(options, classes, device, context)
    with tf32(realised_precision(options.precision, device.type) == "tf32"), fastest_algorithms():
        _take_turns(classes, context)
    generators = Generators(
        {label: training.sampler() for label, training in classes.items()},
        shape=train.shape,
        size=size_of(options.size or ""),
        latent=options.latent,
        widths=options.widths or (),
        classes=context.classes,
    )
    return generators, _fitted(options, train.shape, classes, time.monotonic() - began)


def load_classes(train: Samples, size: tuple[int, int]) -> dict[int, Tensor]:
    """Return for each class its images: uint8 (N, C, H, W), resized to height and width."""
    height, width = size
    found: dict[int, list[np.ndarray]] = {}
    labels = train.labels
    at = 0
    for block in train.blocks(64):
        for image, label in zip(block, labels[at : at + len(block)].tolist(), strict=True):
            found.setdefault(label, []).append(resized(image, height, width))
        at += len(block)
    return {
        label: torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        for label, images in sorted(found.items())
    }


def n_steps(options: Dagan, n_images: int) -> int:
    """Return how many generator steps a class of so many images gets."""
    if options.steps is not None:
        return options.steps
    assert options.epochs is not None and options.batch is not None
    return options.epochs * math.ceil(n_images / options.batch)


def paper_steps(n_images: int) -> int:
    """Return how many generator steps the paper's schedule is for a class of so many images."""
    return PAPER_EPOCHS * math.ceil(n_images / PAPER_BATCH)


@dataclass
class Draws:
    """Everything random in one generator step and the critic steps before it."""

    options: Dagan
    label: int
    n_images: int
    step: int

    def __post_init__(self) -> None:
        self._rng = _philox(self.options, self.label, self.step, 0)

    def rows(self, k: int) -> np.ndarray:
        """Return int64 (batch,): the real images of critic step k, from a shuffled endless deck."""
        batch = self.options.batch or 0
        first = (self.step * self.options.critic_steps + k) * batch
        rounds = range(first // self.n_images, (first + batch - 1) // self.n_images + 1)
        deck = np.concatenate([self._shuffled(r) for r in rounds])
        start = first - rounds[0] * self.n_images
        return deck[start : start + batch]

    def _shuffled(self, turn: int) -> np.ndarray:
        return _philox(self.options, self.label, turn, 1).permutation(self.n_images)

    def latents(self) -> Tensor:
        """Return float32 (batch, latent), uniform in 0..1."""
        return torch.from_numpy(self._uniform((self.options.batch or 0, self.options.latent)))

    def mixing(self) -> Tensor:
        """Return float32 (batch, 1, 1, 1), uniform in 0..1."""
        return torch.from_numpy(self._uniform((self.options.batch or 0, 1, 1, 1)))

    def policies(self) -> Policies:
        """Return one draw of all policies of DiffAugment for a batch."""
        return Policies.draw(self.options.diffaugment or (), self.options.batch or 0, self._rng)

    def _uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._rng.random(shape, np.float32)


def _philox(options: Dagan, label: int, counter: int, stream: int) -> np.random.Generator:
    """Return a generator of its own for each class, step and purpose."""
    key = np.array([options.fit_seed, label], np.uint64)
    place = np.array([0, 0, counter, stream], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=place))


@dataclass
class Losses:
    """Sums over the steps since the last line of the log; kept on the device."""

    critic: float | Tensor = 0.0
    generator: float | Tensor = 0.0
    penalty: float | Tensor = 0.0
    wasserstein: float | Tensor = 0.0
    steps: int = 0
    penalties: int = 0

    def means(self) -> dict[str, float]:
        """Return the mean of each over its steps."""
        return {
            "critic_loss": float(self.critic) / max(self.steps, 1),
            "generator_loss": float(self.generator) / max(self.steps, 1),
            "penalty": float(self.penalty) / max(self.penalties, 1),
            "wasserstein": float(self.wasserstein) / max(self.steps, 1),
        }


class ClassTraining:
    """The training of one class: networks, optimisers, the number of the step."""

    def __init__(
        self, options: Dagan, label: int, images: Tensor, shape: Shape, *, context: Context
    ):
        assert options.batch and options.widths and options.learning_rate is not None
        self.options, self.label, self.shape, self.context = options, label, shape, context
        self.device = torch.device(context.device)
        layout = _layout(self.device)
        self.images = images.to(self.device, memory_format=layout)  # (N, C, H, W)
        self.name = context.classes[label]
        self.step, self.total = 0, n_steps(options, len(images))
        self.seconds = 0.0
        self.losses = Losses()
        self.record = TrainingLog(None, {})
        self.kept_at = -1
        self.steps = Steps(self.device, recorded=not options.diffaugment)
        size, channels = size_of(options.size or ""), images.shape[1]
        self.generator = build_generator(options.latent, options.widths, size, channels)
        self.critic = build_critic(options.widths, size, channels)
        rng = torch.Generator().manual_seed(int(_philox(options, label, 0, 2).integers(2**63)))
        initialise((self.generator, self.critic), rng)
        for network in (self.generator, self.critic):
            network.to(self.device).to(memory_format=layout)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        fused = self.device.type in ("cpu", "cuda")
        self.optimisers = [
            torch.optim.Adam(
                network.parameters(),
                options.learning_rate,
                betas=(0.0, 0.9),
                fused=fused,
                capturable=self.device.type == "cuda",
            )
            for network in (self.generator, self.critic)
        ]

    # -- the loop ------------------------------------------------------------------------------

    def advance(self, until: int, seconds: float = math.inf) -> None:
        """Train to generator step `until`, or so long, or to the deadline or an interruption.

        One step at least, unless it must stop.
        """
        began, first = time.monotonic(), self.step
        while self.step < until and not must_stop(self.context, self.step):
            if self.step > first and time.monotonic() - began > seconds:
                break
            draws = Draws(self.options, self.label, len(self.images), self.step)
            for k in range(self.options.critic_steps):
                self._critic_step(draws, k)
            self._generator_step(draws)
            self._average()
            self.step += 1
            if self.device.type == "cpu" or self.step % 50 == 0:  # asking a GPU means to wait
                self._guard()
            if self.step % LOGGED == 0 or self.step == self.total:
                self._log(self.seconds + time.monotonic() - began)
        self._guard()
        self.seconds += time.monotonic() - began

    def _critic_step(self, draws: Draws, k: int) -> None:
        penalised = self._is_penalised(k)
        rows, latents = torch.from_numpy(draws.rows(k)), draws.latents()
        shown = draws.policies(), draws.policies()
        loss, wasserstein, *penalty = self.steps.run(
            "critic, penalised" if penalised else "critic",
            partial(self._update_critic, penalised, shown),
            *(rows, latents, draws.mixing()),
        )
        self.losses.critic += loss / self.options.critic_steps
        self.losses.wasserstein += wasserstein / self.options.critic_steps
        for value in penalty:
            self.losses.penalty += value
            self.losses.penalties += 1

    def _update_critic(
        self,
        penalised: bool,
        shown: tuple[Policies, Policies],
        rows: Tensor,
        latents: Tensor,
        mixing: Tensor,
    ) -> tuple[Tensor, ...]:
        """Change the critic. Return its loss, the Wasserstein estimate and, if any, the penalty."""
        options = self.options
        real = to_unit(self.images[rows])  # (N, C, H, W)
        with torch.no_grad(), self._fast():
            fake = self.generator(latents).float()
        real, fake = augment(real, shown[0]), augment(fake, shown[1])
        # One pass over real and generated images: the critic treats each by itself.
        with self._fast():
            scores = self.critic(torch.cat([real, fake])).float()
        real_score, fake_score = scores.chunk(2)
        wasserstein = real_score.mean() - fake_score.mean()
        loss, seen = -wasserstein, [wasserstein.detach()]
        if penalised:
            penalty = gradient_penalty(self.critic, mixing * real + (1 - mixing) * fake)
            loss = loss + options.penalty * (options.penalty_every or 1) * penalty
            seen.append(penalty.detach())
        self.optimisers[1].zero_grad(set_to_none=True)
        loss.backward()
        self.optimisers[1].step()
        return loss.detach(), *seen

    def _generator_step(self, draws: Draws) -> None:
        latents, shown = draws.latents(), draws.policies()
        (loss,) = self.steps.run("generator", partial(self._update_generator, shown), latents)
        self.losses.generator += loss
        self.losses.steps += 1

    def _update_generator(self, shown: Policies, latents: Tensor) -> tuple[Tensor]:
        """Change the generator. Return its loss."""
        self.critic.requires_grad_(False)
        with self._fast():
            fake = self.generator(latents)
            score = self.critic(augment(fake, shown)).float()
        self.optimisers[0].zero_grad(set_to_none=True)
        loss = -score.mean()
        loss.backward()
        self.optimisers[0].step()
        self.critic.requires_grad_(True)
        return (loss.detach(),)

    def _is_penalised(self, k: int) -> bool:
        number = self.step * self.options.critic_steps + k
        return self.options.penalty > 0 and number % (self.options.penalty_every or 1) == 0

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged generator; faster at the beginning, when the last one is young."""
        decay = min(self.options.ema or 0.0, (1 + self.step) / (10 + self.step))
        pairs = list(zip(self.average.parameters(), self.generator.parameters(), strict=True))
        averaged, latest = [list(p) for p in zip(*pairs, strict=True)]
        torch._foreach_lerp_(averaged, latest, 1 - decay)

    def _guard(self) -> None:
        """Raise TrainingFailed where a loss is no number."""
        value = float(self.losses.critic) + float(self.losses.generator)
        if not math.isfinite(value):
            raise TrainingFailed(
                f"training of {self.name!r} diverged: the loss is {value} at generator step "
                f"{self.step}; {self._last_good()}. Train more gently: -o "
                f"learning_rate={(self.options.learning_rate or 0) / 4:g}, or -o precision=float32"
            )

    def _log(self, seconds: float) -> None:
        line = {"class": self.name, "step": self.step, "steps": self.total}
        self.record.add(**line, **self.losses.means(), seconds=round(seconds, 1))
        self.losses = Losses()

    def _last_good(self) -> str:
        kept = self.kept_at
        return f"the checkpoint of step {kept} is kept" if kept >= 0 else "there is no checkpoint"

    def _fast(self) -> torch.autocast:
        """Return the precision of everything but the penalty."""
        precision = realised_precision(self.options.precision, self.device.type)
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=True
        )

    # -- what is kept --------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on, besides its number."""
        found: dict[str, Tensor] = {}
        for name, network in self._networks():
            found |= {f"{name}.{k}": v for k, v in network.state_dict().items()}
        for name, optimiser in zip(("generator", "critic"), self.optimisers, strict=True):
            for i, moments in optimiser.state_dict()["state"].items():
                found |= {f"adam.{name}.{i}.{k}": v for k, v in moments.items()}
        return found

    def _networks(self) -> Iterator[tuple[str, nn.Module]]:
        yield from zip(
            ("generator", "critic", "average"),
            (self.generator, self.critic, self.average),
            strict=True,
        )

    def keep(self) -> None:
        """Write a checkpoint, unless this step is kept already.

        Raises TrainingFailed, and leaves the last good one, where a weight is no number.
        """
        folder, state = self.context.folder, self.state()
        if not all(bool(torch.isfinite(v).all()) for v in state.values()):
            raise TrainingFailed(
                f"training of {self.name!r} diverged: a weight is no number after generator step "
                f"{self.step}; {self._last_good()}. Train more gently: -o "
                f"learning_rate={(self.options.learning_rate or 0) / 4:g}"
            )
        if folder is None or self.kept_at == self.step:
            return
        checkpoints.write(folder, self.label, state, self._about())
        self.kept_at = self.step

    def _about(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "step": self.step,
            "seconds": self.seconds,
            "options": values(self.options),
            "shape": list(self.shape),
            "images": len(self.images),
            "losses": {k: float(v) for k, v in vars(self.losses).items()},
            "precision": realised_precision(self.options.precision, self.device.type),
            "threads": torch.get_num_threads(),
        }

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one. Raises TrainingFailed if it is no good."""
        folder = self.context.folder
        found = checkpoints.read(folder, self.label) if folder is not None else None
        if found is None:
            return
        state, about, path = found
        expected = {k: self._about()[k] for k in ("class", "options", "shape", "images")}
        if {k: about.get(k) for k in expected} != expected:
            raise checkpoints.foreign(path)
        try:
            self._restore(state)
            self.step, self.seconds = int(about["step"]), float(about["seconds"])
            losses = about["losses"]
            counts = {k: int(losses.pop(k)) for k in ("steps", "penalties")}
            self.losses = Losses(**losses, **counts)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise checkpoints.foreign(path) from error
        self.kept_at = self.step
        for what in ("threads", "precision"):
            now = self._about()[what]
            then = about.get(what, now)
            if then != now:
                log.warning(
                    "%s goes on with %s %s instead of %s: its weights will not be the same to the "
                    "last bit as without the stop",
                    *(self.name, what, now, then),
                )

    def _restore(self, state: dict[str, Tensor]) -> None:
        for name, network in self._networks():
            own = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(name)}
            network.load_state_dict(own)
        for name, optimiser in zip(("generator", "critic"), self.optimisers, strict=True):
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(f"adam.{name}."):
                    index, moment = key.removeprefix(f"adam.{name}.").split(".")
                    if value.ndim == 4:
                        value = value.contiguous(memory_format=_layout(self.device))
                    moments.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})

    def sampler(self) -> Generator:
        """Return the generator that samples: the averaged one, on the CPU."""
        return copy.deepcopy(self.average).to("cpu")


def gradient_penalty(critic: Critic, x: Tensor) -> Tensor:
    """Return the mean over images of (|gradient of the score by the image| - 1)^2, a scalar.

    The norm is over all of a flattened image; in float32. x: (N, C, H, W), between real and
    generated images. Gulrajani et al. 2017, equation 3.
    """
    with torch.autocast(x.device.type, enabled=False), tf32(False):
        norms = critic.input_gradient(x.float()).flatten(1).norm(dim=1)  # (N,)
    return (norms - 1).square().mean()


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let NVIDIA's tensor cores round the factors of float32 products to 10 bits, or not."""
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = allowed
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


@contextlib.contextmanager
def fastest_algorithms() -> Iterator[None]:
    """Let cuDNN try its algorithms on each new shape: a step meets the same ones all the time."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _layout(device: torch.device) -> torch.memory_format:
    """Return the faster order of weights and images in memory.

    On CPUs channels last is 1.1 to 1.4 times faster; on an H100 it is channels first, for there the
    penalty, in float32, takes most of the time.
    """
    return torch.contiguous_format if device.type == "cuda" else torch.channels_last


def to_unit(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in -1..1."""
    return images.float() / 127.5 - 1


def must_stop(context: Context, step: int) -> bool:
    """Return True where the user wants to stop, or at the deadline if there is a first step."""
    late = context.deadline is not None and time.monotonic() > context.deadline
    return context.interrupted() or (late and step > 0)


# -- taking turns ------------------------------------------------------------------------------


def _take_turns(classes: dict[int, ClassTraining], context: Context) -> None:
    """Advance whichever class is furthest behind, until all are done or time is up."""
    ends = {label: t.total for label, t in classes.items()}
    if context.max_steps is not None:
        ends = {k: min(end, classes[k].step + context.max_steps) for k, end in ends.items()}
    record = TrainingLog(context.folder, {t.name: t.step for t in classes.values()})
    for training in classes.values():
        training.record = record
        context.progress(training.name, training.step, training.total)
    kept = time.monotonic()
    while waiting := [k for k in classes if classes[k].step < ends[k]]:
        behind = min(waiting, key=lambda k: classes[k].step / classes[k].total)
        if must_stop(context, classes[behind].step):
            break
        try:
            classes[behind].advance(ends[behind], _turn(classes, context))
        except TrainingFailed:
            _keep([t for k, t in classes.items() if k != behind])
            raise
        _report(classes[behind], context)
        if time.monotonic() - kept > CHECKPOINT_SECONDS:
            _keep(classes.values())
            _draw(classes, context)
            kept = time.monotonic()
    _keep(classes.values())
    _draw(classes, context)


def _turn(classes: dict[int, ClassTraining], context: Context) -> float:
    """Return the seconds of a turn; fewer where little time is left, so that all have a share."""
    if context.deadline is None:
        return TURN_SECONDS
    left = max(context.deadline - time.monotonic(), 0)
    return min(TURN_SECONDS, left / (4 * len(classes)))


def _keep(trainings: Iterable[ClassTraining]) -> None:
    for training in trainings:
        training.keep()


def _report(training: ClassTraining, context: Context) -> None:
    """Tell how it goes, by the means since the last line of the log."""
    means = training.losses.means()
    note = f"loss {means['critic_loss']:.3g}, Wasserstein {means['wasserstein']:.3g}"
    context.progress(training.name, training.step, training.total, note)


def _draw(classes: dict[int, ClassTraining], context: Context) -> None:
    """Draw real images above generated ones, for each class, always from the same latents."""
    if context.folder is None:
        return
    rows = []
    for training in classes.values():
        rows.append((f"{training.name}: real", training.images[:8].cpu()))
        rng = _philox(training.options, training.label, 0, 3)
        latents = torch.from_numpy(rng.random((8, training.options.latent), np.float32))
        with torch.inference_mode():
            made = training.average(latents.to(training.device)).cpu()  # (8, C, H, W)
        done = f"{training.name}: generated, step {training.step} of {training.total}"
        rows.append((done, torch.from_numpy(to_grey_levels(made.numpy()))))
    share = min(t.step / t.total for t in classes.values())
    draw_sheet(context.folder, rows, int(10 * share) * 10)


# -- what is said ------------------------------------------------------------------------------


def _announce(
    options: Dagan, classes: dict[int, ClassTraining], device: torch.device, context: Context
) -> None:
    """Say how many steps each class has before it, and how long they will take about."""
    first = next(iter(classes.values()))
    seconds = _seconds_a_step(first)
    left = sum(t.total - t.step for t in classes.values())
    precision = realised_precision(options.precision, device.type)
    shown = ", ".join(
        f"{t.name} {t.total - t.step} ({len(t.images)} images"
        + (f", going on from step {t.step})" if t.step else ")")
        for t in classes.values()
    )
    every = f", penalty on every {options.penalty_every}th" if options.penalty_every != 1 else ""
    log.info(
        "dagan: generator steps to do: %s. Preset %s, %s, batch %d, %d critic steps each%s, "
        "on %s in %s",
        shown,
        options.preset,
        options.size,
        options.batch,
        options.critic_steps,
        every,
        device,
        precision,
    )
    estimate = f"about {seconds:.2g} s a step, {spoken(left * seconds)} in all"
    if context.deadline is not None and left:
        allowed = max(context.deadline - time.monotonic(), 0)
        share = min(1.0, allowed / max(left * seconds, 1e-9))
        estimate += f"; the {spoken(allowed)} that it has are enough for {share:.0%} of it"
    log.info("dagan: %s", estimate)


def _seconds_a_step(training: ClassTraining) -> float:
    """Return the seconds of one generator step, from two on networks that are thrown away.

    On a CPU with fewer images where a batch is large, so that the answer comes at once.
    """
    options, batch = training.options, training.options.batch or 1
    if training.device.type == "cpu":
        pixels = training.images[0].numel()
        batch = max(2, min(batch, 16 * 96 * 80 // pixels))
    context = Context(0, training.context.classes, training.context.device, progress=silent)
    probe = ClassTraining(
        replace(options, batch=batch),
        training.label,
        training.images,
        training.shape,
        context=context,
    )
    probe.advance(1)  # ends with the value of the loss, for which a GPU is waited for
    began = time.monotonic()
    probe.advance(3)
    return (time.monotonic() - began) / 2 * (options.batch or 1) / batch


def spoken(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _fitted(
    options: Dagan, shape: Shape, classes: dict[int, ClassTraining], seconds: float
) -> Fitted:
    """Return how far the training has come, and what its users should know of it."""
    done = sum(t.step for t in classes.values())
    wanted = sum(paper_steps(len(t.images)) for t in classes.values())
    full = size_of(options.size or "") == shape[:2]
    note = ""
    if done < wanted or not full:
        note = f"prototype: {done} of the paper's {wanted} generator steps"
        note += "" if full else f", at {options.size}"
    first = next(iter(classes.values()))
    details = {
        "steps": {t.name: [t.step, t.total] for t in classes.values()},
        "paper_steps": {t.name: paper_steps(len(t.images)) for t in classes.values()},
        "seconds": {t.name: round(t.seconds, 1) for t in classes.values()},
        "device": str(first.device),
        "precision": realised_precision(options.precision, first.device.type),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "wall_seconds": round(seconds, 1),
    }
    return Fitted(all(t.step >= t.total for t in classes.values()), note, details)
