"""CUDA graphs: a step is recorded once and replayed, so that a GPU need not wait for Python.

At 96x80 a critic step is some hundred short kernels, and starting them takes longer than running
them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM = 3
"""Calls before a step is recorded: libraries choose algorithms, optimisers make their state."""

Step = Callable[..., tuple[Tensor, ...]]
"""From tensors on the device to tensors; changes weights in place."""


class Steps:
    """Runs steps on a device: on a CUDA device recorded and replayed, elsewhere as they are.

    recorded: False for steps that do not always do the same.
    """

    def __init__(self, device: torch.device, *, recorded: bool = True):
        self.device = device
        self.recorded = recorded and device.type == "cuda"
        self._known: dict[str, _Recorded] = {}

    def run(self, name: str, step: Step, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what a step makes of inputs that lie on the CPU.

        The outputs hold until the next call. Of one name every step must be the same, and its
        inputs of the same shapes.
        """
        if not self.recorded:
            return step(*(uploaded(x, self.device) for x in inputs))
        if name not in self._known:
            self._known[name] = _Recorded(self.device)
        with torch.cuda.device(self.device):
            return self._known[name](step, inputs)


class _Recorded:
    """One step: called as it is a few times, then recorded, then replayed."""

    def __init__(self, device: torch.device):
        self.device = device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.held: list[Tensor] = []
        self.outputs: tuple[Tensor, ...] = ()

    def __call__(self, step: Step, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls <= _WARM:
            return self._as_it_is(step, inputs)
        if self.graph is None:
            self.held = [x.to(self.device) for x in inputs]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = step(*self.held)
        for held, given in zip(self.held, inputs, strict=True):
            held.copy_(given.pin_memory(), non_blocking=True)
        self.graph.replay()
        return self.outputs

    def _as_it_is(self, step: Step, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Call a step on a stream of its own, as what is recorded later must have been."""
        now, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            found = step(*(x.to(self.device) for x in inputs))
        now.wait_stream(beside)
        return found


def uploaded(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on a device, without waiting for what runs there."""
    if device.type != "cuda":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
