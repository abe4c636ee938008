import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, shift
from toys import DATA

import augkit as ak
from augkit.errors import InputError
from augkit.ingestion.duplicates import fingerprints
from augkit.interfaces import ArraySamples
from augkit.memorisation import LEAST, Gallery
from augkit.testing import phantoms

HEIGHT, WIDTH = 160, 192


def samples(images):
    return ArraySamples(images, np.zeros(len(images), np.int64))


def gallery(images, groups=None):
    return Gallery.of(samples(images), np.arange(len(images)) if groups is None else groups)


def rounded(image):
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def shifted(image, rng, mode):
    y, x = rng.uniform(-0.12, 0.12, 2) * image.shape[:2]
    return rounded(shift(image[..., 0].astype(float), (y, x), order=1, mode=mode))[..., None]


def cropped(image, rng):
    height, width = (round(0.9 * side) for side in image.shape[:2])
    y, x = (int(rng.integers(0, side - round(0.9 * side) + 1)) for side in image.shape[:2])
    window = Image.fromarray(image[y : y + height, x : x + width, 0])
    return np.asarray(window.resize(image.shape[1::-1], Image.Resampling.BILINEAR))[..., None]


def speckle(rng, shape):
    fine = gaussian_filter(rng.normal(size=shape), (0.7, 1.0))
    return fine / fine.std()


def noisy(image, rng):
    return rounded(image * (1 + 0.3 * speckle(rng, image.shape[:2])[..., None]))


def respeckled(image, rng):
    smooth = gaussian_filter(image[..., 0].astype(float), 1.5)
    strength = np.sqrt(gaussian_filter(np.square(image[..., 0] - smooth), 4))
    return rounded(smooth + strength * speckle(rng, smooth.shape))[..., None]


KINDS = {
    "exact": lambda image, rng: image,
    "mirrored": lambda image, rng: image[:, ::-1],
    "shifted on black": lambda image, rng: shifted(image, rng, "constant"),
    "shifted, border replicated": lambda image, rng: shifted(image, rng, "nearest"),
    "cropped": cropped,
    "mirrored and cropped": lambda image, rng: cropped(image[:, ::-1], rng),
    "darker": lambda image, rng: rounded(image * 0.7),
    "brighter": lambda image, rng: rounded(image * 1.3),
    "noisy": noisy,
    "respeckled": respeckled,
    "blurred": lambda image, rng: rounded(gaussian_filter(image.astype(float), (1, 1, 0))),
}


