"""The verb `demo`: the main job from start to end, offline, on images that it makes itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from augkit.augmentation import AugmentResult, augment
from augkit.errors import InputError
from augkit.evaluation import evaluate
from augkit.ingestion.ingest import IngestReport, ingest
from augkit.interfaces import Progress, silent
from augkit.outcome import Evaluation
from augkit.reports.previewing import Preview, preview
from augkit.reports.reporting import Report, report
from augkit.testing import write_phantoms

log = logging.getLogger("augkit")

PLUGINS = ("flip", "brightness", "scale", "zoom")

DAGAN = {"preset": "quick", "steps": 100}
"""Options of the generative network: a minute of training, which is enough to see something."""


@dataclass(frozen=True)
class Demo:
    """What each step of the demo gave."""

    folder: Path
    ingested: IngestReport
    runs: tuple[AugmentResult, ...]
    evaluation: Evaluation
    sheet: Preview
    generated: Preview
    """Real images above generated ones."""
    report: Report

    def __str__(self) -> str:
        return "\n\n".join(
            [
                str(self.ingested),
                "\n".join(map(str, self.runs)),
                str(self.evaluation),
                f"pictures: {self.sheet.path}, all new images below real ones; "
                f"{self.generated.path}, those that dagan generated",
                f"report: {self.report}",
            ]
        )


def demo(
    folder: str | Path = "demo",
    *,
    n_per_class: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> Demo:
    """Make phantoms, ingest, augment in five ways, evaluate, draw and report; return all of it.

    Four traditional augmenters and a DAGAN, which is trained for a minute or so.

    Raises InputError if `folder` holds anything that the demo did not put there.
    """
    folder = Path(folder)
    images, store = folder / "images", folder / "augkit.store"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder, augkit demo FOLDER")
    if folder.exists() and not images.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: name another folder, augkit demo FOLDER")
    if not store.exists():
        log.info("making %d synthetic ultrasound images in %s", 3 * n_per_class, images)
        try:
            write_phantoms(images, n_per_class, seed=seed)
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    ingested = ingest(images, store, dataset="phantoms", progress=progress)
    runs = [augment(store, plugin, seed=seed, progress=progress) for plugin in PLUGINS]
    runs.append(augment(store, "dagan", DAGAN, n=n_per_class, seed=seed, progress=progress))
    evaluation = evaluate(store, "linear", progress=progress)
    sheet = preview(store, output=folder / "preview.png")
    generated = preview(store, runs=[runs[-1].run], output=folder / "dagan.png")
    written = report(store, output=folder / "report")
    return Demo(folder, ingested, tuple(runs), evaluation, sheet, generated, written)
