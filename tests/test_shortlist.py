"""The shortlist keeps pairs that could be relatives, and leaves most others out."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from augkit.ingestion import shortlist as module
from augkit.ingestion.prints import fingerprints, flattened, shrunk
from augkit.ingestion.shortlist import N_OUTLINE, _best_of_each, outlines, shortlist
from augkit.interfaces import silent


def layered(seed):
    """Return a scan-like texture, uint8 (80, 96, 1): speckle over layers and blobs."""
    rng = np.random.default_rng(seed)
    parts = [gaussian_filter(rng.normal(size=(80, 96)), s) for s in ((1, 1), (2, 8), (6, 6))]
    return np.clip(110 + 25 * sum(p / p.std() for p in parts), 0, 255).astype(np.uint8)[..., None]


@pytest.fixture(scope="module")
def scans():
    """Forty textures, then the first five of them shifted by 6 and 4 pixels."""
    images = np.stack([layered(seed) for seed in range(40)])
    return np.concatenate([images, np.roll(images[:5], (4, 6), (1, 2))])


@pytest.fixture(scope="module")
def drawn(scans):
    return fingerprints(scans), outlines(flattened(np.stack([shrunk(i) for i in scans])))


def listed(drawn, known=0):
    with ThreadPoolExecutor(2) as pool:
        first, second = shortlist(*drawn, known=known, pool=pool, progress=silent)
    assert first.dtype == second.dtype == np.int32
    return list(zip(first.tolist(), second.tolist(), strict=True))


def test_an_outline_is_small_and_never_negative(drawn):
    assert drawn[1].shape == (45, N_OUTLINE) and drawn[1].dtype == np.float16
    assert (drawn[1] >= 0).all()


def test_shifted_copies_are_listed_and_most_strangers_are_not(drawn):
    pairs = listed(drawn)
    assert {(i, 40 + i) for i in range(5)} <= set(pairs)
    assert all(a < b for a, b in pairs) and len(set(pairs)) == len(pairs)
    assert len(pairs) < 0.2 * 45 * 44 / 2


def test_a_pair_is_listed_whatever_else_is_known(drawn):
    pairs = listed(drawn)
    assert listed(drawn, known=42) == [(a, b) for a, b in pairs if b >= 42]
    assert listed(drawn, known=45) == []


def test_the_order_of_images_does_not_matter(drawn):
    order = np.random.default_rng(0).permutation(45)
    back = listed(tuple(each[order] for each in drawn))
    assert {tuple(sorted((int(order[a]), int(order[b])))) for a, b in back} == set(listed(drawn))


def test_an_image_keeps_the_pairs_that_agree_best():
    first, second = np.triu_indices(200, 1)
    score = np.random.default_rng(0).random(len(first)).astype(np.float32)
    kept = _best_of_each(first.astype(np.int32), second.astype(np.int32), score, 200)
    for image in range(200):
        mine = (first == image) | (second == image)
        best = score >= np.sort(score[mine])[-50]
        assert kept[mine & best].all()
    assert len(first) / 4 < kept.sum() <= 200 * 50 < len(first)


def test_leaving_pairs_out_on_the_way_changes_nothing(monkeypatch):
    first, second = np.triu_indices(300, 1)
    score = np.random.default_rng(1).random(len(first)).astype(np.float32)
    first, second = first.astype(np.int32), second.astype(np.int32)
    kept = _best_of_each(first, second, score, 300)
    monkeypatch.setattr(module, "_PRUNED", 4000)
    listed, most = module._Listed(300), 0
    for some in np.array_split(np.arange(len(first)), 30):
        listed.extend(first[some], second[some], score[some])
        most = max(most, sum(len(part[0]) for part in listed._parts))
    for found, expected in zip(listed.best(), (first[kept], second[kept]), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert most < 0.6 * len(first)
