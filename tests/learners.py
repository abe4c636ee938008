"""Small augmenters that learn, for tests of what the core does with any of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from augkit.interfaces import Augmenter, Fitted
from augkit.options import option


@dataclass
class Mean(Augmenter):
    """Learns the mean of each class and makes it noisy; counts how often it was fitted."""

    name = "mean"
    family = "generative"
    fits: ClassVar[list[int]] = []

    noise: int = option(40, "standard deviation in grey levels", low=0, high=255)
    fit_seed: int = 0
    goal: int = option(3, "steps until the fit is complete", low=1)

    def settle(self, shape, device):
        return self

    def fit(self, train, context):
        Mean.fits.append(context.seed)
        self.shape_ = train.shape
        images = train[:].astype(float)
        self.means_ = {c: images[train.labels == c].mean(0) for c in np.unique(train.labels)}
        checkpoint = context.folder / "steps.safetensors"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        limited = context.deadline is not None
        done = min(self.goal, done + (1 if limited else self.goal))
        checkpoint.write_text(str(done))
        self.steps_ = done
        return Fitted(done == self.goal, f"{done} of {self.goal} steps" if done < self.goal else "")

    def apply(self, images, labels, params):
        made = np.empty((len(labels), *self.shape_), np.uint8)
        for i, (label, seed) in enumerate(zip(labels, params["seed"], strict=True)):
            noise = np.random.default_rng(seed).normal(0, self.noise, self.shape_)
            made[i] = np.clip(self.means_[int(label)] + noise + self.steps_, 0, 255)
        return made

    def environment(self):
        return {"toy": "1"}

    def save(self, folder: Path):
        about = {"shape": self.shape_, "steps": self.steps_}
        about["means"] = {str(c): m.tolist() for c, m in self.means_.items()}
        (folder / "means.json").write_text(json.dumps(about))

    def load(self, folder: Path):
        about = json.loads((folder / "means.json").read_text())
        self.shape_, self.steps_ = tuple(about["shape"]), about["steps"]
        self.means_ = {int(c): np.array(m) for c, m in about["means"].items()}


@dataclass
class Parrot(Augmenter):
    """Learns the training images by heart; a share of what it makes are exact repeats."""

    name = "parrot"
    family = "generative"

    share: float = option(0.5, "share of repeats", low=0, high=1)

    def fit(self, train, context):
        self.images_, self.labels_ = train[:], train.labels

    def plan(self, labels, shape, rng):
        params = np.empty(len(labels), [("seed", np.uint64), ("repeats", bool)])
        params["seed"] = rng.integers(0, 2**63, len(labels), np.uint64)
        params["repeats"] = rng.random(len(labels)) < self.share
        return params

    def apply(self, images, labels, params):
        made = np.empty((len(labels), *self.images_.shape[1:]), np.uint8)
        for i, label in enumerate(labels):
            rng = np.random.default_rng(params["seed"][i])
            if params["repeats"][i]:
                made[i] = self.images_[rng.choice(np.flatnonzero(self.labels_ == label))]
            else:
                made[i] = rng.integers(0, 256, made.shape[1:], np.uint8)
        return made

    def save(self, folder):
        about = {"images": self.images_.tolist(), "labels": self.labels_.tolist()}
        (folder / "heart.json").write_text(json.dumps(about))

    def load(self, folder):
        about = json.loads((folder / "heart.json").read_text())
        self.images_ = np.array(about["images"], np.uint8)
        self.labels_ = np.array(about["labels"])
