"""Networks: a frozen body through the feature cache, batches from a store, memory.

    python -m benchmarks.bench_classifiers --csv benchmarks/results/classifiers.csv

`evaluate, frozen body` is a whole evaluation as a user types it: ten epochs, four arms, five seeds,
the body computed once for each image. Its peer does what most scripts do: the same body and output
layer in a plain PyTorch loop over the same arms and epochs, the body computed in every epoch; one
fit of each arm is timed and counted for as many as the evaluation does. `evaluate again` is the
same evaluation with other options, whose features lie in the cache; `features again` is the cache
against the body. `training steps` are those of ResNet-18 on random batches gathered from a store,
against the same from an array in memory; `gathering alone` is without the network.

    python -m benchmarks.bench_classifiers --memory --csv benchmarks/results/classifiers_memory.csv

measures the peak memory of an evaluation for stores of different sizes, each in a process of its
own, beside the size of the features (rows x 1,280 x 4 bytes).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import runner

EPOCHS = 10
SEEDS = 5
N_PER_CLASS = 40
SIZES = (300, 3000)


def toy(folder: Path, n_per_class: int) -> Any:
    """Return a store of phantoms at 192x160."""
    import augkit as ak
    from augkit.testing import CLASSES, iter_phantoms

    store = ak.DatasetStore.create(folder / "a.store", height=160, width=192)
    labels: list[str] = []

    def blocks() -> Iterator[np.ndarray]:
        for image, _, label in iter_phantoms(n_per_class, height=160, width=192):
            labels.append(CLASSES[label])
            yield image[None]

    names = [CLASSES[i % 3] for i in range(3 * n_per_class)]
    keys = [f"{i}.png" for i in range(len(names))]
    ak.ingest_arrays(store, blocks(), names, keys=keys, dataset="p", find_relatives=False)
    assert labels == names
    return store


def frozen(repeats: int) -> Iterator[dict[str, object]]:
    """Yield the evaluation through the cache against the body in each epoch."""
    import augkit as ak
    from augkit.partitions import HOLDOUT

    for repeat in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            store = toy(Path(folder), N_PER_CLASS)
            for name in ("flip", "zoom"):
                ak.augment(store, name)
            snapshot = store.snapshot()
            arms = {"real": (), "flip": ("flip",), "zoom": ("zoom",), "all": ("flip", "zoom")}
            how: dict[str, Any] = {"arms": [*arms], "seeds": SEEDS}
            ours = seconds(ak.evaluate, store, "efficientnet-lite0", **how)
            again = seconds(
                ak.evaluate, store, "efficientnet-lite0", {"learning_rate": 2e-3}, **how
            )
            theirs, body = 0.0, 0.0
            for runs in arms.values():
                spent = plain(snapshot.training(HOLDOUT, runs), snapshot.test(HOLDOUT))
                theirs += SEEDS * spent
            images = snapshot.inspect()
            body, kept = features(store, images)
        yield ratio("evaluate, frozen body", "torch, the body in each epoch", repeat, ours, theirs)
        yield ratio("evaluate again", "torch, the body in each epoch", repeat, again, theirs)
        yield ratio("features again", "computing them", repeat, kept, body)


def plain(train: Any, test: Any) -> float:
    """Return the seconds of one fit in a loop as most write it, the body in every epoch."""
    import torch

    network = body(3)
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith("classifier")
    images, labels = train[:], torch.from_numpy(train.labels)
    tests, prepare = test[:], preparing()
    optimiser = torch.optim.Adam(network.classifier.parameters(), 1e-3)
    start = time.perf_counter()
    network.eval()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(32):
            loss = torch.nn.functional.cross_entropy(
                network(prepare(images[rows.numpy()])), labels[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.inference_mode():
        for first in range(0, len(tests), 32):
            network(prepare(tests[first : first + 32]))
    return time.perf_counter() - start


def features(store: Any, images: Any) -> tuple[float, float]:
    """Return the seconds of computing features, and of getting them from the cache."""
    from augkit_classifiers.efficientnet_lite import EfficientNetLite0

    from augkit.features import FeatureCache

    network = EfficientNetLite0().settle(images.shape, "cpu")
    network.context_ = None  # type: ignore[assignment]
    import torch

    network.device_ = torch.device("cpu")
    function = network._body_features()
    function(images[0:1])
    first = seconds(FeatureCache(store.side_folder("cache")), "key", function, images)
    kept = seconds(FeatureCache(store.side_folder("cache")), "key", function, images)
    return first, kept


def body(n_classes: int) -> Any:
    """Return EfficientNet-Lite0 with its weights and a new output layer."""
    from augkit_classifiers.efficientnet_lite import EfficientNetLite0

    return EfficientNetLite0().settle((160, 192, 1), "cpu")._loaded(n_classes)


def preparing() -> Any:
    """Return the preprocessing of EfficientNet-Lite0."""
    from augkit_classifiers.preprocessing import Preprocessing

    return Preprocessing(224, 224, 3)


def reading(repeats: int) -> Iterator[dict[str, object]]:
    """Yield training steps on batches from a store against the same from an array."""
    import torch
    from augkit_classifiers.preprocessing import Preprocessing
    from augkit_classifiers.resnet import ResNet

    from augkit.interfaces import ArraySamples
    from augkit.partitions import HOLDOUT

    with tempfile.TemporaryDirectory() as folder:
        stored = toy(Path(folder), 200).snapshot().training(HOLDOUT)
        held = ArraySamples(stored[:], stored.labels)
        network = ResNet(depth="18", weights="none", input_size="192x160").build(3, 1)
        optimiser = torch.optim.Adam(network.parameters(), 1e-3)
        prepare = Preprocessing(160, 192, 1)
        rng = np.random.default_rng(0)

        def steps(samples: Any, n: int = 5) -> None:
            for _ in range(n):
                rows = rng.integers(0, len(samples), 32)
                scores = network(prepare(samples.gather(rows)))
                loss = torch.nn.functional.cross_entropy(
                    scores, torch.from_numpy(samples.labels[rows])
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

        def gathered(samples: Any, n: int = 50) -> None:
            for _ in range(n):
                samples.gather(rng.integers(0, len(samples), 32))

        steps(stored), steps(held), gathered(stored)
        for repeat in range(repeats):
            ours, theirs = seconds(steps, stored), seconds(steps, held)
            yield ratio("training steps from a store", "from an array", repeat, ours, theirs)
            ours, theirs = seconds(gathered, stored), seconds(gathered, held)
            yield ratio("gathering alone from a store", "from an array", repeat, ours, theirs)


def ratio(case: str, peer: str, repeat: int, ours: float, theirs: float) -> dict[str, object]:
    """Return a row of the table; the ratio is above 1 where ours is faster."""
    return {
        "case": case,
        "peer": peer,
        "repeat": repeat,
        "ratio": f"{theirs / ours:.4g}",
        "ours_s": f"{ours:.4g}",
        "peer_s": f"{theirs:.4g}",
    }


def seconds(function: Any, *arguments: Any, **more: Any) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    function(*arguments, **more)
    return time.perf_counter() - start


def memory() -> Iterator[dict[str, object]]:
    """Yield the peak memory of an evaluation for each size of store."""
    for n in SIZES:
        for classifier, options in (
            ("efficientnet-lite0", {}),
            ("resnet", {"depth": "18", "weights": "none", "epochs": 1, "input_size": "48x40"}),
        ):
            with tempfile.TemporaryDirectory() as folder:
                store = toy(Path(folder), n // 3)
                code = (
                    "import augkit as ak; from benchmarks import bench_classifiers as b; "
                    f"ak.evaluate({str(store.path)!r}, {classifier!r}, {options!r}, seeds=1); "
                    "b.peak()"
                )
                done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            yield {
                "classifier": classifier,
                "images": n,
                "peak_mb": int(done.stdout),
                "features_mb": f"{n * 1280 * 4 / 1e6:.1f}" if not options else 0,
            }


def peak() -> None:
    """Print the largest memory of this process so far, MB."""
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Print and append the rows as they come."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_classifiers")
    parser.add_argument("--csv", type=Path, help="append the rows, as in benchmarks/results/")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    chosen = parser.parse_args()
    rows = memory() if chosen.memory else iter([])
    if not chosen.memory:
        from itertools import chain

        rows = chain(reading(chosen.repeats), frozen(chosen.repeats))
    for row in rows:
        print(*row.values(), flush=True)
        if chosen.csv is not None:
            runner.append(chosen.csv, [row])


if __name__ == "__main__":
    main()
