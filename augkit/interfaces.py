"""The whole plugin contract: what a plugin receives (Samples, Context) and what it offers.

An augmenter or a classifier is a dataclass whose fields are its options; a class attribute `name`
is what users type. The smallest useful augmenter:

    @dataclass
    class Invert(Augmenter):
        name = "invert"
        def apply(self, images, labels, params):
            return 255 - images
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

Shape = tuple[int, int, int]
"""Height, width and channels of one image, in this order."""


class Samples(ABC):
    """A lazy view of rows: images are read when asked for, never all at once.

    The order is fixed; `ids[i]`, `labels[i]` and image i belong together.
    """

    shape: Shape
    """Height, width and channels (1 or 3) of every image."""

    digest: str
    """Names the pixels and their order; equal digests mean equal images."""

    @property
    @abstractmethod
    def ids(self) -> np.ndarray:
        """Return int64 (N,), unique within the store; negative for rows that are not stored."""

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """Return int64 (N,), indices into the classes. Raises LineageError on test samples."""

    @abstractmethod
    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the images of a slice: uint8 (n, H, W, C), a new array."""

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows, in the order asked: uint8 (n, H, W, C), a new array.

        rows: int64 (n,), positions; one may be asked for twice.
        """
        found = [self[i : i + 1] for i in rows.tolist()]
        return np.concatenate(found) if found else np.empty((0, *self.shape), np.uint8)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def blocks(self, n: int = 64) -> Iterator[np.ndarray]:
        """Yield the images in order, n at a time: uint8 (n, H, W, C), the last block shorter."""
        for start in range(0, len(self), n):
            yield self[start : start + n]


class Progress(Protocol):
    """Told how far a long piece of work has come."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Take note: `done` of `total` steps of `stage` are finished; `note` says how it goes."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Do nothing: the progress of a caller who does not want to know."""


def never() -> bool:
    """Return False: nobody asks for an early end."""
    return False


Extractor = Callable[[np.ndarray], np.ndarray]
"""Turns images uint8 (n, H, W, C) into features float32 (n, d), each row by itself."""


def extract(key: str, function: Extractor, samples: Samples) -> np.ndarray:
    """Return float32 (N, d): `function` applied block by block, without a cache."""
    blocks = [np.array(function(images), np.float32) for images in samples.blocks()]
    return np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Context:
    """What the core gives to a plugin that learns."""

    seed: int
    """Governs every random choice of the fit."""

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""

    device: str = "cpu"
    """A torch device name."""

    folder: Path | None = None
    """Where checkpoints may be written; None: nowhere."""

    max_steps: int | None = None
    """The most optimiser steps allowed; None: until convergence."""

    looks: int | None = None
    """How often a classifier that takes steps looks at the validation part; None: as it likes."""

    n_real: int | None = None
    """How many rows of a classifier's training samples, the first ones, are real; None: all."""

    real_share: float | None = None
    """The share of real images in each batch of an augmented arm; None: as they come."""

    balance: bool = True
    """Whether the classes of the training part weigh the same in the loss of a classifier."""

    deadline: float | None = None
    """A time.monotonic() value at which to stop with what there is; None: no limit."""

    interrupted: Callable[[], bool] = never
    """True once the user wants to stop: write a checkpoint and return; nothing is committed."""

    progress: Progress = silent

    cached: Callable[[str, Extractor, Samples], np.ndarray] = extract
    """`cached(key, function, samples)` -> float32 (N, d): features of images, computed at most
    once for each key and image. `key` names the function and everything it depends on."""


@dataclass(frozen=True)
class Fitted:
    """What an augmenter says of its own fit."""

    complete: bool = True
    """False if it was stopped early and can be continued."""

    note: str = ""
    """What everybody who uses the model should know, in half a sentence; empty: nothing."""

    details: dict[str, Any] = field(default_factory=dict)
    """JSON values, kept with the model: steps, device, time."""


@dataclass(frozen=True)
class Window:
    """For each of N rows the rectangle of the source that fills the output.

    The rectangle is in whole source pixels and may reach beyond the image; what lies outside is
    black. `mirrored` rows are flipped left to right after that.
    """

    x: np.ndarray
    """int64 (N,), left edge."""
    y: np.ndarray
    """int64 (N,), upper edge."""
    width: np.ndarray
    """int64 (N,), > 0."""
    height: np.ndarray
    """int64 (N,), > 0."""
    mirrored: np.ndarray
    """bool (N,)."""
    exact: bool = False
    """Interpolate with the bit-stable cv2.INTER_LINEAR_EXACT instead of cv2.INTER_LINEAR."""
    seen: np.ndarray | None = None
    """int64 (N, 4), left, right, upper and lower edge of what may be shown of the source; the rest
    is black as well. None: the whole image. Set where one window is applied to another's output."""


