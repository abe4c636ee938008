"""What tests need, ours and a plugin author's: phantoms, toy samples and contract checks.

A phantom is a synthetic B-mode image of a breast whose truth is known. `check_augmenter` and
`check_classifier` hold a plugin against the contract and say in one sentence what is wrong.
`Oracle`, `Copy` and `Poison` are augmenters that must help, change nothing and harm: augkit offers
them as plugins, for anybody who wants to hold its verdicts against a known truth.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from augkit import options as plugin_options
from augkit.errors import AugkitError, LineageError, OptionError
from augkit.hookspecs import hookimpl
from augkit.interfaces import ArraySamples, Augmenter, Classifier, Context, Samples, Shape
from augkit.options import option

CLASSES = ("benign", "malignant", "normal")
"""The kinds of phantom, named as in BUSI."""

# Ranges of what makes a kind, at difficulty 0. Rows: benign, malignant, normal. Decibels, except
# for the logarithm of height over width, the radius in units of the shorter side, the length of
# the spicules and the roughness in units of the radius.
_SIGNS = np.array(
    [
        # contrast    log aspect      radius        spicules     roughness     posterior    rim
        [(-26, -18), (-0.65, -0.35), (0.12, 0.21), (0.0, 0.0), (0.01, 0.03), (6, 12), (3, 8)],
        [(-24, -17), (0.10, 0.45), (0.12, 0.20), (0.5, 0.9), (0.08, 0.14), (-18, -10), (0, 2)],
        [(0, 0), (-0.30, 0.10), (0.12, 0.20), (0.0, 0.3), (0.02, 0.08), (0, 0), (0, 0)],
    ],
    float,
)  # (kinds, signs, 2)


def phantoms(
    n_per_class: int,
    *,
    classes: Sequence[str] = CLASSES,
    height: int = 160,
    width: int = 192,
    channels: int = 1,
    seed: int = 0,
    difficulty: float = 0.5,
    variety: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return synthetic breast ultrasound images with masks and labels, the classes in turn.

    Returns images uint8 (N, height, width, channels), masks uint8 (N, height, width) of 0 and 255
    (all 0 where there is no mass) and labels int64 (N,): 0, 1, 2, 0, 1, 2, ... Image i depends on
    `seed` and i alone, not on `n_per_class`; its speckle is its own.

    Fully developed, log-compressed speckle lies over wavy layers of skin, fat, gland and muscle.
    Benign: a smooth dark oval, wider than tall, bright behind. Malignant: a dark spiculated mass,
    taller than wide, with a shadow behind. Normal: neither. A class of one of these names is of
    that kind; other names take the kinds in turn, each further round with coarser speckle.

    `difficulty` (0..1) moves contrast, shape, size and what lies behind towards the same ranges
    for all classes, and makes a share of difficulty cubed look like a class drawn by lot.
    Balanced accuracy of `linear`, 100 training and 200 test images a class, 96x80, three seeds:

        difficulty           0      0.25   0.5    0.75   1
        balanced accuracy    0.99   0.96   0.80   0.45   0.35

    `variety` (0..3) makes every image one of another scanner: gain, its compensation with depth,
    dynamic range, shading and sharpness of the beam differ. What tells the classes is still there,
    but a classifier needs more images to learn what to disregard. Balanced accuracy of `linear` as
    above, at difficulty 0.1 and 48x40, with 500 fresh phantoms a class added or without:

        variety              0      1      2      3
        100 a class          0.95   0.88   0.77   0.66
        600 a class          0.98   0.93   0.87   0.77

    Sizes from 16x16. Raises OptionError for a value out of range.
    """
    n = n_per_class * len(classes)
    made = iter_phantoms(
        n_per_class,
        classes=classes,
        height=height,
        width=width,
        channels=channels,
        seed=seed,
        difficulty=difficulty,
        variety=variety,
    )
    images = np.empty((max(n, 0), height, width, channels), np.uint8)
    masks = np.empty((max(n, 0), height, width), np.uint8)
    labels = np.empty(max(n, 0), np.int64)
    for i, (image, mask, label) in enumerate(made):
        images[i], masks[i], labels[i] = image, mask, label
    return images, masks, labels


