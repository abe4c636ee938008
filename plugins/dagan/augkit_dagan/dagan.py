"""The plugin `dagan`: its options and presets, and the methods of the contract."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from augkit.errors import InputError, OptionError
from augkit.interfaces import Augmenter, Context, Fitted, Samples, Shape
from augkit.options import SIZE, option, size_of
from augkit.tables import counted

if TYPE_CHECKING:  # they import torch
    from augkit_dagan.sampling import Generators

Policy = Literal["translation", "brightness", "contrast", "flip"]

PAPER_EPOCHS, PAPER_BATCH = 700, 64
LEAST_IMAGES = 8
"""Of a class, to train on."""

CPU_BUDGET = 1800.0
"""Seconds of training where the user names neither preset, length nor budget, without a GPU."""

_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "epochs": PAPER_EPOCHS,
        "batch": PAPER_BATCH,
        "learning_rate": 1e-4,
        "penalty_every": 1,
        "ema": 0.0,
    },
    "small": {
        "epochs": 175,
        "batch": 16,
        "learning_rate": 2e-4,
        "penalty_every": 4,
        "ema": 0.999,
    },
    "quick": {
        "steps": 300,
        "batch": 16,
        "learning_rate": 2e-4,
        "penalty_every": 4,
        "ema": 0.99,
    },
}
_LONGEST_SIDE = {"small": 96, "quick": 48}
"""Pixels; `paper` trains at the size of the store."""


@dataclass
class Dagan(Augmenter):
    """A WGAN-GP for each class makes new images from noise.

    Generator and critic, schedule and latents are those of Al-Dhabyani et al. 2019; what the paper
    leaves open is as in Gulrajani et al. 2017. Every option that is `none` is what the preset says.
    """

    name = "dagan"
    family = "generative"

    preset: Literal["auto", "paper", "small", "quick"] = option(
        "auto",
        "paper: to the letter; small: about 96x80, cheaper steps; quick: about 48x40, two minutes; "
        "auto: paper on a GPU, else small",
    )
    size: str | None = option(None, "WxH to train at; samples are resized to the store's size")
    epochs: int | None = option(
        None, "passes over a class, ceil(N / batch) generator steps each", low=1
    )
    steps: int | None = option(None, "generator steps for each class, instead of epochs", low=1)
    batch: int | None = option(None, "images of a step", low=2, high=4096)
    learning_rate: float | None = option(None, "of both Adams", low=1e-7, high=1)
    widths: tuple[int, ...] | None = option(
        None,
        "channels before each doubling; none: 16 at the image, doubled inwards up to 256",
        low=1,
    )
    latent: int = option(128, "numbers that an image is made from", low=1, high=65536)
    critic_steps: int = option(5, "steps of the critic for one of the generator", low=1, high=100)
    penalty: float = option(10.0, "weight of the gradient penalty", low=0)
    penalty_every: int | None = option(
        None, "penalise every n-th critic step, with n times the weight", low=1, high=64
    )
    ema: float | None = option(
        None, "decay of the averaged generator that samples; 0: the last one", low=0, high=0.99999
    )
    diffaugment: tuple[Policy, ...] | None = option(
        None, "shown to the critic: translation, brightness, contrast, flip, joined by commas"
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = option(
        "auto", "of all but the penalty and the samples; auto: bfloat16 where it is fast"
    )
    fit_seed: int = option(
        0, "governs the training; --seed governs what is sampled", low=0, high=2**63 - 1
    )

    def check(self) -> None:
        """Raise OptionError for options that contradict each other."""
        if self.size is not None and not SIZE.fullmatch(self.size):
            raise OptionError(f"option 'size' of dagan is {self.size!r}; it must be like 96x80")
        if self.epochs is not None and self.steps is not None:
            raise OptionError("dagan takes epochs or steps, not both")
        if self.diffaugment is not None and len(set(self.diffaugment)) < len(self.diffaugment):
            raise OptionError("option 'diffaugment' of dagan names a policy twice: name each once")

    def usual_budget(self, device: str) -> float | None:
        """Return 30 minutes on a CPU where neither preset nor length is named."""
        named = self.preset != "auto" or self.epochs is not None or self.steps is not None
        return None if named or device != "cpu" else CPU_BUDGET

    def settle(self, shape: Shape, device: str) -> Dagan:
        """Return these options with all that preset, image and device decide filled in.

        Raises OptionError for a size that cannot be doubled to, or widths that do not fit it.
        """
        preset = self.preset
        if preset == "auto":
            preset = "small" if device == "cpu" else "paper"
        given = dict(_PRESETS[preset])
        if self.epochs is not None or self.steps is not None:
            given |= {"epochs": self.epochs, "steps": self.steps}
        filled: dict[str, Any] = {"preset": preset}
        filled |= {k: v for k, v in given.items() if getattr(self, k) is None}
        filled["size"] = self.size or _size_for(shape, _LONGEST_SIDE.get(preset))
        doublings = _doublings(filled["size"], shape)
        filled["widths"] = self.widths or usual_widths(doublings)
        if len(filled["widths"]) != doublings:
            raise OptionError(
                f"option 'widths' of dagan has {len(filled['widths'])} numbers; images of "
                f"{filled['size']} are doubled {doublings} times and need {doublings}"
            )
        return replace(self, **filled)

    def fit(self, train: Samples, context: Context) -> Fitted:
        """Train a generator for each class that `train` holds; go on from checkpoints.

        Raises InputError for a class of fewer than 8 images, TrainingFailed where the loss is not
        finite or a checkpoint cannot be used.
        """
        from augkit_dagan.training import train_generators

        settled = self.settle(train.shape, context.device)
        counts = np.bincount(train.labels, minlength=len(context.classes))
        for name, n in zip(context.classes, counts.tolist(), strict=True):
            if 0 < n < LEAST_IMAGES:
                raise InputError(
                    f"class {name!r} has {counted(n, 'training image')}; dagan needs at least "
                    f"{LEAST_IMAGES} of each class. Ingest more, or use a traditional augmenter "
                    "for this data"
                )
        made = train_generators(settled, train, context)
        self.generators_: Generators = made[0]
        return made[1]

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        """Return uint8 (N, H, W, C): for each row what its `seed` makes of its class.

        On the CPU, in float32, in blocks of 16 padded with zeros: the same pixels whatever the
        rows are asked for with.
        """
        return self.generators_.sample(labels, params["seed"])

    def interpolate(self, label: int, params: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return uint8 (k, H, W, C): the way from the latents of one row to those of another."""
        return self.generators_.between(label, params["seed"], shares)

    def environment(self) -> dict[str, str]:
        """Return the version of torch and the instruction set: they decide the last bit."""
        from augkit_dagan.sampling import environment

        return environment()

    def save(self, folder: Path) -> None:
        """Write the generators: `weights.safetensors` and `model.json`."""
        self.generators_.save(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote. Raises InputError if these are other files, or damaged."""
        from augkit_dagan.sampling import Generators

        self.generators_ = Generators.load(folder)


def usual_widths(doublings: int) -> tuple[int, ...]:
    """Return the channels before each doubling: 16 before the last, twice that before, up to 256.

    Five doublings give 256, 128, 64, 32, 16.
    """
    return tuple(min(16 * 2**k, 256) for k in reversed(range(doublings)))


def _size_for(shape: Shape, longest: int | None) -> str:
    """Return the size to train at: the store's, or one like it with sides of multiples of 8."""
    height, width, _ = shape
    if longest is None:
        return f"{width}x{height}"
    share = min(1.0, longest / max(height, width))
    near = [max(8, 8 * round(side * share / 8)) for side in (width, height)]
    return f"{near[0]}x{near[1]}"


def _doublings(size: str, shape: Shape) -> int:
    height, width = size_of(size)
    if height % 8 or width % 8:
        near = _size_for((height, width, 1), max(height, width))
        raise OptionError(
            f"dagan cannot double up to {size}: both sides must be multiples of 8. "
            f"Train at another size, samples are resized: -o size={near}"
        )
    from augkit_dagan.networks import n_doublings

    return n_doublings(height, width)
