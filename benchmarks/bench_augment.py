"""The chain of the four traditional augmenters against libraries that do the same four.

    python -m benchmarks.bench_augment --csv benchmarks/results/augment.csv

Grey images, one thread, processor time, drawing of the random numbers included on every side:
mirror, gain 0.8-1.2, scale 0.8-1.2 about the centre, and a part with sides 0.7-1.0 enlarged back.
The peers interpolate twice where our chain does once. kornia works on float32, a batch at a time.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator

import numpy as np

from benchmarks import runner

N = 64
SIZES = [(160, 192), (500, 500)]
INSTALL = "Install it with: pip install 'augkit[bench]'"


def cases() -> Iterator[runner.Case]:
    """Yield one case for each size, for the default and for the bit-stable interpolation."""
    import cv2

    cv2.setNumThreads(1)
    for height, width in SIZES:
        images = speckle(height, width)
        peers = {}
        for name, peer in PEERS.items():
            if importlib.util.find_spec(name) is None:
                runner.skipped(name, INSTALL)
            else:
                peers[name] = peer(images)
        for exact in (False, True):
            name = f"chain {'exact ' if exact else ''}{width}x{height}"
            work = ours(images, exact=exact)
            yield runner.Case(name, work, peers, N, clock=time.process_time)


def speckle(height: int, width: int) -> np.ndarray:
    """Return uint8 (N, H, W, 1): noise blurred to the grain of ultrasound."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (N, height, width), np.uint8)
    return np.stack([cv2.GaussianBlur(image, (0, 0), 1.0) for image in noise])[..., None]


def ours(images: np.ndarray, *, exact: bool = False) -> runner.Work:
    """Return plan and apply of flip+brightness+scale+zoom on a block."""
    from augkit_traditional import Brightness, Flip, Scale, Zoom

    from augkit.chain import chain

    made = chain([Flip(), Brightness(), Scale(exact=exact), Zoom(exact=exact)])
    labels, rng = np.zeros(N, np.int64), np.random.default_rng(1)
    return lambda: made.apply(images, labels, made.plan(labels, images.shape[1:], rng))


def albumentations(images: np.ndarray) -> runner.Work:
    """Return the same four transforms by albumentations, image by image."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as peer

    size = images.shape[1:3]
    ratio = size[1] / size[0]
    transform = peer.Compose(
        [
            peer.HorizontalFlip(p=1),
            # "Contrast" is its name for the factor on the grey levels.
            peer.RandomBrightnessContrast(brightness_limit=0, contrast_limit=0.2, p=1),
            peer.Affine(scale=(0.8, 1.2), keep_ratio=True, p=1),
            peer.RandomResizedCrop(size, scale=(0.49, 1.0), ratio=(ratio, ratio), p=1),
        ],
        seed=1,
    )
    return lambda: [transform(image=image)["image"] for image in images]


def torchvision(images: np.ndarray) -> runner.Work:
    """Return the same four transforms by torchvision.transforms.v2, image by image."""
    import torch
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    size = images.shape[1:3]
    ratio = size[1] / size[0]
    bilinear = v2.InterpolationMode.BILINEAR
    transform = v2.Compose(
        [
            v2.RandomHorizontalFlip(p=1),
            v2.ColorJitter(brightness=0.2),
            v2.RandomAffine(degrees=0, scale=(0.8, 1.2), interpolation=bilinear),
            v2.RandomResizedCrop(size, scale=(0.49, 1.0), ratio=(ratio, ratio)),
        ]
    )
    tensors = [torch.from_numpy(image).permute(2, 0, 1).contiguous() for image in images]
    return lambda: [transform(tensor) for tensor in tensors]


def kornia(images: np.ndarray) -> runner.Work:
    """Return the same four transforms by kornia on the CPU, on the block at once."""
    import torch
    from kornia import augmentation as peer

    torch.set_num_threads(1)
    size = images.shape[1:3]
    ratio = size[1] / size[0]
    transform = peer.AugmentationSequential(
        peer.RandomHorizontalFlip(p=1.0),
        peer.RandomBrightness((0.8, 1.2), p=1.0),
        peer.RandomAffine(degrees=0.0, scale=(0.8, 1.2), p=1.0),
        peer.RandomResizedCrop(size, scale=(0.49, 1.0), ratio=(ratio, ratio), p=1.0),
    )
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # (N, C, H, W)
    return lambda: transform(batch)


PEERS = {"albumentations": albumentations, "torchvision": torchvision, "kornia": kornia}


if __name__ == "__main__":
    runner.main("augment", cases())
