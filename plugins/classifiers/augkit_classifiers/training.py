"""The one training loop of all networks, whole or as an output layer on features."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from augkit.errors import TrainingFailed
from augkit.interfaces import Look, Progress, silent

log = logging.getLogger("augkit")

_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")
_RECENT, _AT_ONCE = 4, 32
"""Batches, and images of each, that the statistics of batch normalisation are taken from."""
_SMALLEST = 2
"""Images at once: batch normalisation cannot work on one."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows that a network is trained on or looks at."""

    inputs: Callable[[np.ndarray], Tensor]
    """From positions int64 (n,) to what the network takes, on its device."""
    labels: np.ndarray
    """int64 (N,)."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)


@dataclass(frozen=True)
class Plan:
    """How a network is trained."""

    steps: int
    looks: int
    batches: Iterator[np.ndarray]
    """Positions of the rows of each step."""
    class_weights: np.ndarray
    """float64 (classes,), what an image of each class weighs in the loss."""
    look_weights: np.ndarray
    """The same for looks at the validation part: alike in all arms, or they would choose unlike."""
    learning_rate: float
    at_once: int = 64
    """Images that a look takes through the network at once."""
    bfloat16: bool = False
    """Whether forward passes of training compute in bfloat16, where autocast deems it safe."""
    patience: int | None = None
    """Looks without a better loss after which the training stops; None: never."""
    progress: Progress = silent
    stage: str = "train"


@dataclass
class Training:
    """One network on its way; `run` leaves it with the weights of the best look."""

    network: nn.Module
    plan: Plan
    device: torch.device
    best: dict[str, Tensor] | None = field(default=None, init=False)
    best_loss: float = field(default=math.inf, init=False)
    since_best: int = field(default=0, init=False)
    recent: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=_RECENT), init=False)
    """The rows of the last steps."""
    history: list[Look] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(trained, self.plan.learning_rate)
        self.weights = torch.tensor(self.plan.class_weights, dtype=torch.float32).to(self.device)
        self.look_weights = torch.tensor(self.plan.look_weights, dtype=torch.float32)
        self.most: int | None = None
        """Images that memory holds at once; None: a whole batch."""

    def run(self, train: Rows, val: Rows) -> None:
        """Train. Raises TrainingFailed where the loss is not finite or memory runs out."""
        looks = _positions(self.plan.steps, self.plan.looks) if len(val) else set()
        loss, losses = math.nan, []
        for step in range(1, self.plan.steps + 1):
            # Follow the gradient of one batch.
            loss = self.step(train)
            if not math.isfinite(loss):
                raise TrainingFailed(
                    f"the loss is {loss} at step {step} of {self.plan.steps}: a smaller learning "
                    f"rate may help, -o learning_rate={self.plan.learning_rate / 10:g}"
                )
            losses.append(loss)
            # Look at the validation part; keep the best.
            if step in looks:
                settle_statistics(self.network, train, self.recent)
                seen = self._look(val)
                self.history.append(Look(step, math.fsum(losses) / len(losses), seen))
                losses.clear()
                if self.plan.patience is not None and self.since_best >= self.plan.patience:
                    break
            self.plan.progress(self.plan.stage, step, self.plan.steps, f"loss {loss:.3g}")
        self.plan.progress(self.plan.stage, self.plan.steps, self.plan.steps, f"loss {loss:.3g}")
        if not looks:
            settle_statistics(self.network, train, self.recent)
        if looks and self.best is None:
            raise TrainingFailed(
                "the loss on the validation part was no number at any look: a smaller learning "
                f"rate may help, -o learning_rate={self.plan.learning_rate / 10:g}"
            )
        if self.best is not None:
            self.network.load_state_dict(self.best)
        self.optimiser.zero_grad(set_to_none=True)  # gradients take as much memory as weights
        self.network.eval()

    def step(self, train: Rows) -> float:
        """Return the loss of a batch, which is taken in pieces where memory does not hold it."""
        rows = next(self.plan.batches)
        labels = torch.from_numpy(train.labels[rows]).to(self.device)
        self.recent.append(rows)
        self.network.train()
        while True:
            size = self.most or len(rows)
            try:
                n_pieces = min(-(-len(rows) // size), max(1, len(rows) // _SMALLEST))
                return self._accumulate(train, rows, labels, n_pieces=n_pieces)
            except (RuntimeError, MemoryError) as error:
                self.most = _smaller(size, error)
            _free()

    def _accumulate(self, train: Rows, rows: np.ndarray, labels: Tensor, *, n_pieces: int) -> float:
        self.optimiser.zero_grad(set_to_none=True)
        total, loss = float(self.weights[labels].sum()), 0.0
        for piece in np.array_split(np.arange(len(rows)), n_pieces):
            loss += self._backward(train.inputs(rows[piece]), labels[piece], total)
        self.optimiser.step()
        return loss

    def _backward(self, x: Tensor, labels: Tensor, total: float) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.bfloat16):
            scores = self.network(x)  # (n, classes)
        losses = F.cross_entropy(scores.float(), labels, self.weights, reduction="sum")
        loss = losses / max(total, 1e-12)
        loss.backward()
        return loss.item()

    def _look(self, val: Rows) -> float:
        """Return the loss on the validation part; keep the weights if they are the best so far."""
        scores = predict(self.network, val.inputs, len(val), at_once=self.plan.at_once)
        labels = torch.from_numpy(val.labels)
        loss = float(F.cross_entropy(scores, labels, self.look_weights))
        if loss < self.best_loss:
            self.best_loss, self.since_best = loss, 0
            state = self.network.state_dict()
            self.best = {name: value.detach().clone() for name, value in state.items()}
        else:
            self.since_best += 1
        return loss


def settle_statistics(network: nn.Module, train: Rows, recent: Iterable[np.ndarray]) -> None:
    """Give batch normalisation the statistics of recent batches under the weights of now.

    Its running averages still hold what it was initialised with, and weights of long ago, which
    after a few dozen steps from scratch can hide all that was learned (Wu and Johnson 2021).
    """
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    network.train()
    with torch.no_grad():
        for rows in recent:
            network(train.inputs(rows[:_AT_ONCE]))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def predict(
    network: nn.Module, inputs: Callable[[np.ndarray], Tensor], n: int, *, at_once: int
) -> Tensor:
    """Return the scores of all rows, float32 (n, classes), on the CPU; the network is in eval.

    Raises TrainingFailed where not even one image fits into memory.
    """
    network.eval()
    found: list[Tensor] = []
    start, size = 0, at_once
    with torch.inference_mode():
        while start < n:
            try:
                found.append(network(inputs(np.arange(start, min(start + size, n)))).float().cpu())
                start += size
                continue
            except (RuntimeError, MemoryError) as error:
                size = _smaller(size, error, smallest=1)
            _free()
    return torch.cat(found) if found else torch.empty(0, 0)


def batches(
    n: int, batch: int, rng: np.random.Generator, *, n_real: int, real_share: float | None
) -> Iterator[np.ndarray]:
    """Yield the rows of each step, int64 (batch,), without end; all batches are full.

    The rows come in a random order, all of them before any comes again. real_share: the share of
    the first `n_real` rows in each batch; None: as they come.
    """
    if real_share is None or not 0 < n_real < n:
        yield from _endless(np.arange(n), batch, rng)
        return
    n_first = n_real_of(batch, real_share)
    real = _endless(np.arange(n_real), n_first, rng)
    made = _endless(np.arange(n_real, n), batch - n_first, rng)
    while True:
        yield np.concatenate([next(real), next(made)])


def n_real_of(batch: int, real_share: float) -> int:
    """Return how many images of a batch are real: the share, but at least one of each kind."""
    return batch if real_share == 1 else min(max(round(batch * real_share), 1), batch - 1)


def _endless(rows: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    waiting = rows[:0]
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(rows)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def class_weights(
    labels: np.ndarray,
    n_classes: int,
    *,
    balanced: bool,
    n_real: int = 0,
    real_share: float | None = None,
) -> np.ndarray:
    """Return what an image of each class weighs, float64 (classes,), so that all classes count the
    same where this share of what is drawn comes from the first `n_real`; None: wherever it comes
    from. A class without images weighs nothing.
    """
    if not balanced:
        return np.ones(n_classes)
    share = np.bincount(labels, minlength=n_classes) / len(labels)
    if real_share is not None and 0 < n_real < len(labels):
        real = np.bincount(labels[:n_real], minlength=n_classes) / n_real
        made = np.bincount(labels[n_real:], minlength=n_classes) / (len(labels) - n_real)
        share = real_share * real + (1 - real_share) * made
    present = share > 0
    weights = np.zeros(n_classes)
    weights[present] = 1 / (share[present] * present.sum())
    return weights


def _positions(steps: int, looks: int) -> set[int]:
    """Return after which steps to look: equally far apart, the last step among them."""
    looks = max(1, min(looks, steps))
    return {round(steps * (k + 1) / looks) for k in range(looks)}


def _smaller(size: int, error: Exception, smallest: int = _SMALLEST) -> int:
    """Return half as many images at once after memory ran out. Raises what else went wrong."""
    said = str(error).lower()
    if not isinstance(error, MemoryError) and not any(words in said for words in _NO_MEMORY):
        raise error
    if size <= smallest:
        raise TrainingFailed(
            f"there is not enough memory for the network and {size} images at once. Smaller images "
            "need less: -o input_size=WxH; or take a smaller network"
        ) from error
    half = max(smallest, size // 2)
    log.warning("not enough memory for %d images at once: going on with %d", size, half)
    return half


def _free() -> None:
    """Give back what a failed step held; its exception must be gone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
