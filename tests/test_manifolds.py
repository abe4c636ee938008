import numpy as np
import pytest

from augkit.manifolds import K_DENSITY, K_PRECISION, apart, neighbourhoods, realism

prdc = pytest.importorskip("prdc")


def drawn(n, d, seed, mean=0.0):
    return (np.random.default_rng(seed).normal(size=(n, d)) + mean).astype(np.float32)


CASES = [(40, 40, 8, 0.0), (40, 40, 64, 0.3), (25, 60, 5, 0.5), (60, 25, 5, 0.1), (12, 9, 2, 1.0)]


@pytest.mark.parametrize(("n", "m", "d", "mean"), CASES)
def test_the_measures_are_those_of_prdc(n, m, d, mean, capsys):
    real, made = drawn(n, d, 1), drawn(m, d, 2, mean)
    found = neighbourhoods(real, made)
    for k, names in ((K_PRECISION, ("precision", "recall")), (K_DENSITY, ("density", "coverage"))):
        peer = prdc.compute_prdc(real, made, k)
        for name in names:
            assert found[name].value == pytest.approx(peer[name], abs=1e-6), name
    capsys.readouterr()  # it prints


@pytest.mark.parametrize(("n", "m", "d", "mean"), CASES)
def test_precision_and_recall_are_those_of_torch_fidelity(n, m, d, mean):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torch_fidelity.metric_prc").prc_features_to_metric
    real, made = drawn(n, d, 1), drawn(m, d, 2, mean)
    theirs = peer(torch.from_numpy(made), torch.from_numpy(real), prc_neighborhood=3, verbose=False)
    ours = neighbourhoods(real, made)
    assert ours["precision"].value == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall"].value == pytest.approx(theirs["recall"], abs=1e-6)


@pytest.mark.parametrize(("n", "m", "d", "mean"), [(15, 20, 3, 0.4), (20, 9, 6, 0.0)])
def test_what_is_left_out_is_as_if_it_had_never_been_there(n, m, d, mean):
    real, made = drawn(n, d, 3), drawn(m, d, 4, mean)
    found = neighbourhoods(real, made)
    for i in range(n):
        without = neighbourhoods(np.delete(real, i, 0), made)
        for name, statistic in found.items():
            assert statistic.without_real[i] == pytest.approx(without[name].value, abs=1e-12), name
    for i in range(m):
        without = neighbourhoods(real, np.delete(made, i, 0))
        for name, statistic in found.items():
            assert statistic.without_made[i] == pytest.approx(without[name].value, abs=1e-12), name


def test_images_far_away_are_neither_real_nor_varied():
    found = neighbourhoods(drawn(30, 4, 1), drawn(30, 4, 2, mean=50))
    assert [s.value for s in found.values()] == [0, 0, 0, 0]


def test_one_image_over_and_over_is_real_and_without_variety():
    real = drawn(30, 4, 1)
    made = np.repeat(real[:1], 30, 0) + drawn(30, 4, 2) * 1e-3
    found = neighbourhoods(real, made)
    assert found["precision"].value == 1
    assert found["recall"].value <= 1 / 30 and found["coverage"].value < 0.5


def test_the_distances_are_euclidean():
    a, b = drawn(6, 3, 1), drawn(4, 3, 2)
    expected = [[np.linalg.norm(x.astype(float) - y) for y in b] for x in a]
    np.testing.assert_allclose(apart(a, b), expected, rtol=1e-9)


def test_realism_is_that_of_the_paper():
    real, made = drawn(20, 3, 1), drawn(12, 3, 2, mean=0.5)
    radii = np.sort(apart(real, real), 1)[:, K_PRECISION]
    kept = radii <= np.median(radii)
    expected = (radii[kept, None] / apart(real[kept], made)).max(0)
    np.testing.assert_allclose(realism(real, made), expected)


def test_a_copy_is_more_real_than_anything():
    real = drawn(20, 3, 1)
    found = realism(real, np.concatenate([real[:20], drawn(5, 3, 2, mean=30)]))
    assert found[:20].max() > 1e3 and found[20:].max() < 1