def planted(images, kind, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([KINDS[kind](image, rng) for image in images])


@pytest.fixture(scope="module")
def real():
    """Phantoms, and others that show something else."""
    return tuple(phantoms(n, height=HEIGHT, width=WIDTH, seed=n)[0] for n in (14, 10))


@pytest.fixture(scope="module")
def found(real):
    return gallery(real[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_copy_is_found_and_its_original_named(real, found, kind):
    nearest = found.nearest(planted(real[0][:12], kind))
    assert found.copies(nearest).all()
    assert nearest.index.tolist() == list(range(12))
    assert (nearest.index.dtype, nearest.score.dtype) == (np.int64, np.float32)


def test_an_exact_copy_scores_one(real, found):
    np.testing.assert_allclose(found.nearest(real[0][:5]).score, 1, atol=1e-3)


@pytest.mark.parametrize("sigma", [0, 1, 4])
def test_strangers_are_no_copies_however_blurred(real, found, sigma):
    strangers = rounded(gaussian_filter(real[1].astype(float), (0, sigma, sigma, 0)))
    assert not found.copies(found.nearest(strangers)).any()


def test_noise_and_training_images_turned_upside_down_are_no_copies(real, found):
    noise = np.random.default_rng(0).integers(0, 256, (10, HEIGHT, WIDTH, 1), np.uint8)
    for images in (noise, real[0][:, ::-1]):
        assert not found.copies(found.nearest(images)).any()


def test_neither_block_nor_order_nor_threads_change_a_result(real, found):
    images = np.concatenate([real[1][:12], planted(real[0][:6], "noisy")])
    whole, backwards = found.nearest(images), found.nearest(images[::-1])
    with ThreadPoolExecutor(4) as pool:
        single = list(pool.map(found.nearest, images[:, None]))
    for name in ("index", "score"):
        values = getattr(whole, name)
        np.testing.assert_array_equal(values, getattr(backwards, name)[::-1])
        np.testing.assert_array_equal(values, np.concatenate([getattr(s, name) for s in single]))


def test_a_gallery_is_the_same_when_it_is_made_again(real, found):
    again = gallery(real[0])
    np.testing.assert_array_equal(again.waves, found.waves)
    assert again.threshold == found.threshold


def test_a_copy_of_another_size_or_in_colour_is_found(real, found):
    large = [np.asarray(Image.fromarray(i[..., 0]).resize((300, 300))) for i in real[0][:5]]
    for images in (np.stack(large)[..., None], np.repeat(real[0][:5], 3, axis=-1)):
        nearest = found.nearest(images)
        assert found.copies(nearest).all() and nearest.index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("groups", [np.arange(8), np.zeros(8, np.int64)], ids=["eight", "one"])
def test_eight_training_images_have_the_threshold_of_the_finder_and_work(real, groups):
    few = gallery(real[0][:8], groups)
    assert few.threshold == LEAST
    assert few.copies(few.nearest(planted(real[0][:8], "cropped"))).all()
    assert not few.copies(few.nearest(real[1])).any()


def test_a_single_training_image_is_enough():
    (image, other), _, _ = phantoms(2, classes=("benign",), height=64, width=80)
    alone = gallery(image[None])
    assert alone.threshold == LEAST
    assert alone.copies(alone.nearest(np.stack([image, other]))).tolist() == [True, False]


def test_no_training_images_are_an_error_that_says_so():
    with pytest.raises(InputError, match="holds no images to compare with"):
        gallery(np.empty((0, 20, 20, 1), np.uint8))


def test_no_images_have_no_nearest(found):
    nearest = found.nearest(np.empty((0, HEIGHT, WIDTH, 1), np.uint8))
    assert len(nearest.index) == len(nearest.score) == len(found.copies(nearest)) == 0


def test_images_without_structure_are_copies_of_nothing(real):
    flat = np.repeat(np.arange(20, dtype=np.uint8), HEIGHT * WIDTH).reshape(20, HEIGHT, WIDTH, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for train in (flat, real[0][:8]):
            made = gallery(train)
            nearest = made.nearest(flat)
            assert not nearest.score.any() and not made.copies(nearest).any()
        assert not made.copies(gallery(flat).nearest(real[1][:8])).any()


def small(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28, 1), np.uint8)


@pytest.mark.slow
def test_images_of_little_detail_are_no_copies_and_their_copies_are():
    train = small(120, 0)
    made = gallery(train)
    assert made.copies(made.nearest((train[:20] * 0.9).astype(np.uint8))).mean() >= 0.95
    assert made.copies(made.nearest(small(100, 1))).mean() <= 0.03


@pytest.mark.slow
def test_at_most_one_in_a_hundred_training_images_exceeds_the_threshold():
    train, groups = small(200, 0), np.arange(200)
    train[100:106] = noisy_pair = (train[:6] * 0.9).astype(np.uint8)
    made = gallery(train, groups)
    score = made.nearest(noisy_pair).score.min()
    assert made.threshold > LEAST, "twelve copies among strangers raise the threshold"
    assert made.threshold > score - 0.2
    prints = fingerprints(train)
    scores = [made._stranger(prints[i], groups != groups[i]) for i in range(200)]
    assert (np.array(scores, np.float32) > made.threshold).sum() <= 2
    groups[100:106] = groups[:6]
    assert gallery(train, groups).threshold == LEAST


def test_progress_counts_prints_and_then_strangers(real):
    calls = []
    Gallery.of(samples(real[0][:8]), np.arange(8), lambda *call: calls.append(call))
    assert calls[0] == ("prints", 8, 8)
    assert calls[-1] == ("strangers", 8, 8)


@pytest.mark.slow
def test_copies_of_busi_are_found_and_its_other_patients_are_not(tmp_path):
    images = DATA / "busi" / "Dataset_BUSI_with_GT"
    if not images.is_dir():
        pytest.skip(f"no BUSI in {DATA}: set AUGKIT_DATA to a folder with busi/ and breast/")
    ak.ingest(images, tmp_path / "busi.store", size=f"{WIDTH}x{HEIGHT}", workers=os.cpu_count())
    snapshot = ak.open(tmp_path / "busi.store").snapshot()
    parts, everything = snapshot.parts(ak.HOLDOUT), snapshot.inspect()[:]
    train, groups = everything[parts == 0], snapshot.real.groups[parts == 0]
    made = Gallery.of(snapshot.training(ak.HOLDOUT), snapshot.real.folds[parts == 0])
    assert made.threshold < 0.14, "other views of a lesion count as strangers"
    chosen = np.linspace(0, len(train) - 1, 60).astype(np.int64)
    for kind in KINDS:
        nearest = made.nearest(planted(train[chosen], kind))
        assert made.copies(nearest).mean() >= 0.95, kind
        assert (groups[nearest.index] == groups[chosen]).mean() >= 0.95, kind
    strangers = everything[(parts == 1) | (parts == 2)]
    assert made.copies(made.nearest(strangers)).mean() <= 0.01
