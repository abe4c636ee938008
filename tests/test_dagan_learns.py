"""Does it learn? On phantoms whose classes differ by a mass, in minutes."""

import numpy as np
from augkit_dagan import Dagan

from augkit.descriptors import describe
from augkit.interfaces import ArraySamples, Context
from augkit.quality import class_distances, kid, standardised
from augkit.testing import CLASSES, phantoms

SHAPE = (40, 48, 1)
N = 200
"""Images of each class that are sampled."""


def real(seed):
    images, _, labels = phantoms(100, height=40, width=48, seed=seed, difficulty=0.0)
    return images, labels


def distances(images, labels, *, seed):
    """Train on these labels; return the distances of what is sampled, and of noise."""
    plugin = Dagan(preset="quick", fit_seed=seed).settle(SHAPE, "cpu")
    plugin.fit(ArraySamples(images, labels), Context(seed, CLASSES))
    wanted = np.repeat([0, 1, 2], N)
    made = plugin.apply(None, wanted, plugin.plan(wanted, SHAPE, np.random.default_rng(seed)))
    others, true = real(seed + 1000)
    seen = describe(others)
    noise = describe(np.random.default_rng(seed).integers(0, 256, (N, *SHAPE), np.uint8))
    apart = class_distances(
        standardised(describe(made), seen),
        wanted,
        standardised(seen, seen),
        real_labels=true,
        n_classes=3,
    )
    of_noise = [
        kid(standardised(noise, seen), standardised(seen[true == c], seen)) for c in range(3)
    ]
    return apart, np.array(of_noise)