def iter_phantoms(
    n_per_class: int,
    *,
    classes: Sequence[str] = CLASSES,
    height: int = 160,
    width: int = 192,
    channels: int = 1,
    seed: int = 0,
    difficulty: float = 0.5,
    variety: float = 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Return an iterator over what `phantoms` returns: image (H, W, C), mask (H, W), label.

    One image is in memory at a time. Raises OptionError at once for a value out of range.
    """
    shape = (height, width, channels)
    _check_phantoms(n_per_class, classes, shape, seed, difficulty, variety)
    looks = _looks(classes)

    def made() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        for i in range(n_per_class * len(classes)):
            label = i % len(classes)
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, i], np.uint64)))
            how = {"difficulty": difficulty, "variety": variety}
            image, mask = _phantom(looks, label, shape, rng=rng, **how)
            yield image, mask, label

    return made()


def write_phantoms(
    folder: Path | str,
    n_per_class: int,
    *,
    classes: Sequence[str] = CLASSES,
    height: int = 160,
    width: int = 192,
    channels: int = 1,
    seed: int = 0,
    difficulty: float = 0.5,
    variety: float = 0.0,
) -> Path:
    """Write phantoms as PNG files named as in BUSI and return the folder.

    `benign/benign (1).png` has its mask in `benign/benign (1)_mask.png`; a normal image has an
    all-black mask. Files of the same name are replaced. Raises OptionError as `phantoms` does.
    """
    from PIL import Image

    folder = Path(folder)
    made = iter_phantoms(
        n_per_class,
        classes=classes,
        height=height,
        width=width,
        channels=channels,
        seed=seed,
        difficulty=difficulty,
        variety=variety,
    )
    for i, (image, mask, label) in enumerate(made):
        stem = folder / classes[label] / f"{classes[label]} ({i // len(classes) + 1})"
        stem.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if channels == 1 else image).save(f"{stem}.png")
        Image.fromarray(mask).save(f"{stem}_mask.png")
    return folder


def _check_phantoms(
    n_per_class: int,
    classes: Sequence[str],
    shape: Shape,
    seed: int,
    difficulty: float,
    variety: float,
) -> None:
    height, width, channels = shape
    if n_per_class < 0:
        raise OptionError(f"n_per_class is {n_per_class}; it must be at least 0")
    if not classes or len(set(classes)) < len(classes):
        raise OptionError(f"classes are {list(classes)}; give at least one, each name once")
    if min(height, width) < 16:
        raise OptionError(f"phantoms of {width}x{height} are too small; the least is 16x16")
    if channels not in (1, 3):
        raise OptionError(f"channels is {channels}; it must be 1 or 3")
    if not 0 <= seed < 2**64:
        raise OptionError(f"seed is {seed}; it must be in 0..2**64 - 1")
    if not 0 <= difficulty <= 1:
        raise OptionError(f"difficulty is {difficulty}; it must be in 0..1")
    if not 0 <= variety <= 3:
        raise OptionError(f"variety is {variety}; it must be in 0..3")


def _looks(classes: Sequence[str]) -> list[tuple[int, int]]:
    """Return for each class its kind (0, 1, 2) and its round (0, 1, ...), no pair twice."""
    known = {name: (kind, 0) for kind, name in enumerate(CLASSES)}
    taken = {known[name] for name in classes if name in known}
    free = ((i % 3, i // 3) for i in range(2 * len(classes) + 3) if (i % 3, i // 3) not in taken)
    return [known[name] if name in known else next(free) for name in classes]


def _phantom(
    looks: list[tuple[int, int]],
    label: int,
    shape: Shape,
    *,
    difficulty: float,
    variety: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return image uint8 (H, W, C) and mask uint8 (H, W) of one phantom of class `label`."""
    height, width, channels = shape
    by_lot, other = rng.random(), int(rng.integers(len(looks)))
    kind, round_ = looks[other if by_lot < difficulty**3 else label]
    low, high = _blend(_SIGNS, kind, difficulty).T
    signs = low + rng.random(len(low)) * (high - low)  # (signs,)
    tissue = _tissue(height, width, rng)  # (H, W), dB
    inside, echo = _mass(tissue, signs, rng)
    rounds = np.array([r for _, r in looks], float)
    coarseness = 1 + 0.6 * (round_ * (1 - difficulty) + rounds.mean() * difficulty)
    scanner = _scanner(height, width, variety, rng)
    envelope = _speckle(echo + scanner.shading, coarseness * scanner.coarseness, rng)
    envelope = envelope * scanner.contrast + scanner.gain
    image = np.rint(np.clip(255 * (envelope + 54) / 62, 0, 255)).astype(np.uint8)
    mask = np.where(inside > 0.5, 255, 0) if kind != 2 else np.zeros((height, width))
    return np.repeat(image[..., None], channels, axis=2), mask.astype(np.uint8)


@dataclass(frozen=True)
class _Scanner:
    """How a scanner was set."""

    gain: float
    """dB."""
    shading: np.ndarray | float
    """(H, W), dB, smooth: compensation with depth, coupling of the probe."""
    contrast: float
    coarseness: float


def _scanner(height: int, width: int, variety: float, rng: np.random.Generator) -> _Scanner:
    """Return settings drawn by lot; without variety those of the one scanner, and no draw."""
    if variety == 0:
        return _Scanner(0.0, 0.0, 1.0, 1.0)
    gain, contrast, coarseness, *shading = variety * rng.normal(0, 1, 7)
    down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    shapes = 5 * down, 5 * across, 6 * down**2 - 2, 6 * across**2 - 2  # dB; means 0
    shade = sum(size * shape for size, shape in zip(shading, shapes, strict=True))
    stretch = math.exp(contrast / 4)  # about the middle of what is shown
    return _Scanner(
        6 * gain + 23 * (stretch - 1),
        np.asarray(shade, np.float32),
        stretch,
        math.exp(coarseness / 4),
    )


def _blend(ranges: np.ndarray, kind: int, difficulty: float) -> np.ndarray:
    """Return (signs, 2): the ranges of a kind, moved towards those of the mean of all kinds."""
    return (1 - difficulty) * ranges[kind] + difficulty * ranges.mean(0)


def _tissue(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return the mean echo of skin, fat, gland, muscle and what lies behind: (H, W), dB."""
    thickness = np.array([0.045, 0.17, 0.36, 0.04, 0.19]) * rng.uniform(0.7, 1.3, 5)
    levels = np.array([-10.0, -25, -13, -25, -23, -34]) + rng.normal(0, 2, 6)
    depth = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height  # (H, 1)
    echo = np.full((height, width), levels[0], np.float32)
    for i, border in enumerate(np.cumsum(thickness)):
        edge = border + _wave(width, rng) * (0.01 if i == 0 else 0.03)  # (W,)
        below = np.clip((depth - edge.astype(np.float32)) * (height / 3) + 0.5, 0, 1)
        fascia = np.float32(rng.uniform(4, 12)) * below * (1 - below)
        echo += np.float32(levels[i + 1] - levels[i]) * below + 4 * fascia
    streaks = np.maximum(_cloud(height, width, (height / 4, 7), rng), 0)
    echo += 3 * _cloud(height, width, (9, 5), rng) + 5 * streaks
    tilt = (rng.normal(0, 2) * np.linspace(-1, 1, width)).astype(np.float32)
    return echo + tilt - np.float32(rng.uniform(5, 12)) * depth


def _wave(width: int, rng: np.random.Generator) -> np.ndarray:
    """Return a slow wave across the image: (W,), about -1..1."""
    x = np.linspace(0, 2 * np.pi, width)
    orders = np.array([0.5, 1.0, 1.7, 2.9])[:, None]
    phases = rng.uniform(0, 2 * np.pi, (4, 1))
    return (rng.normal(0, 1, (4, 1)) / (1 + orders) * np.sin(orders * x + phases)).sum(0)


def _cloud(
    height: int, width: int, knots: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Return smooth noise of unit variance, (H, W), with about `knots` grains down and across."""
    down, across = _bumps(height, int(knots[0])), _bumps(width, int(knots[1]))
    noise = rng.standard_normal((down.shape[1], across.shape[1]), np.float32)
    return down @ noise @ across.T


@lru_cache(maxsize=32)
def _bumps(n: int, knots: int) -> np.ndarray:
    """Return float32 (n, knots + 2): Gaussian weights, each row of unit length."""
    at = np.linspace(0, knots, n)[:, None] - np.arange(-1, knots + 1)
    weights = np.exp(-0.5 * (at / 0.6) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def _mass(
    tissue: np.ndarray, signs: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each pixel is inside the mass, 0..1, and the echo with it in dB: (H, W)."""
    contrast, aspect, radius, spicules, roughness, posterior, rim = map(float, signs)
    height, width = tissue.shape
    radius *= min(height, width)
    u, v = _axes(height, width, aspect, rng)
    outline = _outline(spicules, roughness, rng)  # (360,)
    turns = np.arctan2(v, u) * (len(outline) / (2 * np.pi))
    reach = outline[turns.astype(np.int64) % len(outline)]
    distance = np.hypot(u, v) - reach * radius  # (H, W), pixels, about
    soft = 1 + 1.5 * roughness * radius
    inside = np.clip(0.5 - distance / (2 * soft), 0, 1)
    path = np.cumsum(inside, axis=0) * (1 - inside) / (2 * radius)
    capsule = np.clip(1 - np.abs(distance - 2) / 2, 0, 1)
    texture = 1 + 0.15 * _cloud(height, width, (14, 14), rng)
    level = (tissue * inside).sum() / max(inside.sum(), 1)
    # A mass displaces the layers; the fainter it is, the more they show through.
    displaced = (level - tissue) * np.float32(min(1.0, abs(contrast) / 12))
    change = inside * (displaced + contrast * texture) + posterior * path + rim * capsule
    return inside, tissue + change


def _axes(
    height: int, width: int, aspect: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates (H, W) about a random centre in which an ellipse is a circle."""
    x0, y0 = width * rng.uniform(0.3, 0.7), height * rng.uniform(0.32, 0.52)
    turn, stretch = rng.normal(0, 0.15), math.exp(aspect / 2)
    cos, sin = math.cos(turn), math.sin(turn)
    x = (np.arange(width) - x0).astype(np.float32)[None, :]
    y = (np.arange(height) - y0).astype(np.float32)[:, None]
    return (x * cos + y * sin) * stretch, (y * cos - x * sin) / stretch


def _outline(spicules: float, roughness: float, rng: np.random.Generator) -> np.ndarray:
    """Return the radius of the mass in each direction, (360,), about 1."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    orders = np.arange(2, 9)[:, None]
    waves = np.cos(orders * angle + rng.uniform(0, 2 * np.pi, (7, 1))) / np.sqrt(orders / 2)
    at = rng.uniform(0, 2 * np.pi, (9, 1))
    spikes = np.exp(rng.uniform(20, 90, (9, 1)) * (np.cos(angle - at) - 1))
    lengths = spicules * rng.uniform(0.3, 1, (9, 1))
    swing = rng.normal(0, 1, (7, 1)) * roughness
    outline = 1 + (swing * waves).sum(0) + (lengths * spikes).max(0)
    return np.maximum(outline, 0.4).astype(np.float32)


def _speckle(echo: np.ndarray, coarseness: float, rng: np.random.Generator) -> np.ndarray:
    """Return the log-compressed envelope of scatterers of mean power `echo`: (H, W), dB.

    Complex Gaussian scatterers, blurred by a point spread function of unit energy: where `echo`
    is flat the amplitude is Rayleigh distributed (Wagner et al. 1983).
    """
    from scipy.ndimage import correlate1d

    height, width = echo.shape
    amplitude = np.exp((echo * (math.log(10) / 20)).astype(np.float32)) * np.float32(0.5**0.5)
    field = rng.standard_normal((2, height, width), np.float32) * amplitude
    for axis, sigma in ((1, 0.7 * height / 160), (2, 1.1 * width / 192)):
        sigma = max(sigma, 0.5) * coarseness
        reach = np.arange(-int(3 * sigma + 1), int(3 * sigma + 1) + 1)
        kernel = np.exp(-0.5 * (reach / sigma) ** 2)
        field = correlate1d(field, kernel / np.linalg.norm(kernel), axis)
    return 10 * np.log10(np.square(field).sum(0) + np.float32(1e-12))


def toy_samples(
    n_per_class: int = 8,
    *,
    classes: Sequence[str] = CLASSES,
    height: int = 32,
    width: int = 40,
    channels: int = 1,
    seed: int = 0,
    difficulty: float = 0.0,
    variety: float = 0.0,
) -> ArraySamples:
    """Return small phantoms as samples in memory, the classes in turn.

    Raises OptionError as `phantoms` does.
    """
    images, _, labels = phantoms(
        n_per_class,
        classes=classes,
        height=height,
        width=width,
        channels=channels,
        seed=seed,
        difficulty=difficulty,
        variety=variety,
    )
    return ArraySamples(images, labels)


@dataclass
class Oracle(Augmenter):
    """A test: fresh phantoms, for stores of phantoms, where it is as good as more real images.

    It learns the shape of the images and the names of the classes, nothing else. With phantoms
    of the same difficulty and variety as real data it must help.
    """

    name = "oracle"
    family = "generative"

    difficulty: float = option(0.5, "as in augkit.testing.phantoms", low=0, high=1)
    variety: float = option(0.0, "as in augkit.testing.phantoms", low=0, high=3)

    def fit(self, train: Samples, context: Context) -> None:
        """Note the shape of the images and the names of the classes."""
        self.shape_: Shape = train.shape
        self.classes_: tuple[str, ...] = tuple(context.classes)

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        """Return a phantom for each row, uint8 (N, H, W, C), from its class and its `seed`."""
        made = np.empty((len(labels), *self.shape_), np.uint8)
        looks = _looks(self.classes_)
        for i, (label, seed) in enumerate(zip(labels, params["seed"], strict=True)):
            # Index 2**64 - 1: no image of `phantoms` has it.
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, 2**64 - 1], np.uint64)))
            how = {"difficulty": self.difficulty, "variety": self.variety}
            made[i], _ = _phantom(looks, int(label), self.shape_, rng=rng, **how)
        return made

    def save(self, folder: Path) -> None:
        """Write the shape and the classes as JSON."""
        learned = {"shape": list(self.shape_), "classes": list(self.classes_)}
        (folder / "phantom.json").write_text(json.dumps(learned))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        learned = json.loads((folder / "phantom.json").read_text())
        height, width, channels = learned["shape"]
        self.shape_, self.classes_ = (height, width, channels), tuple(learned["classes"])


@dataclass
class Poison(Augmenter):
    """A test: the training images again, a share of them under a wrong class, which must harm.

    Those that it is wrong about are always the same, and taken for the class that comes next.
    """

    name = "poison"
    family = "generative"

    share: float = option(0.3, "share of the images that it is wrong about", low=0, high=1)
    fit_seed: int = option(0, "chooses which", low=0)

    def fit(self, train: Samples, context: Context) -> None:
        """Keep the images, and choose the class that each is taken for."""
        labels, rng = train.labels, np.random.default_rng(self.fit_seed)
        wrong = np.zeros(len(labels), bool)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            wrong[rows[: round(self.share * len(rows))]] = True
        self.images_ = train[:]
        self.taken_for_ = np.where(wrong, (labels + 1) % len(context.classes), labels)

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        """Return for each row an image that is taken for its class: uint8 (N, H, W, C)."""
        rows = [np.flatnonzero(self.taken_for_ == label) for label in labels]
        everything = np.arange(len(self.images_))
        return self.images_[
            [
                (these if len(these) else everything)[int(seed % max(len(these), 1))]
                for these, seed in zip(rows, params["seed"], strict=True)
            ]
        ]

    def save(self, folder: Path) -> None:
        """Write images and classes as safetensors."""
        from safetensors.numpy import save_file

        learned = {"images": self.images_, "taken_for": self.taken_for_}
        save_file(learned, folder / "poison.safetensors")

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        learned = load_file(folder / "poison.safetensors")
        self.images_, self.taken_for_ = learned["images"], learned["taken_for"]


@dataclass
class Copy(Augmenter):
    """A test: exact repeats of the training images, which must change nothing."""

    name = "copy"

    def apply(
        self, images: np.ndarray | None, labels: np.ndarray, params: np.ndarray
    ) -> np.ndarray:
        """Return the images again, uint8 (N, H, W, C)."""
        assert images is not None, "copy is traditional: it has sources"
        return images.copy()

    def apply_masks(self, masks: np.ndarray, params: np.ndarray) -> np.ndarray:
        """Return the masks again, uint8 (N, H, W)."""
        return masks.copy()


@hookimpl
def register_augmenters() -> list[type[Augmenter]]:
    """Offer the augmenters whose effect is known."""
    return [Copy, Oracle, Poison]


def check_augmenter(cls: type[Augmenter], **options: Any) -> None:
    """Hold an augmenter against the contract, with the given options, on 24 small phantoms.

    Covers name and options, `plan`, purity, shape, independence of the block size, 1 and 3
    channels, masks, and for those that learn fitting twice and saving and loading. Those that
    learn are fitted with a budget of 2 steps. Raises AssertionError with one plain sentence.
    """
    _check_plugin(cls, Augmenter, options)
    assert cls.family in ("traditional", "generative"), (
        f"{cls.name} has family {cls.family!r}; it must be traditional or generative"
    )
    for channels in (1, 3):
        samples = toy_samples(8, channels=channels)
        augmenter = _fitted(cls, options, samples)
        _check_plan(augmenter, samples)
        _check_apply(augmenter, samples)
        _check_masks(augmenter, samples)
        if augmenter.learns:
            _check_model(augmenter, cls, options, samples)


def check_classifier(cls: type[Classifier], **options: Any) -> None:
    """Hold a classifier against the contract, with the given options, on small phantoms.

    Covers name and options, 2 and 3 classes, 1 and 3 channels, probabilities, one row at a time,
    fitting twice, the seed, a training part of one image, that predicting needs no labels, and that
    nothing is carried over from one fit to another.
    Fits have a budget of 2 steps. Raises AssertionError with one plain sentence.
    """
    _check_plugin(cls, Classifier, options)
    for n_classes, channels, closely in ((2, 1, True), (3, 3, True), (2, 3, False), (3, 1, False)):
        context = Context(seed=1, classes=CLASSES[:n_classes], max_steps=2)
        train = toy_samples(6, classes=context.classes, channels=channels, seed=1)
        val = toy_samples(3, classes=context.classes, channels=channels, seed=2)
        classifier = plugin_options.build(cls, options)
        classifier.fit(train, val, context)
        first = classifier.predict_proba(_Unlabelled(val.images, val.targets))
        _check_probabilities(cls.name, first, len(val), n_classes)
        if not closely:
            continue
        alone = classifier.predict_proba(ArraySamples(val.images[:1], val.targets[:1]))
        _check_probabilities(cls.name, alone, 1, n_classes)
        _same(first[:1], alone, f"{cls.name} predicts a row differently when it is alone")
        classifier.fit(train, val, context)
        again = classifier.predict_proba(val)
        _same(first, again, f"{cls.name} gives other probabilities when it is fitted twice")
        _check_seed(cls, options, (train, val, context), first)
        _check_memory(cls, options, (train, val, context), first)
        _check_one_image(cls, options, train, context)


def check_learning(cls: type[Classifier], max_steps: int | None = None, **options: Any) -> None:
    """Hold a classifier against the claim that it learns, with the given options.

    It must know 8 phantoms by heart after it was fitted on them, as training and validation part,
    and must do no better than chance on new ones after it was fitted on shuffled labels. max_steps:
    of each fit. Raises AssertionError with one plain sentence.
    """
    classes = CLASSES[:2]
    context = Context(seed=1, classes=classes, max_steps=max_steps, looks=max_steps and 10)
    eight = toy_samples(4, classes=classes, seed=3)
    classifier = plugin_options.build(cls, options)
    classifier.fit(eight, eight, context)
    right = (classifier.predict_proba(eight).argmax(1) == eight.targets).sum()
    assert right == 8, f"{cls.name} knows only {right} of 8 images by heart"
    train, test = (toy_samples(20, classes=classes, seed=seed) for seed in (4, 5))
    mixed = ArraySamples(train.images, np.random.default_rng(0).permutation(train.targets))
    classifier = plugin_options.build(cls, options)
    classifier.fit(mixed, mixed, context)
    share = (classifier.predict_proba(test).argmax(1) == test.targets).mean()
    assert share < 0.75, f"{cls.name} is right {share:.0%} of the time after shuffled labels"


def _check_one_image(
    cls: type[Classifier], options: dict[str, Any], train: ArraySamples, context: Context
) -> None:
    """A training part of one image is refused in plain words, or gives probabilities."""
    one = ArraySamples(train.images[:1], train.targets[:1])
    classifier = plugin_options.build(cls, options)
    try:
        classifier.fit(one, one, context)
    except AugkitError:
        return
    _check_probabilities(cls.name, classifier.predict_proba(one), 1, len(context.classes))


class _Unlabelled(ArraySamples):
    """Samples as a classifier gets them for prediction."""

    @property
    def labels(self) -> np.ndarray:
        raise LineageError("the labels of these samples are not for classifiers")


def _check_plugin(cls: type, base: type, options: dict[str, Any]) -> None:
    name = getattr(cls, "name", None)
    assert isinstance(cls, type) and issubclass(cls, base), f"{cls!r} is no {base.__name__}"
    assert isinstance(name, str) and re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name), (
        f"{cls.__name__} is named {name!r}; a name is short, lower case, hyphenated"
    )
    wrong = plugin_options.problems(cls)
    assert not wrong, f"{name} {'; '.join(wrong)}"
    made = plugin_options.build(cls, options)
    again = plugin_options.build(cls, plugin_options.values(made))
    assert plugin_options.values(again) == plugin_options.values(made), (
        f"{name} changes its options when it is made from them again; constructors only store"
    )


def _fitted(cls: type[Augmenter], options: dict[str, Any], samples: ArraySamples) -> Augmenter:
    augmenter = plugin_options.build(cls, options)
    if augmenter.learns:
        with tempfile.TemporaryDirectory() as folder:
            augmenter.fit(samples, Context(1, CLASSES, folder=Path(folder), max_steps=2))
    return augmenter


def _planned(augmenter: Augmenter, samples: ArraySamples, seed: int = 1) -> np.ndarray:
    return augmenter.plan(samples.targets, samples.shape, np.random.default_rng(seed))


def _applied(
    augmenter: Augmenter, samples: ArraySamples, params: np.ndarray, block: int | None = None
) -> np.ndarray:
    """Return the images for all rows, made `block` rows at a time, from fresh copies."""
    block = block or len(samples)
    parts = []
    for rows in (slice(i, i + block) for i in range(0, len(samples), block)):
        sources = None if augmenter.family == "generative" else samples[rows]
        parts.append(augmenter.apply(sources, samples.targets[rows].copy(), params[rows].copy()))
    return np.concatenate(parts)


def _check_plan(augmenter: Augmenter, samples: ArraySamples) -> None:
    name, params = augmenter.name, _planned(augmenter, samples)
    assert isinstance(params, np.ndarray) and params.dtype.names, (
        f"{name}.plan gives {type(params).__name__}; it must give a structured array"
    )
    assert params.shape == (len(samples),), (
        f"{name}.plan gives shape {params.shape} for {len(samples)} labels; one row an output"
    )
    assert not params.dtype.hasobject, f"{name}.plan gives object fields; they cannot be stored"
    again = _planned(augmenter, samples)
    assert params.dtype == again.dtype and params.tobytes() == again.tobytes(), (
        f"{name}.plan gives other numbers for the same seed; all randomness comes from rng"
    )


def _check_apply(augmenter: Augmenter, samples: ArraySamples) -> None:
    name, params = augmenter.name, _planned(augmenter, samples)
    sources, labels, drawn = samples[:], samples.targets.copy(), params.copy()
    given = None if augmenter.family == "generative" else sources
    made = augmenter.apply(given, labels, drawn)
    assert isinstance(made, np.ndarray) and made.dtype == np.uint8, (
        f"{name}.apply gives {getattr(made, 'dtype', type(made).__name__)}; it must give uint8"
    )
    assert made.shape == sources.shape, (
        f"{name}.apply gives shape {made.shape} for {sources.shape}; the shape must be kept"
    )
    untouched = np.array_equal(sources, samples.images) and np.array_equal(labels, samples.targets)
    assert untouched and drawn.tobytes() == params.tobytes(), f"{name}.apply modifies its input"
    made = made.copy()
    assert np.array_equal(made, _applied(augmenter, samples, params)), (
        f"{name}.apply gives other pixels for the same input; draw in plan, not in apply"
    )
    for block in (1, 5):
        assert np.array_equal(made, _applied(augmenter, samples, params, block)), (
            f"{name}.apply gives other pixels in blocks of {block}; each row must be by itself"
        )
    if augmenter.deterministic:
        other = _applied(augmenter, samples, _planned(augmenter, samples, seed=2))
        assert np.array_equal(made, other), f"{name} is called deterministic, but the seed matters"


def _check_masks(augmenter: Augmenter, samples: ArraySamples) -> None:
    if augmenter.family == "generative":
        return
    name, params = augmenter.name, _planned(augmenter, samples)
    masks = np.where(samples.images[..., 0] > 127, 255, 0).astype(np.uint8)  # (N, H, W)
    given = masks.copy()
    made = augmenter.apply_masks(given, params.copy())
    assert np.array_equal(given, masks), f"{name}.apply_masks modifies its input"
    if made is None:
        return
    assert made.dtype == np.uint8 and made.shape == masks.shape, (
        f"{name}.apply_masks gives {made.dtype} {made.shape} for uint8 {masks.shape}"
    )
    assert np.isin(made, (0, 255)).all(), f"{name}.apply_masks gives values other than 0 and 255"


def _check_model(
    augmenter: Augmenter, cls: type[Augmenter], options: dict[str, Any], samples: ArraySamples
) -> None:
    name, params = augmenter.name, _planned(augmenter, samples)
    made = _applied(augmenter, samples, params)
    loaded = plugin_options.build(cls, options)
    with tempfile.TemporaryDirectory() as folder:
        augmenter.save(Path(folder))
        assert any(Path(folder).iterdir()), f"{name}.save writes no file"
        loaded.load(Path(folder))
    assert np.array_equal(made, _applied(loaded, samples, params)), (
        f"{name} gives other pixels after save and load"
    )
    again = _fitted(cls, options, samples)
    assert np.array_equal(made, _applied(again, samples, params)), (
        f"{name} gives other pixels when it is fitted again with the same seed"
    )


def _check_probabilities(name: str, made: np.ndarray, n: int, n_classes: int) -> None:
    assert isinstance(made, np.ndarray) and made.dtype == np.float32, (
        f"{name}.predict_proba gives {getattr(made, 'dtype', type(made).__name__)}, not float32"
    )
    assert made.shape == (n, n_classes), (
        f"{name}.predict_proba gives shape {made.shape} for {n} rows of {n_classes} classes"
    )
    assert np.isfinite(made).all() and (made >= 0).all(), (
        f"{name}.predict_proba gives values that are no probabilities"
    )
    sums = made.sum(1, dtype=np.float64)
    assert np.abs(sums - 1).max() <= 1e-6, (
        f"{name}.predict_proba gives rows that sum to {sums.min():.7f}..{sums.max():.7f}, not 1"
    )


def _check_seed(
    cls: type[Classifier],
    options: dict[str, Any],
    given: tuple[ArraySamples, ArraySamples, Context],
    first: np.ndarray,
) -> None:
    train, val, context = given
    seeds = {context.seed: "gives other probabilities for the same seed"}
    if cls.deterministic:
        seeds[context.seed + 1] = "is called deterministic, but the seed matters"
    for seed, sentence in seeds.items():
        other = plugin_options.build(cls, options)
        other.fit(train, val, Context(seed, context.classes, max_steps=2))
        _same(first, other.predict_proba(val), f"{cls.name} {sentence}")


def _check_memory(
    cls: type[Classifier],
    options: dict[str, Any],
    given: tuple[ArraySamples, ArraySamples, Context],
    first: np.ndarray,
) -> None:
    """What another fit learned of these images must not show: it may have been trained on them."""
    train, val, context = given
    stranger, classifier = (plugin_options.build(cls, options) for _ in range(2))
    stranger.fit(ArraySamples(val.images, np.roll(val.targets, 1)), train, context)
    classifier.fit(train, val, context)
    _same(
        first,
        classifier.predict_proba(val),
        f"{cls.name} remembers what was learned in another fit; keep it in the instance alone",
    )


def _same(first: np.ndarray, second: np.ndarray, sentence: str) -> None:
    """Compare with room for the order of floating-point sums in batches of another size."""
    assert np.allclose(first, second, rtol=0, atol=1e-5), sentence
