"""Images from latent seeds: the same pixels whatever they are asked for together with.

On the CPU, in float32, always 16 at once, short blocks padded with zeros, weights contiguous:
PyTorch chooses other ways of summing for other batch sizes and layouts, which changes a grey level
in a pixel here and there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.errors import InputError
from augkit.interfaces import Shape
from augkit_dagan.networks import Generator, build_generator

BLOCK = 16

_FORMAT = "augkit dagan 1"
_MOST_LAYERS = 12
"""An image of 4096 pixels is halved ten times."""
_WEIGHTS, _MODEL = "weights.safetensors", "model.json"


@dataclass
class Generators:
    """One trained generator for each class, and what is needed to build them again."""

    networks: Mapping[int, Generator]
    """By label; float32, on the CPU."""
    shape: Shape
    """Of the images that are sampled."""
    size: tuple[int, int]
    """Height and width that the generators make; samples are resized from it."""
    latent: int
    widths: tuple[int, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        # Training may have laid the weights out otherwise, for which some processors sum otherwise.
        for network in self.networks.values():
            network.to(memory_format=torch.contiguous_format)

    def sample(self, labels: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return uint8 (N, H, W, C). labels: int64 (N,); seeds: uint64 (N,).

        Raises InputError for a class without a generator.
        """
        made = np.empty((len(labels), *self.shape), np.uint8)
        for label in np.unique(labels).tolist():
            rows = np.flatnonzero(labels == label)
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                latents = [latent_of(seed, self.latent) for seed in seeds[block].tolist()]
                made[block] = self._block(label, np.stack(latents))
        return made

    def between(self, label: int, seeds: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return uint8 (k, H, W, C): from the latents of one seed to those of another.

        seeds: uint64 (2,). shares: (k,), 0 for the first, 1 for the second. Raises InputError for
        a class without a generator.
        """
        a, b = (latent_of(int(seed), self.latent) for seed in seeds)
        z = on_the_way(a, b, shares)  # (k, latent)
        blocks = [self._block(label, z[i : i + BLOCK]) for i in range(0, len(z), BLOCK)]
        return np.concatenate(blocks)

    def _block(self, label: int, latents: np.ndarray) -> np.ndarray:
        """Return uint8 (n, H, W, C) from at most 16 latents, float32 (n, latent)."""
        if label not in self.networks:
            raise InputError(
                f"the model has no generator for class {self.classes[label]!r}: it had no "
                "training images. Train again: augkit fit --plugin dagan"
            )
        z = np.zeros((BLOCK, self.latent), np.float32)
        z[: len(latents)] = latents
        with torch.inference_mode():
            made = self.networks[label](torch.from_numpy(z))[: len(latents)]
        x = made.permute(0, 2, 3, 1)  # (n, h, w, C)
        return to_grey_levels(self._enlarged(x.numpy()))

    def _enlarged(self, images: np.ndarray) -> np.ndarray:
        """Return float32 (n, H, W, C) from (n, h, w, C), by cubic interpolation."""
        if self.size == self.shape[:2]:
            return images
        height, width = self.shape[:2]
        large = [cv2.resize(i, (width, height), interpolation=cv2.INTER_CUBIC) for i in images]
        return np.stack(large).reshape(len(images), *self.shape)

    def save(self, folder: Path) -> None:
        """Write the weights and what describes them."""
        from safetensors.torch import save

        tensors = {
            f"{label}.{name}": value.contiguous()
            for label, network in self.networks.items()
            for name, value in network.state_dict().items()
        }
        about = {
            "format": _FORMAT,
            "classes": list(self.classes),
            "labels": sorted(self.networks),
            "shape": list(self.shape),
            "size": list(self.size),
            "latent": self.latent,
            "widths": list(self.widths),
        }
        (folder / _WEIGHTS).write_bytes(save(tensors))
        (folder / _MODEL).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Generators:
        """Read what `save` wrote. Raises InputError."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            about = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
            tensors = load_file(folder / _WEIGHTS)
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']!r} instead of {_FORMAT!r}")
            return cls._from(about, tensors)
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{folder} holds no model of dagan, as augkit fit writes it: {why}"
            ) from error

    @classmethod
    def _from(cls, about: dict[str, Any], tensors: dict[str, Tensor]) -> Generators:
        size, shape = tuple(map(int, about["size"])), tuple(map(int, about["shape"]))
        latent, widths = int(about["latent"]), tuple(map(int, about["widths"]))
        labels = [*map(int, about["labels"])]
        if len(widths) > _MOST_LAYERS or len(set(labels)) != len(labels):
            raise ValueError("more layers or classes than a model can have")
        networks = {}
        for label in labels:
            network = build_generator(latent, widths, (size[0], size[1]), shape[2])
            prefix = f"{label}."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            network.load_state_dict(own)
            if not all(bool(torch.isfinite(p).all()) for p in network.parameters()):
                raise ValueError("weights that are no numbers")
            networks[label] = network.requires_grad_(False)
        return cls(
            networks,
            shape=(shape[0], shape[1], shape[2]),
            size=(size[0], size[1]),
            latent=latent,
            widths=widths,
            classes=tuple(map(str, about["classes"])),
        )


def latent_of(seed: int, n: int) -> np.ndarray:
    """Return float32 (n,), uniform in 0..1, from a 64-bit seed."""
    key = np.array([seed, 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(n, np.float32)


def on_the_way(a: np.ndarray, b: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return float32 (k, n), latents on the way from one (n,) to another, as likely as any.

    The straight way leads through the middle of the cube, where no latents lie: in 128 dimensions
    all are about as far from it. So the numbers are seen as those of a normal distribution, and the
    way leads over its sphere (White 2016), and back. shares: (k,); 0 and 1 give the ends.
    """
    from scipy.special import ndtr, ndtri

    ends = np.stack([a, b]).astype(np.float64)  # (2, n)
    u, v = ndtri(np.clip(ends, 1e-7, 1 - 1e-7))
    lengths = max(float(np.linalg.norm(u) * np.linalg.norm(v)), 1e-12)
    angle = np.arccos(np.clip(u @ v / lengths, -1, 1))
    share = np.asarray(shares, np.float64)[:, None]  # (k, 1)
    if np.sin(angle) < 1e-6:
        way = (1 - share) * u + share * v
    else:
        way = (np.sin((1 - share) * angle) * u + np.sin(share * angle) * v) / np.sin(angle)
    z = ndtr(way).astype(np.float32)
    z[np.asarray(shares) == 0], z[np.asarray(shares) == 1] = a, b
    return z


def to_grey_levels(x: np.ndarray) -> np.ndarray:
    """Return images in -1..1 as uint8, rounded."""
    return np.clip(np.rint((x + 1) * 127.5), 0, 255).astype(np.uint8)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return uint8 (height, width, C) from uint8 (H, W, C), by Lanczos interpolation."""
    if image.shape[:2] == (height, width):
        return image
    grey = image.shape[2] == 1
    small = Image.fromarray(image[..., 0] if grey else image).resize(
        (width, height), Image.Resampling.LANCZOS
    )
    return np.asarray(small).reshape(height, width, image.shape[2])


def environment() -> dict[str, str]:
    """Return what decides the last bit of a sample besides the weights and the seed."""
    return {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
