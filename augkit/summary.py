"""What a store holds, in numbers: the verb `info`, and what `ingest` reports."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkit.errors import InputError
from augkit.features import cache_size
from augkit.given import GivenSplit
from augkit.partitions import HOLDOUT, HOMES, PARTS, k_fold
from augkit.store import DatasetStore, Snapshot
from augkit.store.locate import open_store
from augkit.tables import counted, one_line, table, typed


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds. `values` has the keys of --json; see docs/json.md."""

    values: dict[str, Any]

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(self.values)

    def __str__(self) -> str:
        parts = (self._head(), self._real(), self._runs(), self._models(), self._cache())
        return "\n\n".join(text for text in parts if text)

    def _head(self) -> str:
        image = self.values["image"]
        colour = "grey" if image["channels"] == 1 else "colour"
        size = f"{image['width']}x{image['height']} {colour}"
        place = self.values["store"]
        where = one_line(Path(place).resolve().name if place == "." else place)
        return f"{where}: images of {size}, {counted(self.values['commits'], 'commit')}"

    def _real(self) -> str:
        real = self.values["real"]
        if not real["rows"]:
            return "no images yet: augkit ingest FOLDER"
        rows = [
            [name, real["by_class"][name], *(real["by_part_and_class"][p][name] for p in PARTS)]
            for name in self.values["classes"]
        ]
        rows.append(["all", real["rows"], *(real["by_part"][p] for p in PARTS)])
        head = ["real images", "all", *PARTS]
        if real["conflicts"]:
            head.append("left out")
            rows = [[*row, row[1] - sum(row[2:])] for row in rows]
        lines = [table(head, rows), ""]
        files = f" ({counted(real['mask_files'], 'file')})" if real["mask_files"] else ""
        lines.append(
            f"{counted(real['groups'], 'group')} of images that stay together; "
            f"{counted(real['masks'], 'image')} with a mask{files}; {real['colour']} came in colour"
        )
        if self.values["image"]["channels"] == 1 and real["colour"] > real["rows"] / 2:
            lines.append(
                "most images came in colour and are kept in grey: ingest --colour keeps it"
            )
        if real["conflicts"]:
            lines.append(
                f"{counted(len(real['conflicts']), 'image')} left out, with relatives of another "
                "class (info --rows FILE.csv names them; ingest --conflicts keep takes them in)"
            )
            if len(real["conflicts"]) > MANY * real["rows"]:
                lines.append(
                    "so many are seldom wrong labels: ingest SOURCE --review pairs.html shows what "
                    "may not be related at all, and --decisions takes your word for it"
                )
        lines += _given_in_words(real.get("given"))
        if real["decisions"]:
            words = Counter(each["decision"] for each in real["decisions"])
            said = ", ".join(f"{n} {word}" for word, n in sorted(words.items()))
            lines.append(f"{counted(len(real['decisions']), 'pair')} decided by hand: {said}")
        if len(self.values["classes"]) > 1:
            lines.append(_detectable(real["smallest_detectable"]))
        return "\n".join(lines)

    def _runs(self) -> str:
        runs = self.values["runs"]
        if not self.values["real"]["rows"]:
            return ""
        if not runs:
            return "no augmentation yet: augkit augment --plugin flip"
        rows = [
            [
                *(r[key] for key in ("name", "plugin", "rows", "seed")),
                "those of its model" if r["model"] else _shown(r["options"]),
                _note(r),
            ]
            for r in runs
        ]
        return table(["run", "plugin", "images", "seed", "options", "note"], rows)

    def _models(self) -> str:
        if not self.values["models"]:
            return ""
        rows = [
            [
                model["name"][:12],
                model["plugin"],
                model["fitted_on"],
                "complete" if model["complete"] else "partial",
                model["note"],
            ]
            for model in self.values["models"]
        ]
        return table(["model", "plugin", "fitted on", "state", "note"], rows)

    def _cache(self) -> str:
        held = self.values["cache"]
        if not held["files"]:
            return ""
        size, files = _size(held["bytes"]), counted(held["files"], "file")
        return f"feature cache: {size} in {files}, safe to delete: {one_line(held['path'])}"


def info(
    store: DatasetStore | str | Path | None = None, *, rows: str | Path | None = None
) -> StoreInfo:
    """Return what a store holds; with `rows`, also write a CSV file with a line a real image."""
    snapshot = open_store(store).snapshot()
    if rows is not None:
        _write_rows(snapshot, Path(rows))
    return summarise(snapshot)


def summarise(snapshot: Snapshot) -> StoreInfo:
    """Return what a snapshot holds, and how large the feature cache of its store is now."""
    height, width, channels = snapshot.shape
    return StoreInfo(
        {
            "store": snapshot.path,
            "commits": snapshot.number,
            "image": {"height": height, "width": width, "channels": channels},
            "classes": list(snapshot.classes),
            "real": _real(snapshot),
            "runs": _runs(snapshot),
            "models": _models(snapshot),
            "cache": _cache(DatasetStore.open(snapshot.path)),
        }
    )


def _real(snapshot: Snapshot) -> dict[str, Any]:
    real, parts = snapshot.real, snapshot.parts(HOLDOUT)
    return {
        "rows": len(real.keys),
        "by_class": snapshot.count_by_class(parts >= -1),
        "by_part": snapshot.count_by_part(HOLDOUT),
        "by_part_and_class": {p: snapshot.count_by_class(parts == i) for i, p in enumerate(PARTS)},
        "by_dataset": dict(Counter(real.datasets.tolist())),
        "groups": len(set(real.groups.tolist())),
        "masks": int(real.masked.sum()),
        "mask_files": sum(e["mask_files"] for e in snapshot.entries if e["kind"] == "ingest"),
        "colour": int(real.colour.sum()),
        "conflicts": real.keys[real.conflict].tolist(),
        "decisions": [
            {"first": str(real.keys[a]), "second": str(real.keys[b]), "decision": word}
            for a, b, word in snapshot.decisions
        ],
        "smallest_detectable": smallest_detectable(snapshot),
        **_given(snapshot),
    }


