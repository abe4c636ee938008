"""Training steps and sampling of the DAGAN against plain PyTorch with the same networks.

    python -m benchmarks.bench_dagan --csv benchmarks/results/dagan.csv

The peer is what a textbook WGAN-GP does in eager PyTorch: two passes of the critic, the penalty by
`torch.autograd.grad(create_graph=True)`, float32, Adam as it comes. The networks, the batch and the
real images are the same. Sampling into a store includes the checksums, the comparison with the
training images and the commit; its peer is the forward pass of the generator alone.

    python -m benchmarks.bench_dagan --device cuda --csv benchmarks/results/dagan.csv

measures the steps on a GPU, with the paper's batch of 64 at full size. There the peer computes its
convolutions in TF32, as PyTorch does by default, and a second one in float32.

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
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import runner

BATCH = 16
SIZES = [(80, 96), (160, 192)]
PAPER_BATCH = 64
"""At full size on a GPU."""
N_SAMPLED = 320


def cases(device: str) -> Iterator[runner.Case]:
    """Yield steps at two sizes, then, on a CPU, sampling."""
    for height, width in SIZES:
        batch = PAPER_BATCH if device != "cpu" and (height, width) == SIZES[1] else BATCH
        where = f"{width}x{height}" + ("" if device == "cpu" else f" batch {batch} {device}")
        of = {"device": device, "batch": batch}
        for name, every in (("critic step", 1), ("critic step, penalty / 4", 4)):
            work = training(height, width, penalty_every=every, **of)
            yield runner.Case(
                f"{name} {where}",
                partial(critic_steps, work, every),
                {k: partial(v.critic_steps, every) for k, v in peers(height, width, **of).items()},
                every,
            )
        work = training(height, width, **of)
        yield runner.Case(
            f"generator step {where}",
            partial(generator_step, work),
            {k: v.generator_step for k, v in peers(height, width, **of).items()},
        )
    if device == "cpu":
        yield from sampling()


def training(
    height: int, width: int, *, penalty_every: int = 1, batch: int = BATCH, device: str = "cpu"
):
    """Return the training of one class on noise."""
    import torch
    from augkit_dagan import Dagan
    from augkit_dagan.training import ClassTraining

    from augkit.interfaces import Context

    shape = (height, width, 1)
    options = Dagan(preset="paper", batch=batch, penalty_every=penalty_every)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (64, 1, height, width), np.uint8))
    context = Context(0, ("a",), device)
    return ClassTraining(options.settle(shape, device), 0, images, shape, context=context)


def critic_steps(work, steps: int) -> None:
    """Do our critic steps, draws and optimiser included."""
    from augkit_dagan.training import Draws, fastest_algorithms

    draws = Draws(work.options, 0, len(work.images), 0)
    with fastest_algorithms():
        for k in range(steps):
            work._critic_step(draws, k)
    wait(work.device)


def generator_step(work) -> None:
    """Do our generator step."""
    from augkit_dagan.training import Draws, fastest_algorithms

    with fastest_algorithms():
        work._generator_step(Draws(work.options, 0, len(work.images), 0))
    wait(work.device)


def wait(device) -> None:
    """Wait for what a GPU still computes."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peers(height: int, width: int, *, device: str, batch: int) -> dict[str, Eager]:
    """Return the peers on a device: on a GPU as PyTorch comes, and with float32 as it is."""
    found = {"torch eager": Eager(height, width, device=device, batch=batch)}
    if device != "cpu":
        found["torch eager, no TF32"] = Eager(height, width, device=device, batch=batch, tf32=False)
    return found


class Eager:
    """A textbook WGAN-GP."""

    def __init__(self, height: int, width: int, *, device: str, batch: int, tf32: bool = True):
        import copy

        import torch

        ours = training(height, width, device=device, batch=batch)
        self.latent, self.images = ours.options.latent, ours.images.contiguous()
        self.device, self.batch, self.tf32 = ours.device, batch, tf32
        contiguous = torch.contiguous_format
        self.generator = copy.deepcopy(ours.generator).to(memory_format=contiguous)
        self.critic = copy.deepcopy(ours.critic).to(memory_format=contiguous)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), 1e-4, betas=(0.0, 0.9))
            for network in (self.generator, self.critic)
        ]

    def critic_steps(self, steps: int) -> None:
        """Do critic steps, each with its penalty."""
        for _ in range(steps):
            self._critic_step()
        wait(self.device)

    def _critic_step(self) -> None:
        import torch

        torch.backends.cudnn.allow_tf32 = self.tf32
        rows = torch.randint(len(self.images), (self.batch,), device=self.device)
        real = self.images[rows].float() / 127.5 - 1
        fake = self.generator(self._latents()).detach()
        share = torch.rand(self.batch, 1, 1, 1, device=self.device)
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

        torch.backends.cudnn.allow_tf32 = self.tf32
        loss = -self.critic(self.generator(self._latents())).mean()
        self.optimisers[0].zero_grad()
        loss.backward()
        self.optimisers[0].step()
        wait(self.device)

    def _latents(self):
        import torch

        return torch.rand(self.batch, self.latent, device=self.device)


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
    parser.add_argument("--device", default="cpu")
    chosen, rest = parser.parse_known_args()
    if chosen.memory:
        parser.add_argument("--csv", type=Path)
        memory(parser.parse_args().csv)
    else:
        runner.main("dagan", cases(chosen.device), rest)
