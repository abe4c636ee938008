"""Training steps and sampling of the DAGAN against plain PyTorch with the same networks.

    python -m benchmarks.bench_dagan --csv benchmarks/results/dagan.csv

The peer is what a textbook WGAN-GP does in eager PyTorch: two passes of the critic, the penalty by
`torch.autograd.grad(create_graph=True)`, float32, Adam as it comes. The networks, the batch and the
real images are the same. Sampling into a store includes the checksums, the comparison with the
training images and the commit; its peer is the forward pass of the generator alone.

    python -m benchmarks.bench_dagan --memory --csv benchmarks/results/dagan_memory.csv

measures the peak memory of training for several batches, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import runner

BATCH = 16
SIZES = [(80, 96), (160, 192)]
N_SAMPLED = 320


def cases() -> Iterator[runner.Case]:
    """Yield steps at two sizes, then sampling."""
    for height, width in SIZES:
        for name, options in (
            ("critic step", {"penalty_every": 1, "steps": 1}),
            ("critic step, penalty / 4", {"penalty_every": 4, "steps": 4}),
        ):
            steps = options.pop("steps")
            work, peer = training(height, width, **options), Eager(height, width)
            yield runner.Case(
                f"{name} {width}x{height}",
                lambda work=work, steps=steps: critic_steps(work, steps),
                {"torch eager": lambda peer=peer, steps=steps: peer.critic_steps(steps)},
                steps,
            )
        work, peer = training(height, width), Eager(height, width)
        yield runner.Case(
            f"generator step {width}x{height}",
            lambda work=work: generator_step(work),
            {"torch eager": peer.generator_step},
        )
    yield from sampling()


def training(height: int, width: int, *, penalty_every: int = 1, batch: int = BATCH):
    """Return the training of one class on noise."""
    import torch
    from augkit_dagan import Dagan
    from augkit_dagan.training import ClassTraining

    from augkit.interfaces import Context

    shape = (height, width, 1)
    options = Dagan(preset="paper", batch=batch, penalty_every=penalty_every)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (64, 1, height, width), np.uint8))
    return ClassTraining(options.settle(shape, "cpu"), 0, images, shape, context=Context(0, ("a",)))


def critic_steps(work, steps: int) -> None:
    """Do our critic steps, draws and optimiser included."""
    from augkit_dagan.training import Draws

    draws = Draws(work.options, 0, len(work.images), 0)
    for k in range(steps):
        work._critic_step(draws, k)


def generator_step(work) -> None:
    """Do our generator step."""
    from augkit_dagan.training import Draws

    work._generator_step(Draws(work.options, 0, len(work.images), 0))


class Eager:
    """A textbook WGAN-GP."""

    def __init__(self, height: int, width: int):
        import copy

        import torch

        ours = training(height, width)
        self.latent, self.images = ours.options.latent, ours.images.contiguous()
        contiguous = torch.contiguous_format
        self.generator = copy.deepcopy(ours.generator).to(memory_format=contiguous)
        self.critic = copy.deepcopy(ours.critic).to(memory_format=contiguous)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), 1e-4, betas=(0.0, 0.9))
            for network in (self.generator, self.critic)
        ]

    def critic_steps(self, steps: int) -> None:
        """Do critic steps, each with its penalty."""
        import torch

        for _ in range(steps):
            rows = torch.randint(len(self.images), (BATCH,))
            real = self.images[rows].float() / 127.5 - 1
            fake = self.generator(torch.rand(BATCH, self.latent)).detach()
            share = torch.rand(BATCH, 1, 1, 1)
            mixed = (share * real + (1 - share) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(mixed).sum(), mixed, create_graph=True)
            penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
            loss = self.critic(fake).mean() - self.critic(real).mean() + 10 * penalty
            self.optimisers[1].zero_grad()
            loss.backward()
            self.optimisers[1].step()

    def generator_step(self) -> None:
        """Do a generator step."""
        import torch

        loss = -self.critic(self.generator(torch.rand(BATCH, self.latent))).mean()
        self.optimisers[0].zero_grad()
        loss.backward()
        self.optimisers[0].step()


def sampling() -> Iterator[runner.Case]:
    """Yield sampling into a store, with and without the gate, against the forward pass."""
    import torch
    from augkit_dagan.sampling import Generators

    import augkit as ak
    from augkit.testing import phantoms

    folder = Path(tempfile.mkdtemp())
    store = ak.DatasetStore.create(folder / "a.store", height=160, width=192)
    images, _, labels = phantoms(40)
    names = [("benign", "malignant", "normal")[c] for c in labels]
    keys = [f"{i}.png" for i in range(len(names))]
    ak.ingest_arrays(store, [images], names, keys=keys, dataset="p", find_relatives=False)
    for preset, options in (("paper", {"preset": "paper"}), ("small", {"preset": "small"})):
        options |= {"steps": 1, "batch": 2}
        model = ak.fit(store, "dagan", options).model
        with store.model_folder(model) as kept:
            generators = Generators.load(kept)
        seeds = iter(range(1, 10**6))
        label = np.zeros(N_SAMPLED, np.int64)

        def gated(options: dict = options, seeds: Iterator[int] = seeds) -> None:
            ak.augment(store, "dagan", options, total=N_SAMPLED, seed=next(seeds))

        def written(generators: Generators = generators, label: np.ndarray = label) -> None:
            writer = store.write_shard({"kind": "benchmark"}, masks=False)
            for start in range(0, N_SAMPLED, 64):
                writer.append(
                    generators.sample(label[:64], np.arange(start, start + 64, dtype=np.uint64))
                )
            writer.finish({"labels": label})
            writer.discard()

        def bare(network=generators.networks[0], latent: int = generators.latent) -> None:
            with torch.inference_mode():
                for _ in range(N_SAMPLED // 16):
                    network(torch.rand(16, latent))

        peers = {"torch forward": bare}
        yield runner.Case(f"sample and store, {preset}", written, peers, N_SAMPLED)
        yield runner.Case(f"augment with gate, {preset}", gated, peers, N_SAMPLED)


def memory(csv: Path | None) -> None:
    """Print, and append to a file, the peak memory of one generator step for several batches."""
    for height, width in SIZES:
        for batch in (8, 16, 32, 64):
            code = (
                "from benchmarks import bench_dagan as b; "
                f"w = b.training({height}, {width}, batch={batch}); w.advance(1); b.peak()"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            row = {"size": f"{width}x{height}", "batch": batch, "peak_mb": int(done.stdout)}
            print(*row.values(), flush=True)
            if csv is not None:
                runner.append(csv, [row])


def peak() -> None:
    """Print the largest memory of this process so far, MB."""
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--memory", action="store_true")
    chosen, rest = parser.parse_known_args()
    if chosen.memory:
        parser.add_argument("--csv", type=Path)
        memory(parser.parse_args().csv)
    else:
        runner.main("dagan", cases(), rest)