@dataclass
class Augmenter:
    """Makes new images. Subclass it as a dataclass; its fields are the plugin's options.

    Randomness is drawn once, in `plan`, and stored with the rows; `apply` is pure. Write `apply`,
    or describe the work as a window or a table, which makes chains faster and sharper.
    """

    name: ClassVar[str] = ""
    """What users type: short, lower case, hyphenated."""

    family: ClassVar[Literal["traditional", "generative"]] = "traditional"
    """Traditional: each new image has one parent. Generative: made from what was fitted."""

    deterministic: ClassVar[bool] = False
    """True if a source can give only one image; the core then refuses more than one."""

    def settle(self, shape: Shape, device: str) -> Augmenter:
        """Return these options with those filled in that the images or the device decide.

        Only for augmenters that learn. A run records what is returned.
        """
        return self

    def usual_budget(self, device: str) -> float | None:
        """Return the seconds that `fit` gets where the user names none; None: no limit."""
        return None

    def fit(self, train: Samples, context: Context) -> Fitted | None:
        """Learn from the training part. Only for augmenters that learn.

        `context.seed` is the option `fit_seed`, if there is one. None means `Fitted()`.
        """

    def plan(self, labels: np.ndarray, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        """Return a structured array (N,) with everything random, one row for each output.

        labels: int64 (N,), the class of each output. By default one 64-bit `seed` a row.
        """
        params = np.empty(len(labels), [("seed", np.uint64)])
        params["seed"] = rng.integers(0, 2**64, len(labels), np.uint64)
        return params

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        """Return the new images: uint8 (N, H, W, C). Pure: same input, same pixels.

        images: uint8 (N, H, W, C), not to be modified; None for the generative family.
        labels: int64 (N,). params: (N,), the rows of `plan` that belong to them.
        """
        from augkit.windows import render

        if images is None:
            raise NotImplementedError(f"{type(self).__name__} must define apply()")
        window = self.as_window(params, images.shape[1:])
        table = self.as_lut(params)
        if window is None and table is None:
            raise NotImplementedError(f"{type(self).__name__} must define apply()")
        return render(images, window, table)

    def apply_masks(self, masks: np.ndarray, params: np.ndarray) -> np.ndarray | None:
        """Return the masks moved like the images, uint8 (N, H, W) of 0 and 255, or None.

        None means that the new rows have no masks.
        """
        from augkit.windows import render_masks

        window = self.as_window(params, (*masks.shape[1:], 1))
        if window is not None:
            return render_masks(masks, window)
        return masks if self.as_lut(params) is not None else None

    def as_window(self, params: np.ndarray, shape: Shape) -> Window | None:
        """Return the rows as rectangles of the source, if that is all this plugin does."""
        return None

    def as_lut(self, params: np.ndarray) -> np.ndarray | None:
        """Return uint8 (N, 256), the new grey level for each old one, if that is all it does."""
        return None

    def interpolate(self, label: int, params: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return the way from one image to another: uint8 (k, H, W, C). Only where there is one.

        label: the class of both. params: (2,), the rows of `plan` that both come from. shares:
        float64 (k,) in 0..1; 0 gives the pixels that `apply` makes of the first, 1 of the second.
        """
        raise NotImplementedError(f"{type(self).__name__} must define interpolate()")

    def save(self, folder: Path) -> None:
        """Write what was learned into an empty folder: safetensors and JSON, never pickle."""
        raise NotImplementedError(f"{type(self).__name__} must define save()")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        raise NotImplementedError(f"{type(self).__name__} must define load()")

    def environment(self) -> dict[str, str]:
        """Return what besides options and model decides the pixels to the last bit: versions."""
        return {}

    @property
    def learns(self) -> bool:
        """True if this augmenter must be fitted before it can make images."""
        return type(self).fit is not Augmenter.fit

    @property
    def interpolates(self) -> bool:
        """True if it can show the way from one of its images to another."""
        return type(self).interpolate is not Augmenter.interpolate


@dataclass(frozen=True, order=True)
class Schedule:
    """How long a classifier that takes optimiser steps trains: the same in every arm.

    The longer of two is the greater.
    """

    steps: int
    """The most optimiser steps of a fit."""

    looks: int
    """How often it looks at the validation part, equally far apart; the best look is kept."""


@dataclass(frozen=True)
class Cost:
    """What a classifier costs on this machine, in seconds, measured on a few images."""

    setup: float = 0.0
    """Of each fit, whatever its length."""

    step: float = 0.0
    """Of an optimiser step."""

    look: float = 0.0
    """Of a look at the validation part, without its images."""

    image: float = 0.0
    """Of predicting one image."""

    features: dict[str, float] = field(default_factory=dict)
    """Of the features of one image, by the key that `Context.cached` gets."""


@dataclass(frozen=True)
class Look:
    """What a fit saw when it looked at the validation part."""

    step: int
    """Optimiser steps done."""

    train_loss: float
    """Mean over the training batches since the look before."""

    validation_loss: float


@dataclass(frozen=True)
class About:
    """What a listing says of a classifier without importing its library."""

    parameters: int | None = None
    """Weights and biases, with the output layer that it was published with."""

    input_size: str = ""
    """WxH of the images that it was made for."""

    weights: str = ""
    """Which weights it starts from."""

    here: bool | None = None
    """Whether they are on this machine; None: it needs none."""

    source: str = ""
    """Who published the network."""

    licence: str = ""
    """Of the weights."""


@dataclass
class Classifier(ABC):
    """Learns classes from images. Subclass it as a dataclass; its fields are the options.

    It never sees the labels of the test part and never scores itself. What is learned is kept in
    attributes that end in an underscore; fitting twice equals fitting once.
    """

    name: ClassVar[str] = ""
    """What users type: short, lower case, hyphenated."""

    family: ClassVar[str] = "classifier"
    """A word for listings: network, linear, classical."""

    deterministic: ClassVar[bool] = False
    """True if the seed changes nothing; it is then fitted once for each partition."""

    fast: ClassVar[bool] = False
    """True if a fit takes seconds; it is then evaluated with five folds by default."""

    uses_device: ClassVar[bool] = False
    """True if it computes on `Context.device`; the others are always given the CPU."""

    @classmethod
    def about(cls) -> About | None:
        """Return what a listing says; None: nothing to say. Must not import torch."""
        return None

    def settle(self, shape: Shape, device: str) -> Classifier:
        """Return these options with those filled in that the images, the device or this machine
        decide, such as which weights are to be had.

        An evaluation records what is returned. Raises AugkitError where the options cannot be met.
        """
        return self

    def provenance(self) -> dict[str, str]:
        """Return what besides options and images decides the outcome.

        Asked of what `settle` returned. `weights` is what every table says of the weights, `sha256`
        identifies them; where it is given, neither their place nor their name counts.
        """
        return {}

    def caveat(self) -> str:
        """Return what everybody who reads the numbers must know, in one sentence; empty: nothing.

        Asked of what `settle` returned.
        """
        return ""

    def schedule(
        self, n_real: int, n_largest: int, *, equal_epochs: bool = False
    ) -> Schedule | None:
        """Return how long a fit trains, for all arms alike; None: until convergence.

        n_real: training images of the arm `real`; n_largest: of the largest arm. equal_epochs: as
        in the paper, every arm passes equally often over its own images; both are their number.
        """
        return None

    def cost(self, train: Samples, context: Context) -> Cost | None:
        """Measure what this classifier costs here, on a few images; None: seconds, no estimate."""
        return None

    @abstractmethod
    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        """Learn from `train`, choose (stopping, hyper-parameters) on `val`."""

    def history(self) -> Sequence[Look]:
        """Return the looks of the last fit, for learning curves; empty: there are none to show."""
        return ()

    @abstractmethod
    def predict_proba(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, n_classes), rows sum to 1, columns in the order of the classes."""


@dataclass
class ArraySamples(Samples):
    """Samples held in memory, for tests and small experiments."""

    images: np.ndarray
    """uint8 (N, H, W, C)."""
    targets: np.ndarray
    """int64 (N,)."""
    shape: Shape = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        import hashlib

        self.shape = (self.images.shape[1], self.images.shape[2], self.images.shape[3])
        self.digest = hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    @property
    def ids(self) -> np.ndarray:
        """Return -1, -2, ...: rows that are in no store."""
        return -1 - np.arange(len(self.targets))

    @property
    def labels(self) -> np.ndarray:
        """Return int64 (N,)."""
        return self.targets

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a copy of the images of a slice."""
        return self.images[rows].copy()

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows."""
        return self.images[rows]
