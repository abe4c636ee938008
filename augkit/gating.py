"""The memorisation gate: generated images beside the training images that they resemble most.

Every block of a generated run passes it. What is found is stored with the rows; what looks like a
copy is only counted, or, where the user wants that, drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from augkit.drafts import Block, Draft
from augkit.engines.local import usable_cores
from augkit.interfaces import Augmenter
from augkit.making import Making, make_blocks
from augkit.memorisation import Gallery, Nearest
from augkit.plans import Plan, call
from augkit.store.samples import StoredSamples

_MOST_TRIES = 10
"""Draws for an image that looks like a copy, before it is kept and counted as one."""

_REDRAW = 0x636F7079
"""Sets the random numbers of second draws apart from those of the plan."""


@dataclass
class Gate:
    """Compares the images of one run, block by block, with those that the model was fitted on."""

    augmenter: Augmenter
    source: StoredSamples
    plan: Plan
    gallery: Gallery
    seed: int
    redraw: bool
    index: list[np.ndarray] = field(default_factory=list)
    score: list[np.ndarray] = field(default_factory=list)
    redrawn: int = 0

    def blocks(self, how: Making, draft: Draft) -> Iterator[np.ndarray]:
        """Yield the images in order, uint8 (n, H, W, C); while one block is compared, the next
        is made, unless there is one worker.

        A row that is drawn again has its new parameters in the plan. draft: has the blocks that
        were made before, and keeps each new one.
        """
        start, window = 0, 1 if how.workers == 1 else None  # one: a kill costs one block
        for block in draft.read(self._fits):
            yield self._taken(block, start)
            start += len(block["images"])
        plan = Plan(self.plan.parents[start:], self.plan.labels[start:], self.plan.params[start:])
        with ThreadPoolExecutor(how.workers or usable_cores()) as pool:
            made = make_blocks(self.augmenter, self.source, plan, how, window=window)
            for images, _, _ in made:
                found, before = self._nearest(images, pool), self.redrawn
                if self.redraw:
                    images, found = self._without_copies(images.copy(), found, start)
                rows = slice(start, start + len(images))
                block = {"images": images, "index": found.index, "score": found.score}
                block |= {"params": self.plan.params[rows]}
                block |= {"redrawn": np.array(self.redrawn - before)}
                draft.keep(block)
                self.index.append(found.index)
                self.score.append(found.score)
                yield images
                start = rows.stop

    def _fits(self, block: Block) -> bool:
        """Return True if a block has what `blocks` keeps, of the rows that come next."""
        if set(block) != {"images", "index", "score", "params", "redrawn"}:
            return False
        start, n = sum(map(len, self.index)), len(block["index"]) if block["index"].ndim else 0
        params = self.plan.params[start : start + n]
        forms = {
            "images": (np.uint8, (n, *self.source.shape)),
            "index": (np.int64, (n,)),
            "score": (np.float32, (n,)),
            "params": (params.dtype, params.shape),
            "redrawn": (np.int64, ()),
        }
        same = all((block[k].dtype, block[k].shape) == form for k, form in forms.items())
        if not same or not n or len(params) != n:
            return False
        there = block["index"].min() >= 0 and block["index"].max() < len(self.source)
        return bool(there and np.isfinite(block["score"]).all() and block["redrawn"] >= 0)

    def _taken(self, block: Block, start: int) -> np.ndarray:
        """Return the images of a block that was made before; take over what was found then."""
        self.index.append(block["index"])
        self.score.append(block["score"])
        self.plan.params[start : start + len(block["images"])] = block["params"]
        self.redrawn += int(block["redrawn"])
        return block["images"]

    def nearest(self) -> Nearest:
        """Return the nearest training image of every row so far."""
        return Nearest(np.concatenate(self.index), np.concatenate(self.score))

    def _nearest(self, images: np.ndarray, pool: ThreadPoolExecutor) -> Nearest:
        pieces = [images[i : i + 8] for i in range(0, len(images), 8)]
        found = list(pool.map(self.gallery.nearest, pieces))
        return Nearest(
            np.concatenate([f.index for f in found]), np.concatenate([f.score for f in found])
        )

    def _without_copies(
        self, images: np.ndarray, found: Nearest, start: int
    ) -> tuple[np.ndarray, Nearest]:
        """Draw each copy again until it is none; each row from a stream of its own."""
        index, score = found.index.copy(), found.score.copy()
        for i in np.flatnonzero(self.gallery.copies(found)).tolist():
            row = slice(start + i, start + i + 1)
            rng = np.random.Generator(np.random.Philox(key=[self.seed, _REDRAW + start + i]))
            for _ in range(_MOST_TRIES):
                labels = self.plan.labels[row]
                self.plan.params[row] = call(self.augmenter, "plan", labels, self.source.shape, rng)
                again = call(self.augmenter, "apply", None, labels, self.plan.params[row])
                nearest = self.gallery.nearest(again)
                images[i], index[i], score[i] = again[0], nearest.index[0], nearest.score[0]
                if not self.gallery.copies(nearest)[0]:
                    break
            self.redrawn += 1
        return images, Nearest(index, score)
