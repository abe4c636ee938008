"""Training with torch from a store: its rows, in an order that a seed decides, in any worker."""

import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from leaks import part, plant
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2
from toys import toy_store

import augkit as ak
from augkit.errors import AugkitError, DamagedStore, LineageError, OptionError
from augkit.partitions import HOLDOUT, k_fold
from augkit.store import DatasetStore
from augkit.store.samples import JoinedSamples, StoredSamples
from augkit.torch import as_float, dataset, loader

# Since Python 3.12: what is forked while threads run. h5py and torch have some.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DatasetStore:
    made = toy_store(tmp_path_factory.mktemp("torch") / "toy.store")
    ak.augment(made, "flip")
    return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows of each read from a store."""
    found, gather = [], StoredSamples.gather

    def counted(self, rows):
        found.append(len(rows))
        return gather(self, rows)

    monkeypatch.setattr(StoredSamples, "gather", counted)
    return found


def channels_first(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 3, 1, 2)


def epoch(batches: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    """Return all images and labels of one pass, in its order."""
    images, labels = zip(*batches, strict=True)
    return torch.cat(images).numpy(), torch.cat(labels).numpy()


# What a row is


@pytest.mark.parametrize("name", ["toy.store", "toy.h5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_of_the_store_channels_first(tmp_path, name, channels):
    store = toy_store(tmp_path / name, 7, shape=(24, 32, channels))
    wanted = store.snapshot().training(HOLDOUT)
    found = dataset(store)
    assert isinstance(found, Dataset) and len(found) == len(wanted)
    images, labels = epoch(loader(found, 4))
    np.testing.assert_array_equal(images, channels_first(wanted[:]))
    np.testing.assert_array_equal(labels, wanted.labels)
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    image, label = found[3]
    assert (image.shape, type(label)) == ((channels, 24, 32), int)
    assert found.classes == store.snapshot().classes


def test_the_rows_of_an_arm_are_those_that_an_evaluation_trains_on(store):
    wanted = store.snapshot().training(HOLDOUT, ["flip"])
    for source in (store, str(store.path), store.path):
        found = dataset(source, arms=["traditional"])
        np.testing.assert_array_equal(epoch(loader(found))[0], channels_first(wanted[:]))
        np.testing.assert_array_equal(found.labels, wanted.labels)
    assert len(dataset(store)) == len(wanted) / 2, "real images alone, unless said"


def test_a_fold_and_its_parts_can_be_chosen(store):
    snapshot, fold = store.snapshot(), k_fold(5)[2]
    for name, wanted in (
        ("train", snapshot.training(fold)),
        ("validation", snapshot.validation(fold)),
        ("test", snapshot.test(fold)),
    ):
        found = dataset(store, part=name, folds=5, fold=3, test_labels=name == "test")
        np.testing.assert_array_equal(epoch(loader(found))[0], channels_first(wanted[:]))
        rows = part(snapshot, ["train", "validation", "test"].index(name), fold)
        np.testing.assert_array_equal(found.labels, snapshot.real.labels[rows])


def test_as_float_divides_by_255_as_torchvision_does_but_for_rounding(store):
    image, found = dataset(store)[0][0], dataset(store, transform=as_float)[0][0]
    assert found.dtype == torch.float32 and found.shape == image.shape
    np.testing.assert_array_equal(found.numpy(), image.numpy() / np.float32(255))
    wanted = v2.ToDtype(torch.float32, scale=True)(image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)


def test_any_transform_of_a_tensor_will_do(store):
    found = dataset(store, transform=v2.Compose([v2.CenterCrop(16), v2.RandomHorizontalFlip(1.0)]))
    wanted = dataset(store)[5][0][:, 4:20, 8:24].flip(-1)
    torch.testing.assert_close(found[5][0], wanted)


def test_rows_count_from_either_end_and_end(store):
    found = dataset(store)
    assert torch.equal(found[-1][0], found[len(found) - 1][0])
    assert len([label for _, label in found]) == len(found)
    for index in (len(found), -len(found) - 1):
        with pytest.raises(IndexError, match=f"row {index} of {len(found)}"):
            found[index]


def test_images_of_a_batch_are_each_their_own(store):
    first, second = dataset(store).__getitems__([2, 2])
    first[0].zero_()
    assert second[0].any() and dataset(store)[2][0].any()


# Batches


def test_a_batch_is_read_at_once(store, reads):
    found = dataset(store)
    n = len(found)
    for batches in (
        loader(found, 8, shuffle=True),
        DataLoader(found, batch_size=8, shuffle=True),
        DataLoader(Subset(found, range(n)), batch_size=8),
    ):
        reads.clear()
        epoch(batches)
        assert reads == [8] * (n // 8) + ([n % 8] if n % 8 else [])


def test_a_batch_of_real_and_augmented_rows_is_read_once_from_each(store, reads):
    epoch(loader(dataset(store, arms=["flip"]), 8, shuffle=True))
    assert max(reads) <= 8 and sum(reads) == len(dataset(store, arms=["flip"]))


def test_the_seed_decides_the_order_of_every_epoch(store):
    found = dataset(store)

    def order(seed: int) -> list[np.ndarray]:
        batches = loader(found, 8, shuffle=True, seed=seed)
        return [epoch(batches)[0] for _ in range(2)]

    first, again, other = order(0), order(0), order(1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])
    wanted = epoch(loader(found, 8))[0]
    for images in (*first, *other):
        assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in wanted)


def test_the_last_batch_can_be_dropped(store):
    found = dataset(store)
    assert len(found) % 4 and len(list(loader(found, 4, drop_last=True))) == len(found) // 4


def test_nothing_but_the_generator_of_the_loader_is_used(store):
    before = torch.get_rng_state()
    epoch(loader(dataset(store), 8, shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


# Workers


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "file"])
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_give_the_same_batches(store, tmp_path, form, method, workers):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    source = store if form == "folder" else ak.pack(store, tmp_path / "toy.h5")
    found = dataset(source, arms=["all"], transform=as_float)
    wanted = epoch(loader(found, 8, shuffle=True))  # the files are open in this process too
    with_workers = loader(found, 8, shuffle=True, workers=workers, start_method=method)
    for one, other in zip(epoch(with_workers), wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(epoch(loader(found, 8, shuffle=True))[0], wanted[0])


def test_the_second_epoch_of_workers_is_that_of_none(store):
    found = dataset(store)
    orders = []
    for workers in (0, 2):
        batches = loader(found, 8, shuffle=True, workers=workers, start_method="fork")
        orders.append([epoch(batches)[0] for _ in range(2)])
    np.testing.assert_array_equal(orders[0], orders[1])


def test_a_damaged_image_is_named_by_a_worker_too(tmp_path):
    store = toy_store(tmp_path / "toy.store", 7)
    found = dataset(store)
    image = found[2][0].numpy().tobytes()
    (path,) = (store.path / "shards").iterdir()
    path.write_bytes(path.read_bytes().replace(image, bytes(len(image))))
    found = dataset(DatasetStore.open(store.path))
    for workers in (0, 1):
        with pytest.raises(DamagedStore, match="augkit verify lists what is affected"):
            epoch(loader(found, 4, workers=workers, start_method="fork"))


def test_a_dataset_can_be_sent_to_another_process(store):
    found = dataset(store, transform=as_float)
    sent = pickle.loads(pickle.dumps(found))
    assert isinstance(sent, Dataset) and sent.classes == found.classes
    assert torch.equal(sent[4][0], found[4][0]) and sent[4][1] == found[4][1]


# Lineage


@pytest.mark.seconds
def test_a_row_made_from_a_test_image_is_left_out(tmp_path, caplog):
    store = toy_store(tmp_path / "toy.store", 7)
    train, test = part(store.snapshot(), 0), part(store.snapshot(), 2)
    plant(store, "leaky", [train[0], test[0]])
    found = dataset(store, arms=["leaky"])
    leaked = channels_first(store.snapshot().inspect("leaky")[1:2])[0]
    assert len(found) == len(train) + 1
    assert not any(np.array_equal(image, leaked) for image in epoch(loader(found))[0])
    assert "1 rows of run 'leaky' may not be trained on" in caplog.text
    plant(store, "bad", test[:2])
    with pytest.raises(LineageError, match="no row of 'bad' may be trained on"):
        dataset(store, arms=["bad"])


@pytest.mark.parametrize("name", ["validation", "test"])
def test_other_parts_have_real_images_alone(store, name):
    found = dataset(store, part=name, arms=["all"], test_labels=name == "test")
    snapshot = store.snapshot()
    assert len(found) == len(part(snapshot, 1 if name == "validation" else 2))


def test_the_labels_of_test_images_are_given_only_where_that_is_said(store):
    with pytest.raises(LineageError, match="withheld, so that nothing is chosen by them: say test"):
        dataset(store, part="test")
    snapshot = store.snapshot()
    found = dataset(store, part="test", test_labels=True)
    np.testing.assert_array_equal(found.labels, snapshot.real.labels[part(snapshot, 2)])


def test_samples_that_a_plugin_is_given_are_read_and_test_labels_withheld(store):
    snapshot = store.snapshot()
    train, test = snapshot.training(HOLDOUT, ["flip"]), snapshot.test(HOLDOUT)
    np.testing.assert_array_equal(dataset(train).labels, train.labels)
    images, labels = epoch(loader(dataset(test)))
    np.testing.assert_array_equal(images, channels_first(test[:]))
    assert set(labels.tolist()) == {-1}
    held = ak.ArraySamples(train[:4], train.labels[:4])
    np.testing.assert_array_equal(epoch(loader(dataset(held)))[0], channels_first(train[:4]))


def test_what_is_only_to_look_at_is_not_trained_on(store):
    snapshot = store.snapshot()
    mixed = JoinedSamples([snapshot.training(HOLDOUT), snapshot.validation(HOLDOUT)])
    for samples in (snapshot.inspect(), snapshot.inspect("flip"), mixed):
        with pytest.raises(LineageError, match="these samples are only to look at; take those of"):
            dataset(samples)


# What a user can get wrong


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"part": "val"}, "there is no part 'val'; there are: train, validation, test"),
        ({"arms": ["flop"]}, "there is no arm 'flop'; there are: real, traditional"),
        ({"arms": "flip"}, r"arms is text; give a list of names, such as \['flip'\]"),
        ({"arms": ["balanced"]}, "balanced repeats real images; take real"),
        ({"folds": 5}, "which of the 5 folds. Give --fold, 1 to 5"),
        ({"test_on": "busi"}, "there is no data set 'busi'; there are: toy"),
    ],
)
def test_a_wrong_word_is_one_plain_error(store, flags, said):
    with pytest.raises(AugkitError, match=said):
        dataset(store, **flags)


def test_samples_are_chosen_already(store):
    train = store.snapshot().training(HOLDOUT)
    for flags in ({"part": "validation"}, {"arms": ["flip"]}, {"folds": 5}, {"test_labels": True}):
        with pytest.raises(OptionError, match="chosen already: only a transform may be given"):
            dataset(train, **flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"batch_size": 1.5}, "batch_size is 1.5; it must be a whole number"),
        ({"workers": -1}, "workers is -1; it must be at least 0"),
        ({"seed": -1}, r"seed is -1; it must be at least 0 and below 2\*\*63"),
        ({"start_method": "thread"}, "start_method is 'thread'; here there are: .*spawn"),
    ],
)
def test_a_wrong_setting_of_a_loader_is_one_plain_error(store, flags, said):
    with pytest.raises(OptionError, match=said):
        loader(dataset(store), **flags)


# The name of the module


def test_the_module_does_not_import_torch_before_it_is_used():
    code = (
        "import augkit.torch, sys; sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_module_does_not_stand_in_the_way_of_torch_itself():
    assert torch.__name__ == "torch" and Path(torch.__file__).parent.name == "torch"
    assert sys.modules["augkit.torch"] is not torch and "torch" not in ak.__all__
    made: Callable[..., object] = sys.modules["augkit.torch"].dataset
    assert made is dataset
