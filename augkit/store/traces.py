"""Looking for bytes that must not be anywhere any more, in files of any kind, at any offset.

A piece is at least eight bytes long. Each has an anchor, eight of its bytes, and all anchors are
looked for at once: every word of a file goes through a table of hashes, and what passes is compared
in full. So one pass does, however many pieces there are, also in what HDF5 counts as free space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

_WORD = 8
_BLOCK = 2**24
_BITS = 22
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

PIECE = 24
"""Bytes of an image that are looked for together; `_DISTINCT` of them differ."""

_DISTINCT = 8
_PLACES = 64


class Search:
    """Finds pieces of bytes, each at least eight long."""

    def __init__(
        self, pieces: Iterable[bytes], excused: Mapping[bytes, Sequence[bytes]] | None = None
    ):
        """excused: for a piece, the longer texts within which it may be found."""
        self.pieces = tuple(dict.fromkeys(pieces))
        self.excused = excused or {}
        around = [len(text) for texts in self.excused.values() for text in texts]
        self._margin = max([_WORD, *map(len, self.pieces), *around])
        self._at: dict[int, list[tuple[int, bytes]]] = {}
        self._table = np.zeros(2**_BITS, bool)
        for piece in self.pieces:
            offset = _anchor(piece)
            word = int.from_bytes(piece[offset : offset + _WORD], "little")
            self._at.setdefault(word, []).append((offset, piece))
        self._anchors = np.array(sorted(self._at), np.uint64)
        self._table[_hashed(self._anchors)] = True

    def in_file(self, path: Path) -> set[bytes]:
        """Return the pieces that a file holds, block by block."""
        found: set[bytes] = set()
        with path.open("rb") as file:
            content, begin, more = file.read(_BLOCK), 0, True
            while more:
                block = file.read(_BLOCK)
                more = bool(block)
                end = len(content) - (self._margin if more else 0)
                found |= self.in_bytes(content, begin, end)
                # What lies near the end of a block is judged with what comes before and after it.
                content = content[-2 * self._margin :] + block if more else b""
                begin = self._margin
        return found

    def in_bytes(self, content: bytes, begin: int = 0, end: int | None = None) -> set[bytes]:
        """Return the pieces that begin in a range of some bytes; by default in all of them."""
        end = len(content) if end is None else end
        return {
            piece
            for at, piece in self._hits(content)
            if begin <= at < end and not self._is_excused(content, at, piece)
        }

    def _hits(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield where each piece begins."""
        for shift in range(min(_WORD, len(content) - _WORD + 1) if len(self._anchors) else 0):
            words = np.frombuffer(content, "<u8", (len(content) - shift) // _WORD, shift)
            likely = np.flatnonzero(self._table[_hashed(words)])
            slot = np.searchsorted(self._anchors, words[likely]).clip(max=len(self._anchors) - 1)
            for index in likely[self._anchors[slot] == words[likely]].tolist():
                for offset, piece in self._at[int(words[index])]:
                    start = shift + index * _WORD - offset
                    if start >= 0 and content[start : start + len(piece)] == piece:
                        yield start, piece

    def _is_excused(self, content: bytes, at: int, piece: bytes) -> bool:
        return any(
            at >= inside and content.startswith(text, at - inside)
            for text in self.excused.get(piece, ())
            for inside in _places_in(text, piece)
        )


def _places_in(text: bytes, piece: bytes) -> Iterator[int]:
    at = text.find(piece)
    while at >= 0:
        yield at
        at = text.find(piece, at + 1)


def _hashed(words: np.ndarray) -> np.ndarray:
    return (words.astype(np.uint64) * _FACTOR) >> np.uint64(64 - _BITS)


def _anchor(piece: bytes) -> int:
    """Return where the eight bytes begin that differ most; of equals the last."""
    offsets = range(len(piece) - _WORD + 1)
    return max(offsets, key=lambda at: (len(set(piece[at : at + _WORD])), at))


def of_images(images: np.ndarray, each: int) -> list[list[bytes]]:
    """Return for each image up to `each` pieces, spread over it, that are not flat.

    images: uint8 (n, H, W, C). None for an image without any, such as a black one.
    """
    flat = images.reshape(len(images), -1)
    last = flat.shape[1] - PIECE
    if last < 0:
        return [[] for _ in images]
    places = np.unique(np.linspace(0, last, _PLACES).astype(np.int64))
    windows = flat[:, places[:, None] + np.arange(PIECE)]  # (n, places, PIECE)
    differing = 1 + (np.diff(np.sort(windows, axis=-1), axis=-1) > 0).sum(-1)  # (n, places)
    parts = np.array_split(np.arange(len(places)), each)
    found = []
    for image, counts in zip(windows, differing, strict=True):
        best = [part[counts[part].argmax()] for part in parts if len(part)]
        found.append([image[i].tobytes() for i in best if counts[i] >= _DISTINCT])
    return found


def of_text(text: str) -> set[bytes]:
    """Return the forms in which a text may lie in a file; none if it is too short to be told."""
    forms = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    encoded = {form.encode("utf-8", "surrogatepass") for form in forms}
    return {form for form in encoded if len(form) >= _WORD}
