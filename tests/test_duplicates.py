import io
import os
import warnings

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from toys import DATA

import augkit as ak
from augkit.ingestion.duplicates import Traces, fingerprints, related_pairs
from augkit.ingestion.pairs import Pairs, clusters

HEIGHT, WIDTH = 160, 192


def speckle(seed, height=HEIGHT, width=WIDTH):
    """Return a scan-like texture, uint8 (height, width, 1): speckle over layers and blobs."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter(rng.normal(size=(height, width)), (1.0, 1.6))
    layers = gaussian_filter(rng.normal(size=(height, width)), (3, 14))
    blobs = gaussian_filter(rng.normal(size=(height, width)), 16)
    mixed = fine / fine.std() + layers / layers.std() + blobs / blobs.std()
    return np.clip(100 + 25 * mixed, 0, 255).astype(np.uint8)[..., None]


def magnified(image, x, y, width, height):
    """Return a window of the image, resized back to the shape of the image."""
    window = Image.fromarray(image[y : y + height, x : x + width, 0])
    return np.asarray(window.resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS))[
        ..., None
    ]


def marked(image):
    copy = image.copy()
    copy[10:18, 20:60:3] = 255
    copy[90:130, 100] = copy[110, 80:120] = 255
    return copy


def shifted(seed, x, y):
    large = speckle(seed, HEIGHT + 40, WIDTH + 40)
    return large[:HEIGHT, :WIDTH], large[y : y + HEIGHT, x : x + WIDTH]


def pair_set(pairs):
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.fixture(scope="module")
def unrelated():
    return np.stack([speckle(seed) for seed in range(100, 140)])


def found_among(unrelated, image, copy):
    """Return the pairs found when an image and its copy lie among unrelated ones."""
    images = np.stack([image, *unrelated, copy])
    return related_pairs(fingerprints(images))


def assert_only_pair(pairs, unrelated):
    assert pair_set(pairs) == {(0, len(unrelated) + 1)}


def test_prints_have_zero_mean_and_unit_norm(unrelated):
    prints = fingerprints(unrelated)
    assert prints.dtype == np.float32
    assert prints.shape == (len(unrelated), 96, 96)
    np.testing.assert_allclose(prints.mean((1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose((prints**2).sum((1, 2)), 1, atol=1e-4)


def test_a_print_does_not_depend_on_the_other_images(unrelated):
    together = fingerprints(np.concatenate([unrelated, unrelated]))
    np.testing.assert_allclose(together[70:71], fingerprints(unrelated[30:31]), atol=1e-6)


def test_grey_images_with_three_channels_have_the_same_print():
    grey = speckle(0)[None]
    np.testing.assert_allclose(
        fingerprints(np.repeat(grey, 3, axis=-1)), fingerprints(grey), atol=1e-5
    )


def test_an_exact_copy_is_found_with_score_one(unrelated):
    pairs = found_among(unrelated, speckle(0), speckle(0))
    assert_only_pair(pairs, unrelated)
    assert pairs.score[0] == pytest.approx(1, abs=1e-3)
    assert (pairs.first.dtype, pairs.second.dtype) == (np.int64, np.int64)
    assert pairs.score.dtype == np.float32


@pytest.mark.parametrize("gain", [0.5, 0.8, 1.2])
def test_a_darker_or_brighter_copy_is_found(unrelated, gain):
    copy = np.clip(speckle(0) * gain, 0, 255).astype(np.uint8)
    assert_only_pair(found_among(unrelated, speckle(0), copy), unrelated)


@pytest.mark.parametrize(("x", "y"), [(8, 0), (0, 8), (23, 0), (0, 19), (23, 19)])
def test_a_copy_shifted_by_up_to_an_eighth_is_found(unrelated, x, y):
    assert_only_pair(found_among(unrelated, *shifted(0, x, y)), unrelated)


@pytest.mark.parametrize(
    "window",
    [(9, 8, 173, 144), (0, 0, 173, 144), (19, 16, 173, 144), (10, 0, 173, 160), (0, 16, 192, 144)],
    ids=["centre", "upper left", "lower right", "narrower", "lower"],
)
def test_a_crop_to_ninety_percent_is_found(unrelated, window):
    copy = magnified(speckle(0), *window)
    assert_only_pair(found_among(unrelated, speckle(0), copy), unrelated)


def test_a_crop_to_five_sixths_is_found(unrelated):
    copy = magnified(speckle(0), 10, 20, 161, 134)
    assert_only_pair(found_among(unrelated, speckle(0), copy), unrelated)


def test_a_crop_is_found_whichever_image_comes_first(unrelated):
    copy = magnified(speckle(0), 9, 8, 173, 144)
    there = found_among(unrelated, speckle(0), copy)
    back = found_among(unrelated, copy, speckle(0))
    assert_only_pair(back, unrelated)
    np.testing.assert_allclose(there.score, back.score, atol=1e-4)


def test_a_copy_with_burned_in_marks_is_found(unrelated):
    assert_only_pair(found_among(unrelated, speckle(0), marked(speckle(0))), unrelated)


def test_a_mirrored_copy_is_found(unrelated):
    assert_only_pair(found_among(unrelated, speckle(0), speckle(0)[:, ::-1]), unrelated)


def test_different_images_are_not_related(unrelated):
    assert len(related_pairs(fingerprints(unrelated))) == 0


def test_the_same_field_of_view_does_not_relate_images(unrelated):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    sector = abs(x - WIDTH / 2) < 40 + 0.35 * y
    images = unrelated * sector[..., None].astype(np.uint8)
    assert len(related_pairs(fingerprints(images))) == 0


def faint(seed):
    """Return a bright image of little contrast, uint8 (height, width)."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), (1.0, 1.6))
    return np.clip(170 + 16 * fine / fine.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("degrees", [2, 4, -6])
def test_the_black_wedges_of_turned_images_relate_nobody(degrees):
    turned = [Image.fromarray(faint(seed)).rotate(degrees, Image.BICUBIC) for seed in range(16)]
    images = np.stack([np.asarray(image) for image in turned])[..., None]
    assert len(related_pairs(fingerprints(images))) == 0


@pytest.mark.seconds
def test_images_that_are_mostly_black_are_not_relatives_by_chance():
    images = np.stack([speckle(seed) for seed in range(300, 360)])
    images[:, HEIGHT // 3 :] = 0
    copy = np.clip(images[:1] * 0.8, 0, 255).astype(np.uint8)
    pairs = related_pairs(fingerprints(np.concatenate([images, copy])))
    assert pair_set(pairs) == {(0, len(images))}


@pytest.mark.seconds
def test_constant_images_have_zero_prints_and_no_relatives():
    levels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    images = np.concatenate([np.tile(levels, (1, 40, 48, 1)), speckle(0, 40, 48)[None]])
    prints = fingerprints(images)
    assert not prints[:256].any()
    assert prints[256].any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(related_pairs(prints)) == 0


def test_one_odd_pixel_makes_no_structure():
    image = np.full((1, HEIGHT, WIDTH, 1), 77, np.uint8)
    image[0, 80, 90] = 78
    assert not fingerprints(image).any()


def test_known_images_are_compared_only_with_new_ones(unrelated):
    images = np.stack([speckle(0), speckle(0), *unrelated, speckle(0), marked(speckle(0))])
    prints, known = fingerprints(images), 2 + len(unrelated)
    everything = pair_set(related_pairs(prints))
    new = pair_set(related_pairs(prints, known=known))
    assert (0, 1) in everything
    assert new == {pair for pair in everything if pair[1] >= known}
    assert len(new) == 5
    assert len(related_pairs(prints, known=len(prints))) == 0


@pytest.mark.seconds
def test_pairs_are_found_across_blocks(unrelated):
    filler = np.concatenate([unrelated] * 7)[:, ::2, ::2]
    image = speckle(0)[::2, ::2]
    prints = fingerprints(np.concatenate([image[None], filler, image[None]]))
    pairs = related_pairs(prints, known=len(prints) - 1)
    assert pair_set(pairs) == {(0, len(prints) - 1)}


def test_the_number_of_workers_changes_nothing(unrelated):
    images = np.stack([speckle(0), *unrelated, *shifted(0, 9, 5), speckle(0)[:, ::-1]])
    prints = fingerprints(images)
    one, three = (related_pairs(prints, workers=n) for n in (1, 3))
    assert len(one) > 0
    for name in ("first", "second", "score"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


def test_pairs_are_ordered_and_counted_once():
    prints = fingerprints(np.stack([speckle(0)] * 4))
    pairs = related_pairs(prints)
    assert pairs.first.tolist() == [0, 0, 0, 1, 1, 2]
    assert pairs.second.tolist() == [1, 2, 3, 2, 3, 3]


def test_a_higher_threshold_keeps_fewer_pairs(unrelated):
    copy = marked(speckle(0))
    prints = fingerprints(np.stack([speckle(0), *unrelated, copy]))
    score = related_pairs(prints).score[0]
    assert len(related_pairs(prints, threshold=float(score) + 0.01)) == 0
    assert len(related_pairs(prints, threshold=float(score) - 0.01)) == 1


def test_progress_reaches_the_total(unrelated):
    calls = []
    related_pairs(fingerprints(unrelated), progress=lambda *call: calls.append(call))
    assert calls[-1] == ("near-duplicates", len(unrelated), len(unrelated))


def test_no_images_have_no_prints_no_pairs_and_no_clusters():
    prints = fingerprints(np.empty((0, HEIGHT, WIDTH, 1), np.uint8))
    assert prints.shape == (0, 96, 96)
    pairs = related_pairs(prints)
    assert isinstance(pairs, Pairs)
    assert len(pairs) == 0
    assert clusters(0, pairs.first, pairs.second).tolist() == []


def test_clusters_are_numbered_by_their_first_members():
    first, second = np.array([1, 4, 0]), np.array([4, 6, 5])
    found = clusters(7, first, second)
    assert found.dtype == np.int64
    assert found.tolist() == [0, 1, 2, 3, 1, 0, 1]


def test_images_without_relatives_are_clusters_of_their_own():
    none = np.empty(0, np.int64)
    assert clusters(3, none, none).tolist() == [0, 1, 2]


def noise_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (40, height, width, 1), np.uint8)


def coarse_noise(cells: int) -> np.ndarray:
    blocks = noise_of(cells, cells)[..., 0]
    enlarged = [np.array(Image.fromarray(b).resize((96, 80), Image.BILINEAR)) for b in blocks]
    return np.stack(enlarged)[..., None]


def slopes() -> np.ndarray:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[0:80, 0:96]
    made = [128 + rng.uniform(-1, 1) * y + rng.uniform(-1, 1) * x for _ in range(40)]
    return np.clip(np.stack(made), 0, 255).astype(np.uint8)[..., None]


@pytest.mark.seconds
@pytest.mark.parametrize(
    "images",
    [noise_of(28, 28), noise_of(16, 20), coarse_noise(8), coarse_noise(16), slopes()],
    ids=["28x28", "16x20", "8 cells", "16 cells", "slopes"],
)
def test_images_of_little_detail_are_not_all_relatives_but_their_copies_are(
    images: np.ndarray,
) -> None:
    darker = (images[:5] * 0.9).astype(np.uint8)
    pairs = related_pairs(fingerprints(np.concatenate([images, darker])))
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    copies = {(i, 40 + i) for i in range(5)}
    assert len(found & copies) >= 4
    assert len(found - copies) <= 8, "of 990 pairs"


# With keypoints and a shortlist


@pytest.fixture(scope="module")
def traced(unrelated):
    return Traces.of(unrelated)


def among(traced, *images):
    """Return the traces of unrelated images and of some more."""
    traces = Traces(len(traced) + len(images))
    traces.copy(traced, 0)
    traces.add(np.stack(images))
    return traces


def half_dark(image):
    bent = 200 * (image / 255.0) ** 1.6
    return bent.astype(np.uint8)


def turned(image):
    return np.asarray(Image.fromarray(image[..., 0]).rotate(3, Image.BICUBIC))[..., None]


def recompressed(image):
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "JPEG", quality=25)
    return np.asarray(Image.open(file))[..., None]


CROPS = {
    "three quarters": (30, 25, 144, 120),
    "two thirds": (40, 10, 128, 107),
    "another shape": (50, 20, 115, 128),
    "half": (50, 40, 96, 80),
}


@pytest.mark.parametrize("mirrored", [False, True], ids=["", "mirrored"])
@pytest.mark.parametrize("window", CROPS.values(), ids=CROPS.keys())
def test_a_crop_is_found_whatever_its_window(traced, window, mirrored):
    copy = magnified(speckle(0), *window)
    copy = copy[:, ::-1] if mirrored else copy
    n = len(traced)
    assert pair_set(related_pairs(among(traced, speckle(0), copy))) == {(n, n + 1)}
    assert pair_set(related_pairs(among(traced, copy, speckle(0)))) == {(n, n + 1)}


@pytest.mark.seconds
def test_a_crop_that_resembles_its_source_as_it_is_scores_no_less_for_that(traced):
    crop = magnified(speckle(0), *CROPS["three quarters"])
    (n, m), images = (len(traced), len(traced) + 1), (speckle(0), crop)
    (score,) = related_pairs(among(traced, *images)).score
    low = related_pairs(among(traced, *images), threshold=0.03)
    found = dict(
        zip(zip(low.first.tolist(), low.second.tolist(), strict=True), low.score, strict=True)
    )
    assert found[n, m] == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("change", [half_dark, turned, recompressed, marked])
def test_a_copy_is_found_after(traced, change):
    copy = change(magnified(speckle(0), 10, 5, 173, 144))
    n = len(traced)
    assert pair_set(related_pairs(among(traced, speckle(0), copy))) == {(n, n + 1)}


def test_keypoints_relate_no_different_images(traced):
    assert len(related_pairs(traced)) == len(related_pairs(traced, many=0)) == 0


def test_the_shortlist_finds_what_comparing_all_pairs_finds(traced):
    copies = [speckle(0), marked(speckle(0)), magnified(speckle(0), 9, 8, 173, 144)]
    copies += [*shifted(1, 9, 5), speckle(2), speckle(2)[:, ::-1]]
    traces = among(traced, *copies)
    all_, listed = related_pairs(traces), related_pairs(traces, many=0)
    assert len(all_) == 5 and pair_set(all_) == pair_set(listed)
    np.testing.assert_allclose(all_.score, listed.score, atol=1e-3)


@pytest.mark.parametrize("many", [0, 10_000])
def test_the_number_of_workers_changes_nothing_with_keypoints(traced, many):
    crop = magnified(speckle(0), *CROPS["two thirds"])
    traces = among(traced, speckle(0), *shifted(1, 9, 5), crop)
    one, three = (related_pairs(traces, workers=n, many=many) for n in (1, 3))
    assert len(one) == 2
    for name in ("first", "second", "score"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))


