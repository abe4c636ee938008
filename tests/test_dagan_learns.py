"""Does it learn? On phantoms whose classes differ by a mass, in minutes."""

import numpy as np
import pytest
from augkit_dagan import Dagan

from augkit.descriptors import outline
from augkit.distances import class_distances, kid, standardised
from augkit.interfaces import ArraySamples, Context
from augkit.testing import CLASSES, phantoms

SHAPE = (40, 48, 1)
N = 200
"""Images of each class that are sampled."""


def real(seed):
    images, _, labels = phantoms(100, height=40, width=48, seed=seed, difficulty=0.0)
    return images, labels


def distances(images, labels, *, seed, **options):
    """Train on these labels; return the distances of what is sampled, and of noise."""
    plugin = Dagan(preset="quick", fit_seed=seed, **options).settle(SHAPE, "cpu")
    plugin.fit(ArraySamples(images, labels), Context(seed, CLASSES))
    wanted = np.repeat([0, 1, 2], N)
    made = plugin.apply(None, wanted, plugin.plan(wanted, SHAPE, np.random.default_rng(seed)))
    others, true = real(seed + 1000)
    seen = outline(others)
    noise = outline(np.random.default_rng(seed).integers(0, 256, (N, *SHAPE), np.uint8))
    apart = class_distances(
        standardised(outline(made), seen),
        wanted,
        standardised(seen, seen),
        real_labels=true,
        n_classes=3,
    )
    of_noise = [
        kid(standardised(noise, seen), standardised(seen[true == c], seen)) for c in range(3)
    ]
    return apart, np.array(of_noise)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])  # five seeds: benchmarks/results/dagan_penalty.csv
def test_a_quick_training_comes_nearest_to_its_own_class(seed):
    apart, of_noise = distances(*real(seed), seed=seed)
    own = np.diagonal(apart)
    others = np.where(np.eye(3, dtype=bool), np.inf, apart).min(1)
    assert (own < others / 2).all(), apart
    assert (own < of_noise / 10).all(), (own, of_noise)


@pytest.mark.slow
def test_trained_on_shuffled_labels_no_class_is_nearer_than_another():
    images, labels = real(0)
    np.random.default_rng(0).shuffle(labels)
    # Half of the steps: with true labels own / others is 0.4 by then.
    apart, _ = distances(images, labels, seed=0, steps=150)
    own = np.diagonal(apart).mean()
    others = apart[~np.eye(3, dtype=bool)].mean()
    assert 0.8 < own / others < 1.25, apart
