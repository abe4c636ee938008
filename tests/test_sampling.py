import numpy as np
import pytest
import torch
from augkit_dagan.networks import build_generator, initialise, n_doublings
from augkit_dagan.sampling import BLOCK, Generators, latent_of, on_the_way

from augkit.errors import InputError

SIZE = (16, 24)


@pytest.fixture(scope="module")
def generators():
    widths = (8,) * n_doublings(*SIZE)
    networks = {label: build_generator(32, widths, SIZE, 1) for label in (0, 2)}
    initialise(networks.values(), torch.Generator().manual_seed(0))
    return Generators(networks, (32, 48, 1), SIZE, 32, widths, ("a", "b", "c"))


def test_the_way_begins_and_ends_with_samples(generators):
    seeds = np.array([3, 2**63 + 1], np.uint64)
    way = generators.between(2, seeds, np.linspace(0, 1, BLOCK + 5))
    assert way.shape == (BLOCK + 5, 32, 48, 1) and way.dtype == np.uint8
    ends = generators.sample(np.array([2, 2]), seeds)
    assert np.array_equal(way[[0, -1]], ends)
    assert not np.array_equal(way[1], way[0])


def test_the_way_is_the_same_however_many_steps_are_asked_for(generators):
    seeds = np.array([3, 4], np.uint64)
    some = generators.between(0, seeds, np.array([0.25, 0.5]))
    many = generators.between(0, seeds, np.linspace(0, 1, 5))
    assert np.array_equal(some, many[1:3])


def test_a_class_without_a_generator_has_no_way(generators):
    with pytest.raises(InputError, match="no generator for class 'b'"):
        generators.between(1, np.array([1, 2], np.uint64), np.array([0.5]))


def test_latents_on_the_way_are_as_any_others():
    """The straight way would have half the variance in its middle."""
    middles = [
        on_the_way(latent_of(2 * i, 128), latent_of(2 * i + 1, 128), np.array([0.5]))[0]
        for i in range(200)
    ]
    everything = np.concatenate(middles)
    assert everything.dtype == np.float32
    assert everything.min() >= 0 and everything.max() <= 1
    assert everything.var() == pytest.approx(1 / 12, rel=0.03)
    shares = np.histogram(everything, 10, (0, 1))[0] / len(everything)
    np.testing.assert_allclose(shares, 0.1, atol=0.01)


def test_the_way_from_latents_to_themselves_stands_still():
    z = latent_of(1, 16)
    np.testing.assert_allclose(
        on_the_way(z, z, np.linspace(0, 1, 5)), np.tile(z, (5, 1)), atol=1e-6
    )