def _given(snapshot: Snapshot) -> dict[str, Any]:
    """Return the split that the images came with, if they came with one."""
    found = GivenSplit.of(snapshot)
    if not found:
        return {}
    return {"given": found.as_values() | {"said": found.sentences()}}


def _given_in_words(given: dict[str, Any] | None) -> list[str]:
    if given is None:
        return []
    counts = ", ".join(f"{n} {part}" for part, n in given["rows"].items() if n)
    return [f"came with a split of its own, --split given: {counts}", *given["said"]]


def _cache(store: DatasetStore) -> dict[str, Any]:
    folder = store.side_folder("cache")
    size, files = cache_size(folder)
    return {"path": str(folder), "bytes": size, "files": files}


def _size(n_bytes: int) -> str:
    """Return bytes as people say them: 3 kB, 77 MB, 1.2 GB."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{max(1, n_bytes // 1000)} kB"


def _models(snapshot: Snapshot) -> list[dict[str, Any]]:
    return [
        {
            "name": model.name,
            "plugin": model.plugin,
            "complete": model.complete,
            "note": model.note,
            "fitted_on": len(model.fitted_on),
            "options": model.recipe["plugin"].get("options", {}),
            "details": model.details,
        }
        for model in snapshot.models.values()
    ]


def _runs(snapshot: Snapshot) -> list[dict[str, Any]]:
    stale = snapshot.stale_runs(*HOMES)
    return [
        {
            "name": run.name,
            "plugin": run.plugin,
            "family": run.family,
            "rows": run.rows,
            "by_class": dict(zip(snapshot.classes, run.labels, strict=False)),
            "seed": run.recipe["seed"],
            "options": {p["name"]: p["options"] for p in run.recipe["plugins"]},
            "model": run.model,
            "partition": run.partition,
            "stale": run.name in stale,
            "note": snapshot.model(run.model).note if run.model else "",
            "copies": run.memorisation["copies"] if run.memorisation else None,
        }
        for run in snapshot.runs.values()
    ]


MANY = 0.1
"""A share of images left out over which what relates them is to be looked at."""
DISAGREEMENT = (0.04, 0.15)
"""The shares of images on which two arms are assumed to disagree: arms much alike, and less so."""


def smallest_detectable(snapshot: Snapshot) -> dict[str, tuple[float, float]]:
    """Return the smallest true difference in balanced accuracy that an evaluation will mostly see.

    For each protocol two values, for arms that disagree on a share d of 4 % and of 15 % of the
    images, at 5 % error and 80 % power: (1.96 + 0.84) * sqrt(sum over classes of d / n) /
    n_classes, n the test images of a class. 1 where a class has none.
    """
    labels, found = snapshot.real.labels, {}
    for name, partitions in (("70/15/15", (HOLDOUT,)), ("5 folds", k_fold(5))):
        counts = np.zeros(len(snapshot.classes))
        for partition in partitions:
            tested = snapshot.parts(partition) == 2
            counts += np.bincount(labels[tested], minlength=len(counts))
        low, high = (_detectable_difference(counts.tolist(), share) for share in DISAGREEMENT)
        found[name] = (low, high)
    return found


def _detectable_difference(counts: list[float], share: float) -> float:
    if not counts or min(counts) == 0:
        return 1.0
    return min(1.0, 2.8 * math.sqrt(sum(share / n for n in counts)) / len(counts))


def _detectable(smallest: dict[str, tuple[float, float]]) -> str:
    split, folds = (_points(*smallest[name]) for name in ("70/15/15", "5 folds"))
    return (
        "smallest difference in balanced accuracy that an evaluation can be expected to show: "
        f"{folds} with 5 folds, {split} with 70/15/15 (the less two arms agree, the more it takes)"
    )


def _points(low: float, high: float) -> str:
    return "none" if high >= 1 else f"{100 * low:.1f} to {100 * high:.1f} points"


def _write_rows(snapshot: Snapshot, path: Path) -> None:
    real, parts = snapshot.real, snapshot.parts(HOLDOUT)
    names = ["left out", *PARTS]
    with_given = bool((real.given >= 0).any())
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            head = ["key", "dataset", "class", "group", "fold", "part"]
            writer.writerow([*head, "given"] if with_given else head)
            for i, (key, dataset) in enumerate(
                zip(real.keys.tolist(), real.datasets.tolist(), strict=True)
            ):
                label = snapshot.classes[real.labels[i]]
                row = [key, dataset, label, real.groups[i], real.folds[i], names[parts[i] + 1]]
                given = PARTS[real.given[i]] if real.given[i] >= 0 else ""
                writer.writerow([*row, given] if with_given else row)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _shown(plugin_options: dict[str, dict[str, Any]]) -> str:
    """Return options as they are typed, of all plugins of a chain."""
    words = []
    for plugin, options in plugin_options.items():
        owner = f"{plugin}." if len(plugin_options) > 1 else ""
        words += [f"{owner}{key}={typed(value)}" for key, value in options.items()]
    return " ".join(words)


def _note(run: dict[str, Any]) -> str:
    notes = ["stale: groups were joined since; augment again"] if run["stale"] else []
    if run["model"]:
        notes += [f"model {run['model'][:12]}"]
    if run["note"]:
        notes += [run["note"]]
    if run["copies"]:
        notes += [f"{run['copies']} look like copies"]
    return "; ".join(notes)
