"""The verb `fit`: an augmenter learns from the training part, and the store keeps the model.

A model is found by its recipe: the plugin with its version and every option, the exact images and
the partition. Time is no part of it: a model that was stopped early is partial, can be sampled,
and is continued from its checkpoint by the same line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from augkit import options as option_tools
from augkit.devices import choose_device
from augkit.errors import InputError, LineageError, OptionError, PluginFailed, StoreError
from augkit.interfaces import Augmenter, Context, Fitted, Progress, silent
from augkit.interruption import stop_requests
from augkit.making import check_pixels
from augkit.partitions import HOLDOUT, Partition, home
from augkit.plans import call, settled
from augkit.provenance import code_of
from augkit.recipes import Amount, rebuild, recipes
from augkit.store import DatasetStore, Model, Snapshot, durable
from augkit.store.format import Entry, canonical, digest_of
from augkit.store.locate import open_store
from augkit.store.models import FILE_NAME, MODEL_NAME, PROVENANCE, flush_model
from augkit.store.samples import StoredSamples

log = logging.getLogger("augkit")

_LOOKED_AT = 64
"""Images of each class that are sampled to see whether a model learned its classes."""


@dataclass(frozen=True)
class FitResult:
    """What `fit` did."""

    model: str
    plugin: str
    complete: bool
    note: str
    made: bool
    """False if the model was there already."""
    details: dict[str, Any]
    training: str | None = None
    """The folder with the log of the training and sheets of samples; None: there is none."""

    def to_json(self) -> str:
        """Return the fields as JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        state = "complete" if self.complete else "partial: the same line continues it"
        head = f"model {self.model[:12]} of {self.plugin}: {state}"
        if not self.made:
            return f"model {self.model[:12]} of {self.plugin} is there already: nothing to do"
        lines = [head]
        if self.note:
            lines.append(f"  note: {self.note}")
        if self.training:
            lines.append(f"  log and samples of the training: {self.training}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Training:
    """How a model is come by; none of it is part of what the model is."""

    budget: str | float | None = None
    """Seconds, or text such as 30m; None: what the plugin usually takes."""
    device: str | None = None
    weights: str | Path | None = None
    """A folder with a model from elsewhere."""
    share: float = 1.0
    """Of the budget, that training may take."""


def fit(
    store: DatasetStore | str | Path | None,
    plugin: str,
    options: Mapping[str, Any] | None = None,
    *,
    split: str | None = None,
    budget: str | float | None = None,
    device: str | None = None,
    weights: str | Path | None = None,
    progress: Progress = silent,
) -> FitResult:
    """Train an augmenter on the training part (70/15/15), or go on with a partial model.

    split: "given" takes the training part of the split that the data came with.
    budget: seconds, or text such as "30m"; it then stops with what it has. device: cuda, mps or
    cpu; by default the fastest. weights: a folder with a model from elsewhere, which is taken
    instead if it was fitted on exactly these images. Raises an AugkitError; what was committed
    stays, and checkpoints let the same call go on.
    """
    opened = open_store(store)
    (recipe,) = recipes([plugin], options or {}, Amount(), 0)
    augmenter = rebuild(recipe)
    if not augmenter.learns:
        raise OptionError(f"{plugin} learns nothing: augkit augment --plugin {plugin}")
    training = Training(budget, device, weights)
    work = Fit(opened, recipe["plugins"][0], augmenter, training, home(split))
    model, made = work.obtain(go_on=True, progress=progress)
    folder = work.folder if weights is None and work.folder.exists() else None
    return FitResult(
        model.name,
        model.plugin,
        model.complete,
        model.note,
        made,
        model.details,
        str(folder) if folder else None,
    )


@dataclass
class Fit:
    """One fit on its way: which model is meant, and how it is come by."""

    store: DatasetStore
    member: dict[str, Any]
    """Name, distribution, version and options of the plugin, as a recipe has them."""
    augmenter: Augmenter
    training: Training
    partition: Partition = HOLDOUT
    snapshot: Snapshot = field(init=False)
    source: StoredSamples = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = _deadline(self.training.budget)
        self.device = choose_device(self.training.device)
        self.snapshot = self.store.snapshot()
        self.snapshot.require_parts(self.partition)
        self.source = self.snapshot.training(self.partition)
        if not len(self.source):
            raise StoreError(f"{self.store.path} has no training images: augkit ingest FOLDER")
        self.origin = self.snapshot.training_digest(self.partition)
        self.settled = settled(self.augmenter, self.source.shape, self.device)
        self.recipe: dict[str, Any] = {
            "plugin": self.member | {"options": option_tools.values(self.settled)},
            "image": list(self.source.shape),
            "classes": list(self.snapshot.classes),
            "data": self._data(),
            "partition": self.partition.name,
        }
        self.folder = self.store.side_folder("training") / digest_of(self.recipe)[:16]

    def _data(self) -> str:
        """Return what identifies the images: their keys, labels and pixels, in order."""
        labels = [self.snapshot.classes[i] for i in self.source.labels]
        return digest_of([self._keys(), labels, self.source.checksums().tolist()])

    def find(self) -> Model | None:
        """Return the newest model of this recipe, fitted here or brought from elsewhere."""
        identity = digest_of(self.recipe)
        fitting = [
            model
            for model in self.store.snapshot().models.values()
            if model.trained_from == self.origin
            and identity in (digest_of(model.recipe), model.details.get("stands_for"))
        ]
        return fitting[-1] if fitting else None

    def obtain(self, *, go_on: bool, progress: Progress) -> tuple[Model, bool]:
        """Return the model, and whether it is new: brought, found, or trained.

        go_on: train a partial model further.
        """
        if self.training.weights is not None:
            return self._bring(Path(self.training.weights))
        found = self.find()
        if found and (found.complete or not go_on):
            return found, False
        with self._alone():
            found = self.find()
            if found and (found.complete or not go_on):
                return found, False  # another command has trained it meanwhile
            return self._train(found, progress), True

    def _train(self, partial: Model | None, progress: Progress) -> Model:
        if partial and not any(self.folder.glob("*.safetensors")):
            raise StoreError(
                f"model {partial.name[:12]} is partial and its checkpoints are not here: it can be "
                "sampled as it is, but not trained further. Train another one: -o fit_seed=1"
            )
        stages = _Stages(progress)
        with stop_requests() as interrupted:
            context = Context(
                seed=self._seed(),
                classes=self.snapshot.classes,
                device=self.device,
                folder=self.folder,
                deadline=self._end_of_training(),
                interrupted=interrupted,
                progress=stages,
            )
            said = call(self.settled, "fit", self.source, context)
            fitted = _checked(said or Fitted(), self.settled.name)
        stages.end()
        model = self._commit(self.settled, fitted)
        if fitted.complete:
            for path in self.folder.glob("*.safetensors"):
                path.unlink(missing_ok=True)
        return model

    def _seed(self) -> int:
        """Return the option `fit_seed` of the plugin, 0 if it has none. Raises PluginFailed."""
        seed = getattr(self.settled, "fit_seed", 0)
        if not isinstance(seed, int) or seed < 0:
            raise PluginFailed(
                f"plugin {self.settled.name!r} has the fit_seed {seed!r:.80}; it must be a whole "
                "number from 0 on"
            )
        return int(seed)

    def _end_of_training(self) -> float | None:
        now, share = time.monotonic(), self.training.share
        usual = call(self.augmenter, "usual_budget", self.device)
        if usual is not None and not (isinstance(usual, int | float) and usual > 0):
            raise PluginFailed(
                f"plugin {self.augmenter.name!r}: usual_budget() returned {usual!r:.80}; it must "
                "be seconds, above 0, or None"
            )
        if self.deadline is not None:
            return now + share * max(self.deadline - now, 0)
        return None if usual is None else now + share * usual

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other commands from training the same model at the same time."""
        with durable.writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            held = durable.locked(self.folder, wait=False)
            try:
                held.__enter__()
            except OSError:
                log.info("another command is training this model: waiting for it")
                held = durable.locked(self.folder)
                held.__enter__()
        try:
            yield
        finally:
            held.__exit__(None, None, None)

    def _commit(self, fitted_on: Augmenter, fitted: Fitted) -> Model:
        """Save what was learned and commit it with its lineage."""
        apart = self._look_at(fitted_on)
        with self.store.new_model() as staged, durable.writing(self.store.path):
            call(fitted_on, "save", staged)
            if not staged.is_dir() or (staged / PROVENANCE).exists():
                raise PluginFailed(
                    f"plugin {fitted_on.name!r}: save() removed its folder, or wrote {PROVENANCE} "
                    "into it, which augkit writes itself"
                )
            note = "; ".join(filter(None, (fitted.note, _undertrained(apart, self.snapshot))))
            about = {
                "recipe": self.recipe,
                "trained_from": self.origin,
                "complete": fitted.complete,
                "note": note,
                "fitted_on": self._keys(),
            }
            durable.write_new(staged / PROVENANCE, canonical(about))
            details = {**fitted.details, "class_distances": np.round(apart, 5).tolist()}
            entry = self._entry(self.recipe, fitted.complete, note, details=details)
            return self._committed(staged, entry)

    def _committed(self, staged: Path, entry: Entry) -> Model:
        def describe(snapshot: Snapshot) -> Entry:
            if snapshot.training_digest(self.partition) != self.origin:
                raise StoreError(
                    f"the training images of {snapshot.path} changed meanwhile: run it again; the "
                    f"checkpoints of what was trained on the old ones are in {self.folder}"
                )
            return entry

        identity, after = digest_of(entry["recipe"]), self.store.commit(describe, model=staged)
        return [m for m in after.models.values() if digest_of(m.recipe) == identity][-1]

    def _entry(
        self, recipe: dict[str, Any], complete: bool, note: str, *, details: dict[str, Any]
    ) -> Entry:
        return {
            "kind": "model",
            "recipe": recipe,
            "partition": self.partition.name,
            "trained_from": self.origin,
            "fitted_on": np.flatnonzero(self.snapshot.parts(self.partition) == 0).tolist(),
            "complete": complete,
            "note": note,
            "details": _storable(details),
            "code": code_of([self.member]),
        }

    def _keys(self) -> list[str]:
        return self.snapshot.real.keys[self.snapshot.parts(self.partition) == 0].tolist()

    def _look_at(self, augmenter: Augmenter) -> np.ndarray:
        """Return the distance of each generated class from each real one: float64 (K, K).

        Of outlines: samples of a generator that is not done are blurred or rough all over, which
        would hide whether they show the right thing.
        """
        from augkit.descriptors import outline
        from augkit.distances import class_distances, standardised

        labels = self.source.labels
        wanted = np.repeat(np.unique(labels), _LOOKED_AT)
        rng = np.random.Generator(np.random.Philox(_LOOKED_AT))
        params = call(augmenter, "plan", wanted, self.source.shape, rng)
        made = call(augmenter, "apply", None, wanted, params)
        check_pixels(augmenter, "apply", made, (len(wanted), *self.source.shape))
        real = np.concatenate([outline(images) for images in self.source.blocks()])
        return class_distances(
            standardised(outline(made), real),
            wanted,
            standardised(real, real),
            real_labels=labels,
            n_classes=len(self.snapshot.classes),
        )

    # -- models from elsewhere -----------------------------------------------------------------

    def _bring(self, folder: Path) -> tuple[Model, bool]:
        """Take a model that augkit fitted elsewhere, on exactly these images, into the store."""
        about = _provenance(folder)
        self._check_lineage(folder, about)
        known = self.find()
        with self.store.new_model() as staged, durable.writing(self.store.path):
            _copy_model(folder, staged)
            name = flush_model(staged)["name"]
            if MODEL_NAME.fullmatch(folder.name) and folder.name != name:
                raise InputError(
                    f"the files in {folder} are not those that it is named after: copy it again"
                )
            if known and known.name == name:
                return known, False
            augmenter = rebuild({"plugins": [about["recipe"]["plugin"]]})
            call(augmenter, "load", staged)
            apart = self._look_at(augmenter)
            details = {
                "brought": True,
                "stands_for": digest_of(self.recipe),
                "class_distances": np.round(apart, 5).tolist(),
            }
            marks = (
                about["note"].partition("; undertrained")[0],
                _undertrained(apart, self.snapshot),
            )
            note = "; ".join(filter(None, marks))
            entry = self._entry(about["recipe"], about["complete"], note, details=details)
            return self._committed(staged, entry), True

    def _check_lineage(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Raise unless a model was made by this plugin on the images of this training part."""
        recipe, name = about["recipe"], self.member["name"]
        if recipe["plugin"]["name"] != name:
            raise InputError(
                f"{folder} is a model of {recipe['plugin']['name']!r}, not of {name!r}: give it "
                f"with --plugin {recipe['plugin']['name']}"
            )
        if recipe["classes"] != self.recipe["classes"]:
            raise LineageError(
                f"the model in {folder} numbers the classes {', '.join(recipe['classes'])}; "
                f"{self.store.path} has them as {', '.join(self.recipe['classes'])}: it is not "
                "taken. Train it on a copy of this store (augkit pack)"
            )
        same = all(recipe[key] == self.recipe[key] for key in ("data", "image", "partition"))
        if not same or about["trained_from"] != self.origin:
            raise LineageError(
                f"the model in {folder} was fitted on {len(about['fitted_on'])} images other than "
                f"the {len(self.source)} of the training part of {self.store.path}, perhaps on "
                "test images: it is not taken. Train it on a copy of this store (augkit pack)"
            )


def _provenance(folder: Path) -> dict[str, Any]:
    """Return what a model says of itself. Raises InputError if it does not."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: --weights takes the folder of a model")
    try:
        if not stat.S_ISREG((folder / PROVENANCE).lstat().st_mode):
            raise ValueError("no plain file")
        about = json.loads((folder / PROVENANCE).read_bytes())
        recipe, plugin = about["recipe"], about["recipe"]["plugin"]
        words = [about["trained_from"], about["note"], recipe["data"], recipe["partition"]]
        words += [plugin[key] for key in ("name", "distribution", "version")]
        words += [*recipe["classes"], *about["fitted_on"], *plugin["options"]]
        if not all(isinstance(word, str) and word.isprintable() for word in words):
            raise TypeError("words that are none")
        if not isinstance(about["complete"], bool) or not isinstance(plugin["options"], dict):
            raise TypeError("values of the wrong kind")
        return {k: about[k] for k in ("recipe", "trained_from", "complete", "note", "fitted_on")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{folder} does not say what its model was fitted on ({PROVENANCE}): --weights takes a "
            "folder models/NAME of a store, as augkit fit wrote it"
        ) from error


def _copy_model(folder: Path, staged: Path) -> None:
    """Copy what a model may consist of. Raises InputError for anything but plain files."""
    for path in sorted(folder.iterdir()):
        if not FILE_NAME.fullmatch(path.name):
            continue
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError(f"{path} is no plain file, as all of a model must be: copy it again")
        shutil.copyfile(path, staged / path.name)


_LONGEST_NOTE = 1000


def _checked(found: Any, name: str) -> Fitted:
    """Return what a plugin says of its fit. Raises PluginFailed for what no store could keep."""
    wrong = ""
    if not issubclass(type(found), Fitted):  # its fields may be anything
        wrong = f"returned {type(found).__name__} instead of Fitted or None"
    elif not isinstance(found.complete, bool):
        wrong = f"says complete={found.complete!r}, which is neither True nor False"
    elif not isinstance(found.note, str) or not found.note[:_LONGEST_NOTE].isprintable():
        wrong = f"has a note that is no text on one line, {found.note!r:.80}"
    elif len(found.note) > _LONGEST_NOTE:
        wrong = f"has a note of {len(found.note)} letters, over {_LONGEST_NOTE}"
    elif not _is_json(found.details):
        wrong = "has details that are no JSON values, or too many"
    if wrong:
        raise PluginFailed(f"plugin {name!r}: fit() {wrong}")
    return found


def _is_json(details: Any) -> bool:
    """Return True for a mapping that a log entry can hold."""
    try:
        text = json.dumps(details, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(details, dict) and len(text) <= _MOST_DETAILS


_MOST_DETAILS = 2**20
"""Bytes of JSON."""


class _Stages:
    """Passes progress on, and ends the stages that a fit left unfinished."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._open: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        self._open[stage] = total
        self._progress(stage, done, total, note)

    def end(self) -> None:
        """End all stages."""
        for stage, total in self._open.items():
            self._progress(stage, total, total)


def _undertrained(apart: np.ndarray, snapshot: Snapshot) -> str:
    """Return in words which classes the model has not learned; empty: none."""
    from augkit.distances import undertrained

    names = ", ".join(snapshot.classes[c] for c in undertrained(apart))
    if not names:
        return ""
    return f"undertrained: samples of {names} are no nearer to their own class than to another"


def _storable(value: Any) -> Any:
    """Return JSON values with null in place of what is no number."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _deadline(budget: str | float | None) -> float | None:
    """Return the time.monotonic() at which the budget is used up, counted from now."""
    return None if budget is None else time.monotonic() + seconds_of(budget)


def seconds_of(budget: str | float) -> float:
    """Return the seconds of a budget: a number, or text such as 90s, 30m, 2h, 1h30m.

    Raises OptionError for anything else.
    """
    if isinstance(budget, str):
        match = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s?)?", budget.strip())
        parts = [int(p or 0) for p in match.groups()] if match else [0, 0, 0]
        seconds = parts[0] * 3600.0 + parts[1] * 60 + parts[2]
    else:
        seconds = -1.0 if isinstance(budget, bool) else min(budget, 1e12) * 1.0
    if not 0 < seconds < float("inf"):
        raise OptionError(f"budget is {budget!r}; it must be a time such as 90s, 30m or 1h30m")
    return seconds
