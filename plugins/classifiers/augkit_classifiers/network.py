"""What all networks share: options, weights, the frozen body with its cached features, fitting.

An architecture adds its name, where its ImageNet weights are published, and how it is built.
"""

from __future__ import annotations

import math
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from augkit.devices import realised_precision
from augkit.errors import InputError, OptionError
from augkit.interfaces import About, Classifier, Context, Cost, Look, Samples, Schedule, Shape
from augkit.options import SIZE, option, size_of
from augkit_classifiers.machines import classes_present
from augkit_classifiers.preprocessing import HALF, Preprocessing
from augkit_classifiers.weights import Published, load_into, missing, read_state, sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from augkit_classifiers.training import Rows

_PREDICTED_AT_ONCE = 32
_BLOCK = 16
"""Images that a frozen body sees at once, short blocks padded."""


@dataclass
class Network(Classifier):
    """A network with a new output layer."""

    family = "network"
    uses_device = True

    published: ClassVar[Published | None] = None
    """Its ImageNet weights; None: nobody publishes any."""
    parameters: ClassVar[int] = 0
    made_for: ClassVar[tuple[int, int]] = (224, 224)
    """Height and width of the images that its weights were made for."""
    mean: ClassVar[tuple[float, ...]] = HALF
    std: ClassVar[tuple[float, ...]] = HALF
    """Of the images that its weights were made for, in 0..1."""
    head: ClassVar[str] = ""
    """Its output layer, by its name in the network."""
    smallest: ClassVar[int] = 32
    """Pixels that each side must have at least."""
    patience: ClassVar[int | None] = None
    """Looks without improvement after which training stops."""
    fell_back_: ClassVar[bool] = False
    """Set where `auto` found no weights."""

    weights: str = option(
        "auto", "imagenet; none; the path of a file; auto: imagenet where they can be had"
    )
    train: Literal["head", "all"] | None = option(
        None, "head: the output layer alone; all: the whole network; none: head if it has weights"
    )
    epochs: int = option(10, "passes over the training images; see the docs on budgets", low=1)
    batch: int = option(32, "images of a step", low=4, high=4096)
    learning_rate: float = option(1e-3, "of Adam", low=1e-7, high=1)
    input_size: str | None = option(
        None, "WxH that images are resized to; none: what the weights, else the images, have"
    )
    class_weight: Literal["balanced", "none"] = option(
        "balanced", "balanced: every class weighs the same; none: every image does"
    )
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "in which a whole network is trained; auto: bfloat16 where it is fast"
    )

    @abstractmethod
    def build(self, n_classes: int, channels: int) -> nn.Module:
        """Return the network, freshly initialised."""

    def body_of(self, network: nn.Module) -> nn.Module:
        """Return a network without its output layer: it gives features (N, d)."""
        return with_head(network, self.head, 0)

    # -- what is known before it starts ----------------------------------------------------------

    @classmethod
    def about(cls) -> About:
        """Return what a listing says; nothing is imported for it."""
        published = cls.published
        height, width = cls.made_for
        return About(
            parameters=cls.parameters,
            input_size=f"{width}x{height}",
            weights=published.label if published else "none",
            here=published.here() is not None if published else None,
            source=published.source if published else "",
            licence=published.licence if published else "",
        )

    def check(self) -> None:
        """Raise OptionError for options that contradict each other."""
        if self.input_size is not None and not SIZE.fullmatch(self.input_size):
            raise OptionError(
                f"option 'input_size' of {self.name} is {self.input_size!r}; it is like 224x224"
            )
        if self.weights == "none" and self.train == "head":
            raise OptionError(self._frozen_noise("weights=none"))

    def settle(self, shape: Shape, device: str) -> Network:
        """Return these options with weights, what is trained, and the size of images filled in.

        Raises InputError for weights that cannot be had or do not fit, OptionError for a frozen
        body without weights.
        """
        weights = self._resolved()
        train = self.train or ("all" if weights == "none" else "head")
        if weights == "none" and train == "head":
            raise OptionError(self._frozen_noise(f"weights={self.weights} gives none here"))
        size = self.input_size or self._usual_size(shape, weights)
        settled = replace(
            self,
            weights=weights,
            train=train,
            input_size=size,
            precision=self._realised(device) if train == "all" else "float32",
        )
        height, width = settled._size()
        if min(height, width) < self.smallest:
            raise OptionError(
                f"{self.name} needs images of at least {self.smallest} pixels a side, not "
                f"{width}x{height}: -o input_size=WxH"
            )
        if weights == "none" and self.weights == "auto":
            settled.__dict__["fell_back_"] = True
        settled._try()
        return settled

    def sized(self, shape: Shape) -> Network:
        """Return these options with the size of images filled in; the rest must be settled."""
        return replace(self, input_size=self.input_size or self._usual_size(shape, self.weights))

    def _try(self) -> None:
        """Find out weights of another network before anything starts."""
        if self.weights != "none":
            self._loaded(2)

    def _realised(self, device: str) -> Literal["float32", "bfloat16"]:
        found = realised_precision(self.precision, device.partition(":")[0])
        return "bfloat16" if found == "bfloat16" else "float32"

    def provenance(self) -> dict[str, str]:
        """Return what the weights are, and their SHA-256."""
        if self.weights == "none":
            return {"weights": "none, trained from scratch"}
        path, published = self._path(), self._published()
        said = path.name
        if self.weights == "imagenet" and published is not None:
            said = f"imagenet ({published.label})" if published.imagenet else published.label
        return {"weights": said, "sha256": sha256_of(path)}

    def caveat(self) -> str:
        """Return in words that there are no weights, where the network is known for its own."""
        by_design = type(self).weights == "none" and not self.fell_back_
        if self.weights != "none" or by_design:
            return ""
        return (
            f"{self.name} starts WITHOUT ImageNet weights: the whole network is trained from "
            "scratch on these few images, which says little about the pretrained network"
        )

    def schedule(
        self, n_real: int, n_largest: int, *, equal_epochs: bool = False
    ) -> Schedule | None:
        """Return steps and looks.

        An output layer on frozen features passes `epochs` times over the largest arm; a whole
        network twice as often over the real images, so that half of each batch may be others.
        """
        n, times = (n_largest, 1) if self.train == "head" or equal_epochs else (n_real, 2)
        return Schedule(times * self.epochs * math.ceil(n / self.batch), self.epochs)

    def cost(self, train: Samples, context: Context) -> Cost:
        """Measure features, or steps of the whole network, on a few images."""
        self._begin(context)
        with seeded(context.seed):
            return self._cost_of_head(train) if self.train == "head" else self._cost_of_all(train)

    # -- fitting and predicting ------------------------------------------------------------------

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        """Train the output layer, or the whole network, and keep the best look on `val`.

        Raises InputError if `train` holds fewer than two classes, TrainingFailed where the loss is
        not finite or memory does not hold a batch of two.
        """
        if self.train is None or self.weights == "auto" or self.input_size is None:
            self.settle(train.shape, context.device)._fit_into(self, train, val, context)
        else:
            self._fit_into(self, train, val, context)

    def _fit_into(self, owner: Network, train: Samples, val: Samples, context: Context) -> None:
        """Fit with settled options; what is learned is kept by `owner`."""
        classes_present(train.labels, self.name, context)
        self._begin(context)
        if self.train == "head":
            self._fit_head(train, val)
        else:
            self._fit_all(train, val)
        owner.__dict__.update({k: v for k, v in vars(self).items() if k.endswith("_")})

    def predict_proba(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, classes), the softmax of the scores in float64."""
        from augkit_classifiers.training import predict

        n_classes = len(self.context_.classes)
        if not len(samples):
            return np.empty((0, n_classes), np.float32)
        inputs, at_once = self.inputs_(samples)
        scores = predict(self.network_, inputs, len(samples), at_once=at_once)
        return scores.double().softmax(1).numpy().astype(np.float32)

    def _begin(self, context: Context) -> None:
        import torch

        self.context_ = context
        self.device_ = torch.device(context.device)

    def _fit_head(self, train: Samples, val: Samples) -> None:
        """Train a linear layer on the features of the frozen body."""
        from torch import nn

        self.inputs_ = self._feature_rows
        d = self._features(train).shape[1]  # outside of the seed: whether they are cached must not
        with seeded(self.context_.seed):  # change what is drawn
            layer = nn.Linear(d, len(self.context_.classes))
            self.network_: nn.Module = layer.to(self.device_)
            self._train(train, val, real_share=None)

    def _fit_all(self, train: Samples, val: Samples) -> None:
        """Train the whole network."""
        self.inputs_ = self._image_rows
        with seeded(self.context_.seed):
            network = self._loaded(len(self.context_.classes), self._channels(train))
            self.network_ = network.to(self.device_)
            self._train(train, val, real_share=self.context_.real_share)

    def _train(self, train: Samples, val: Samples, *, real_share: float | None) -> None:
        from augkit_classifiers import training

        context, labels = self.context_, train.labels
        balanced = context.balance and self.class_weight == "balanced"
        weigh = partial(training.class_weights, n_classes=len(context.classes))
        n_real = len(train) if context.n_real is None else context.n_real
        if real_share is not None and 0 < n_real < len(train):
            real_share = training.n_real_of(self.batch, real_share) / self.batch
        mix: dict[str, Any] = {"n_real": n_real, "real_share": real_share}
        usual = self.schedule(n_real, len(train))
        assert usual is not None
        plan = training.Plan(
            steps=context.max_steps or usual.steps,
            looks=context.looks or usual.looks,
            batches=training.batches(
                len(train), self.batch, np.random.default_rng(context.seed), **mix
            ),
            class_weights=weigh(labels, balanced=balanced, **mix),
            look_weights=weigh(val.labels, balanced=balanced and len(val) > 0),
            learning_rate=self.learning_rate,
            at_once=self.inputs_(val)[1] if len(val) else 1,
            patience=self.patience,
            bfloat16=self.precision == "bfloat16",
            progress=context.progress,
            stage=f"{self.name} seed {context.seed}",
        )
        seen = training.Rows(self.inputs_(val)[0] if len(val) else _nothing, val.labels)
        work = training.Training(self.network_, plan, self.device_)
        work.run(training.Rows(self.inputs_(train)[0], labels), seen)
        self.history_ = work.history

    def history(self) -> Sequence[Look]:
        """Return the looks of the last fit."""
        return self.history_

    def _image_rows(self, samples: Samples) -> tuple[Callable[[np.ndarray], Tensor], int]:
        """Return what turns positions into images for the network, and how many at once."""
        prepare = self._preprocessing(self._channels(samples))
        return (
            lambda rows: prepare(samples.gather(rows)).to(self.device_, non_blocking=True),
            _PREDICTED_AT_ONCE,
        )

    def _feature_rows(self, samples: Samples) -> tuple[Callable[[np.ndarray], Tensor], int]:
        """Return what turns positions into features, and how many at once."""
        import torch

        held = torch.from_numpy(self._features(samples)).to(self.device_)
        return lambda rows: held[torch.from_numpy(rows).to(self.device_)], 65536

    # -- the frozen body -------------------------------------------------------------------------

    def features(self, samples: Samples, context: Context) -> np.ndarray:
        """Return float32 (N, d), the features of the frozen body. The options must be settled."""
        self._begin(context)
        return self._features(samples)

    def _features(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, d) of the frozen body, from the cache where they are known."""
        return self.context_.cached(self.feature_key(), self._body_features(), samples)

    def feature_key(self) -> str:
        """Return what names the features: network, weights, preprocessing, and kind of device."""
        digest = sha256_of(self._path())
        words = [self._architecture(), digest, self._preprocessing(3).key(), self.device_.type]
        return " ".join([*words, "features-2"])

    def _body_features(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function from images uint8 (n, H, W, C) to features; loads when first used."""
        import torch

        prepare = self._preprocessing(3)

        def features(images: np.ndarray) -> np.ndarray:
            from augkit_classifiers.training import predict

            # Always as many at once: sums in another order change the last bits, and every other
            # number makes oneDNN keep another set of kernels.
            padding = -len(images) % _BLOCK
            padded = np.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
            found = predict(
                self._body(),
                lambda rows: prepare(padded[rows]).to(self.device_),
                len(padded),
                at_once=_BLOCK,
            )
            return torch.flatten(found[: len(images)], 1).numpy()

        return features

    def _body(self) -> nn.Module:
        """Return the frozen body; loaded when it is first asked for."""
        if not hasattr(self, "body_"):
            with seeded(0):
                self.body_ = self.body_of(self._loaded(2)).to(self.device_)
        return self.body_

    def _architecture(self) -> str:
        """Return what tells this network from others of the same plugin."""
        return self.name

    def _loaded(self, n_classes: int, channels: int = 3) -> nn.Module:
        """Return the network with its weights; the output layer, if any, is new."""
        import torch

        network = self.build(n_classes, channels if self.weights == "none" else 3)
        if self.weights != "none":
            load_into(network, self._state(), heads=self._heads(), source=str(self._path()))
        return network.to(memory_format=torch.channels_last)

    def _heads(self) -> tuple[str, ...]:
        return (self.head,)

    # -- weights and sizes -----------------------------------------------------------------------

    def _published(self) -> Published | None:
        return self.published

    def _resolved(self) -> str:
        """Return `imagenet`, `none`, or the absolute path of a weights file."""
        published = self._published()
        if self.weights == "none" or (self.weights == "auto" and published is None):
            return "none"
        if self.weights in ("auto", "imagenet"):
            if published is None:
                raise OptionError(
                    f"nobody publishes ImageNet weights of this {self.name}: -o weights=none"
                )
            if published.obtain() is not None:
                return "imagenet"
            if self.weights == "auto":
                return "none"
            raise missing(self.name, published)
        path = Path(os.path.expanduser(self.weights))  # noqa: PTH111  # without HOME as it is
        if not path.is_file():
            raise InputError(
                f"there is no weights file {self.weights}; weights is auto, imagenet, none, or the "
                "path of a file"
            )
        return str(path.resolve())

    def _path(self) -> Path:
        """Return the file of the weights."""
        published = self._published()
        if self.weights != "imagenet" or published is None:
            return Path(self.weights)
        found = published.here()
        if found is None:
            raise missing(self.name, published)
        return found

    def _state(self) -> Any:
        published, path = self._published(), self._path()
        if self.weights == "imagenet" and published is not None:
            return published.state(path)
        return read_state(path)

    def _usual_size(self, shape: Shape, weights: str) -> str:
        """Return the size of the weights; without any that of the images, if it is large enough."""
        height, width = self._made_for() if weights != "none" else shape[:2]
        larger = max(1.0, self.smallest / min(height, width))
        return f"{math.ceil(width * larger)}x{math.ceil(height * larger)}"

    def _made_for(self) -> tuple[int, int]:
        return self.made_for

    def _size(self) -> tuple[int, int]:
        """Return height and width of what the network gets."""
        assert self.input_size is not None
        return size_of(self.input_size)

    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return (self.mean, self.std) if self.weights != "none" else (HALF, HALF)

    def _preprocessing(self, channels: int) -> Preprocessing:
        return Preprocessing(*self._size(), channels, *self._statistics())

    def _channels(self, samples: Samples) -> int:
        return 3 if self.weights != "none" else samples.shape[2]

    def _frozen_noise(self, why: str) -> str:
        return (
            f"{why}, and train=head would freeze a body of random numbers. Train the whole "
            "network, -o train=all; or take one whose weights are on board: "
            "--classifier efficientnet-lite0"
        )

    # -- what it costs ---------------------------------------------------------------------------

    def _cost_of_head(self, train: Samples) -> Cost:
        """Time the features of some images, and steps of an output layer on them."""
        import torch

        from augkit_classifiers.training import Rows

        features = self._body_features()
        images = train[0 : min(16, len(train))]
        held = torch.from_numpy(features(images)).to(self.device_)  # loads the body as well
        seconds = _seconds(lambda: features(images)) / len(images)
        layer = torch.nn.Linear(held.shape[1], len(self.context_.classes)).to(self.device_)
        rows = Rows(lambda rows: held[rows % len(images)], train.labels[: len(images)])
        step, _ = self._seconds_of_training(layer, rows)
        return Cost(step=step, features={self.feature_key(): seconds})

    def _cost_of_all(self, train: Samples) -> Cost:
        """Time setting up, steps, and predicting some images."""
        from augkit_classifiers.training import Rows, predict

        start = time.perf_counter()
        network = self._loaded(len(self.context_.classes), self._channels(train)).to(self.device_)
        setup = time.perf_counter() - start
        prepare = self._image_rows(train)[0]
        step, look = self._seconds_of_training(network, Rows(prepare, train.labels))
        n = min(_PREDICTED_AT_ONCE, len(train))
        some = partial(predict, network, prepare, n, at_once=n)
        image = min(_seconds(some), _seconds(some)) / n
        return Cost(setup=setup, step=step, look=look, image=image)

    def _seconds_of_training(self, network: nn.Module, train: Rows) -> tuple[float, float]:
        """Return the seconds of a step, of two after two that set things up; and of what a look
        takes besides its images.
        """
        from augkit_classifiers import training

        rng, even = np.random.default_rng(0), np.ones(len(self.context_.classes))
        plan = training.Plan(
            steps=2,
            looks=1,
            batches=training.batches(len(train), self.batch, rng, n_real=0, real_share=None),
            class_weights=even,
            look_weights=even,
            learning_rate=self.learning_rate,
            bfloat16=self.precision == "bfloat16",
        )
        work = training.Training(network, plan, self.device_)
        step = min(_seconds(lambda: [work.step(train) for _ in range(2)]) for _ in range(2)) / 2
        return step, _seconds(lambda: training.settle_statistics(network, train, work.recent))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let the layers that torch initialises, and dropout, draw from a seed; then as before.

    torch has no other way for these, so the global generator is lent and given back.
    """
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def with_channels(network: nn.Module, channels: int) -> nn.Module:
    """Return a network of torchvision whose first convolution takes so many channels."""
    from torch import nn

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels != channels:
                first = nn.Conv2d(
                    channels,
                    layer.out_channels,
                    layer.kernel_size,  # type: ignore[arg-type]
                    layer.stride,  # type: ignore[arg-type]
                    layer.padding,  # type: ignore[arg-type]
                    bias=layer.bias is not None,
                )
                network.set_submodule(name, first)
            break
    return network


def with_head(network: nn.Module, head: str, n_classes: int) -> nn.Module:
    """Return a network with a new output layer; with 0 classes it gives what that layer took."""
    from torch import nn

    old = network.get_submodule(head)
    new = nn.Linear(old.in_features, n_classes) if n_classes else nn.Identity()  # type: ignore[arg-type]
    network.set_submodule(head, new)
    return network


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _nothing(rows: np.ndarray) -> Tensor:
    raise AssertionError("there are no validation images to look at")
