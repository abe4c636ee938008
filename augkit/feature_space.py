"""Where images are compared: features of a network that saw ImageNet, or features made by hand.

They are computed for the rows that are looked at and no others, and kept in the cache of the
store, where evaluations find them again. What is in memory grows with these rows alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from augkit.descriptors import describe
from augkit.devices import choose_device
from augkit.distances import standardised
from augkit.errors import OptionError
from augkit.features import FeatureCache
from augkit.interfaces import Context, Extractor, Progress, Samples, silent
from augkit.plans import call
from augkit.registry import registry
from augkit.store import DatasetStore, Snapshot
from augkit.store.samples import StoredSamples

log = logging.getLogger("augkit")

NETWORK, BY_HAND = "efficientnet-lite0", "descriptors"
FEATURES = (NETWORK, BY_HAND)

_BY_HAND_KEY = "linear-features-1"
"""The classifier `linear` keeps the same features under this key."""
_BLOCK = 256
_TIMED, _LONG = 64, 60.0


class _Embeds(Protocol):
    """What a network has besides what every classifier has."""

    def features(self, samples: Samples, context: Context) -> np.ndarray: ...


@dataclass
class FeatureSpace:
    """Turns samples into features: float32 (N, d), each image by itself."""

    name: str
    weights: str
    """Which weights the network has; empty for features made by hand."""
    of: Callable[[StoredSamples], np.ndarray]
    """Samples -> float32 (N, d)."""
    centre: np.ndarray | None = None
    """float32 (n, d), real images that features made by hand are standardised by."""

    @classmethod
    def open(
        cls,
        store: DatasetStore,
        snapshot: Snapshot,
        name: str = NETWORK,
        *,
        device: str | None = None,
        total: int = 0,
        progress: Progress = silent,
    ) -> FeatureSpace:
        """Return the features of this name. total: images to come, for the progress.

        Raises OptionError for a name that is none of FEATURES, or a device that is not there;
        InputError or PluginNotFound where the network cannot be had.
        """
        if name not in FEATURES:
            raise OptionError(f"features are {name!r}; there are: {', '.join(FEATURES)}")
        cached = _Bounded(store, snapshot, total, progress)
        if name == BY_HAND:
            return cls(name, "", lambda samples: cached(_BY_HAND_KEY, describe, samples))
        plugin = registry().find(name, "classifier")
        where = choose_device(device)
        given = plugin.build({"weights": "imagenet", "train": "head"})
        network = call(given, "settle", snapshot.shape, where)
        cached.prefix = f"{plugin.distribution} {plugin.version} "
        context = Context(seed=0, classes=snapshot.classes, device=where, cached=cached)
        weights = network.provenance().get("weights", "")
        return cls(name, weights, lambda s: cast(_Embeds, network).features(s, context))

    def __call__(self, samples: StoredSamples) -> np.ndarray:
        """Return the features of some samples: float (N, d), at least one row."""
        found = self.of(samples)
        return found if self.centre is None else standardised(found, self.centre)

    def centred(self, real: StoredSamples) -> FeatureSpace:
        """Return the same, by hand-made features standardised by these real images.

        Their scales differ by tens, and the largest would decide alone. Those of a network stay,
        as in every publication.
        """
        if self.name != BY_HAND or not len(real):
            return self
        return FeatureSpace(self.name, self.weights, self.of, self.of(real))


@dataclass
class _Bounded:
    """A cache of features that forgets; it tells how far it has come, and how long it may take."""

    store: DatasetStore
    snapshot: Snapshot
    total: int
    progress: Progress
    prefix: str = ""
    done: int = 0
    computed: int = 0
    seconds: float = 0.0

    def __call__(self, key: str, function: Extractor, samples: Samples) -> np.ndarray:
        """Return float32 (N, d), a block after another, each with an empty memory."""
        assert isinstance(samples, StoredSamples)
        guard = self.store.standing(self.snapshot).held
        blocks = []
        for start in range(0, len(samples), _BLOCK):
            cache = FeatureCache(self.store.side_folder("cache"), guard=guard)
            some = samples.take(np.arange(start, min(start + _BLOCK, len(samples))))
            blocks.append(cache(self.prefix + key, self._timed(function), some))
            self.done += len(some)
            self.progress("features", min(self.done, self.total), self.total)
        return np.concatenate(blocks)

    def _timed(self, function: Extractor) -> Extractor:
        def timed(images: np.ndarray) -> np.ndarray:
            began, before = time.monotonic(), self.computed
            found = function(images)
            self.computed += len(images)
            if before >= _TIMED:  # the first block also loads the network
                self._estimate((time.monotonic() - began) / len(images), before)
            return found

        return timed

    def _estimate(self, each: float, before: int) -> None:
        left = (self.total - self.done) * each
        if before < 2 * _TIMED and left > _LONG:
            log.info("features of %d images: about %.0f min at most", self.total, left / 60 + 0.5)