@pytest.mark.parametrize("many", [0, 10_000])
def test_known_images_with_keypoints_are_compared_only_with_new_ones(traced, many):
    crop = magnified(speckle(0), *CROPS["three quarters"])
    traces = among(traced, speckle(0), crop, speckle(0), speckle(1), crop)
    n = len(traced)
    everything = pair_set(related_pairs(traces, many=many))
    assert everything == {
        (n, n + 1),
        (n, n + 2),
        (n, n + 4),
        (n + 1, n + 2),
        (n + 1, n + 4),
        (n + 2, n + 4),
    }
    new = pair_set(related_pairs(traces, known=n + 2, many=many))
    assert new == {pair for pair in everything if pair[1] >= n + 2}
    assert len(related_pairs(traces, known=n + 5, many=many)) == 0


def test_traces_do_not_depend_on_how_images_come(unrelated):
    whole, single = Traces.of(unrelated[:5]), Traces(5)
    for image in unrelated[:5]:
        single.add(image[None], workers=1)
    np.testing.assert_array_equal(whole.prints[:], single.prints[:])
    np.testing.assert_array_equal(whole.outlines, single.outlines)
    np.testing.assert_array_equal(whole.keypoints.descriptors, single.keypoints.descriptors)


def test_constant_and_missing_images_have_traces_and_no_relatives():
    traces = Traces.of(np.full((3, 40, 48, 1), 7, np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(related_pairs(traces)) == len(related_pairs(traces, many=0)) == 0
        assert len(related_pairs(Traces(0))) == len(related_pairs(Traces(0), many=0)) == 0


def site(folder):
    files = [p for p in sorted(folder.rglob("*.png")) if "mask" not in str(p)]
    if not files:
        pytest.skip(f"no images in {folder}")
    size = (WIDTH, HEIGHT)
    scaled = [Image.open(p).convert("L").resize(size, Image.Resampling.LANCZOS) for p in files]
    return np.stack([np.asarray(image) for image in scaled])[..., None]


@pytest.mark.slow
def test_the_shortlist_loses_no_pair_of_busi_and_no_pair_spans_two_sites():
    busi, breast = site(DATA / "busi"), site(DATA / "breast")
    traces = Traces.of(np.concatenate([busi, breast]))
    every = pair_set(related_pairs(Traces.of(busi), many=10**6))
    listed = pair_set(related_pairs(traces, many=0))
    assert len(every) > 240 and every <= listed
    assert not any(a < len(busi) <= b for a, b in listed)
    assert not any(a >= len(busi) for a, _ in listed)


@pytest.mark.slow
def test_the_clean_groups_of_busi_and_its_views_of_one_lesion_are_kept_together(tmp_path):
    if not (DATA / "busi").is_dir():
        pytest.skip(f"no images in {DATA / 'busi'}")
    folder = DATA / "busi" / "Dataset_BUSI_with_GT"
    store = tmp_path / "b.store"
    report = ak.ingest(folder, store, size=f"{WIDTH}x{HEIGHT}", workers=os.cpu_count())
    assert 240 <= report.pairs <= 252 and 25 <= report.alike <= 45
    assert f"{report.alike} pairs that may show the same thing without being copies" in str(report)
    snapshot = ak.open(store).snapshot()
    real = snapshot.real
    assert 575 <= len(np.unique(real.groups[~real.conflict])) <= 579
    assert 759 <= (~real.conflict).sum() <= 762
    lesion = [f"benign/benign ({n}).png" for n in (204, 206, 249, 282, 303)]
    views = np.array([key.endswith(tuple(lesion)) for key in real.keys.tolist()])
    assert views.sum() == 5 and len(np.unique(real.groups[views])) == 2
    assert len(np.unique(real.folds[views])) == 1
