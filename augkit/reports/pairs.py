"""The page of borderline pairs: two images side by side, for a person to decide on.

Everything is in the page, nothing is fetched, nothing is run, and all names are escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from augkit.tables import one_line


@dataclass(frozen=True)
class Candidate:
    """A pair on the page."""

    keys: tuple[str, str]
    labels: tuple[str, ...]
    images: tuple[np.ndarray, np.ndarray]
    """uint8 (H, W, C), C 1 or 3."""
    score: float
    together: bool
    """They are in one group now."""
    decision: str
    """"same", "different", or nothing yet."""


def render(candidates: Sequence[Candidate], threshold: float, table: str) -> str:
    """Return the page, as HTML. table: the name of the file to decide in."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: one_line(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pairs = [_view(line, each) for line, each in enumerate(candidates, 2)]
    page = environment.get_template("pairs.html.j2")
    return page.render(pairs=pairs, threshold=f"{threshold:.3f}", table=table)


def _view(line: int, candidate: Candidate) -> dict[str, Any]:
    """Return what the template asks for; line: of the pair in the table."""
    sides = zip(candidate.keys, candidate.labels, candidate.images, strict=True)
    return {
        "line": line,
        "score": f"{candidate.score:.3f}",
        "together": candidate.together,
        "decision": candidate.decision,
        "sides": [{"key": k, "label": c, "source": _source(image)} for k, c, image in sides],
    }


def _source(image: np.ndarray) -> str:
    """Return an image as a data URI, PNG."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
