"""Phantoms: synthetic B-mode images of a breast whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from augkit.errors import OptionError
from augkit.interfaces import ArraySamples, Shape

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
    above, at difficulty 0.1 and 48x40:

        variety              0      1      2      3
        balanced accuracy    0.95   0.88   0.77   0.66

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
    looks = looks_of(classes)

    def made() -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        for i in range(n_per_class * len(classes)):
            label = i % len(classes)
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, i], np.uint64)))
            how = {"difficulty": difficulty, "variety": variety}
            image, mask = phantom(looks, label, shape, rng=rng, **how)
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


def looks_of(classes: Sequence[str]) -> list[tuple[int, int]]:
    """Return for each class its kind (0, 1, 2) and its round (0, 1, ...), no pair twice."""
    known = {name: (kind, 0) for kind, name in enumerate(CLASSES)}
    taken = {known[name] for name in classes if name in known}
    free = ((i % 3, i // 3) for i in range(2 * len(classes) + 3) if (i % 3, i // 3) not in taken)
    return [known[name] if name in known else next(free) for name in classes]


def phantom(
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
