"""What tests need, ours and a plugin author's: phantoms, toy samples and contract checks.

A phantom (`augkit.phantoms`) is a synthetic B-mode image of a breast whose truth is known.
`check_augmenter` and `check_classifier` (`augkit.conformance`) hold a plugin against the contract
and say in one sentence what is wrong. `Oracle`, `Copy` and `Poison` are augmenters that must help,
change nothing and harm: augkit offers them as plugins, for anybody who wants to hold its verdicts
against a known truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augkit.conformance import check_augmenter, check_classifier, check_learning
from augkit.hookspecs import hookimpl
from augkit.interfaces import Augmenter, Context, Samples, Shape
from augkit.options import option
from augkit.phantoms import (
    CLASSES,
    iter_phantoms,
    looks_of,
    phantom,
    phantoms,
    toy_samples,
    write_phantoms,
)

__all__ = [
    "CLASSES",
    "Copy",
    "Oracle",
    "Poison",
    "check_augmenter",
    "check_classifier",
    "check_learning",
    "iter_phantoms",
    "phantoms",
    "register_augmenters",
    "toy_samples",
    "write_phantoms",
]


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
        looks = looks_of(self.classes_)
        for i, (label, seed) in enumerate(zip(labels, params["seed"], strict=True)):
            # Index 2**64 - 1: no image of `phantoms` has it.
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, 2**64 - 1], np.uint64)))
            how = {"difficulty": self.difficulty, "variety": self.variety}
            made[i], _ = phantom(looks, int(label), self.shape_, rng=rng, **how)
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
