"""Every check of the contract, each proven by a bug that it finds, and it alone."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import numpy as np
import pytest
from augkit_classifiers.linear import Linear
from augkit_traditional import Brightness, Flip, Scale, Zoom
from children import wait_until_gone
from commands import command, works

from augkit.conformance import AUGMENTER_CHECKS, CLASSIFIER_CHECKS, checks_of, examine
from augkit.errors import InputError, OptionError
from augkit.examination import check, locate
from augkit.interfaces import Augmenter, Classifier, Context
from augkit.options import option
from augkit.testing import Copy, Oracle, Poison

pytestmark = pytest.mark.seconds

# -- augmenters: a good one, and the same with one bug each ----------------------------------------


@dataclass
class Good(Augmenter):
    """Adds a grey level to each image, modulo 256."""

    name = "good"

    strength: int = option(4, "the most that is added", low=1, high=99)

    def plan(self, labels, shape, rng):
        params = np.empty(len(labels), [("added", np.uint8)])
        params["added"] = rng.integers(0, self.strength, len(labels), endpoint=True)
        return params

    def apply(self, images, labels, params):
        return images + params["added"][:, None, None, None]

    def apply_masks(self, masks, params):
        return masks


@dataclass
class Learner(Oracle):
    """Learns the shape of the images and the names of the classes."""

    name = "learner"

    n_looks: int = option(1, "how often it looks", low=1)


BUGS: list[tuple[str, type, str]] = []
"""The check that finds a bug, the plugin that has it, and words of the sentence."""


def bug(check: str, said: str):
    """Enrol a class as the bug that a check finds."""

    def enrolled(cls: type) -> type:
        if "__dataclass_fields__" not in vars(cls):
            cls.__doc__ = cls.__doc__ or "Has one bug."
            cls = dataclass(cls)
        BUGS.append((check, cls, said))
        return cls

    return enrolled


@bug("its name can be typed", "'Not_Good'; a name is short, lower case, hyphenated")
class BadName(Good):
    name = "Not_Good"


@bug("its options are declared", "option 'size' has no default value")
@dataclass
class NoDefault(Augmenter):
    """Has one bug."""

    size: int
    name = "good"
    apply = Good.apply


@bug("its options are only stored", "constructors only store")
class Constructs(Good):
    def __post_init__(self):
        self.strength += 1


@bug("its options are flags", "-o words=a,b gives ['a', 'b'], not the default ['a,b']")
class Untypable(Good):
    words: tuple[str, ...] = option(("a,b",), "what is written on the image")


@bug("its family is known", "family 'other'; it must be traditional or generative")
class BadFamily(Good):
    family = "other"


@bug("its plan is a table", "plan gives list; it must give a structured array")
class PlansLists(Good):
    def plan(self, labels, shape, rng):
        return [1] * len(labels)


@bug("its plan has a row for each image", "shape (23,) for 24 labels; one row an output")
class PlansTooFew(Good):
    def plan(self, labels, shape, rng):
        return super().plan(labels[1:], shape, rng)


@bug("its plan holds numbers", "fields that are no numbers")
class PlansText(Good):
    def plan(self, labels, shape, rng):
        params = np.zeros(len(labels), [("added", np.uint8), ("how", "U5")])
        params["added"] = super().plan(labels, shape, rng)["added"]
        return params


@bug("its plan holds numbers", "object fields; they cannot be stored")
class PlansObjects(Good):
    def plan(self, labels, shape, rng):
        params = np.zeros(len(labels), [("added", np.uint8), ("how", object)])
        params["added"] = super().plan(labels, shape, rng)["added"]
        return params


@bug("its plan repeats with the seed", "all randomness comes from rng")
class PlansByClock(Good):
    def plan(self, labels, shape, rng):
        return super().plan(labels, shape, np.random.default_rng())


@bug("it makes bytes", "gives float64; it must give uint8")
class Floats(Good):
    def apply(self, images, labels, params):
        return images / 255


@bug("it makes bytes", "broken raises ValueError: no such thing")
class Raises(Good):
    name = "broken"

    def apply(self, images, labels, params):
        raise ValueError("no such\nthing")


@bug("it keeps the shape", "shape (24, 32, 40, 1) for (24, 32, 40, 3)")
class GreyOnly(Good):
    def apply(self, images, labels, params):
        return images[..., :1].copy()


@bug("it leaves its input alone", "apply modifies its input")
class Modifies(Good):
    def apply(self, images, labels, params):
        images[:] = 255 - images
        return images


@bug("it leaves its input alone", "apply modifies its input")
class UsesUp(Good):
    def apply(self, images, labels, params):
        made = super().apply(images, labels, params)
        params["added"] = 0
        return made


@bug("it repeats its pixels", "draw in plan, not in apply")
class Draws(Good):
    def apply(self, images, labels, params):
        return np.random.default_rng().integers(0, 256, images.shape, np.uint8)


@bug("it makes each row by itself", "in blocks of 1; each row must be by itself")
class Mixes(Good):
    def apply(self, images, labels, params):
        return images - images.mean(axis=0).astype(np.uint8)


@bug("its plan says all", "what apply needs stands in the plan, not in self")
class Remembers(Good):
    drawn_ = 0

    def plan(self, labels, shape, rng):
        self.drawn_ = int(rng.integers(1, 256))
        return super().plan(labels, shape, rng)

    def apply(self, images, labels, params):
        return images + np.uint8(self.drawn_)


@bug("it is as deterministic as it says", "called deterministic, but the seed matters")
class SaysDeterministic(Good):
    deterministic = True


@bug("its plan follows the seed", "or say deterministic = True")
class Constant(Good):
    def plan(self, labels, shape, rng):
        return np.ones(len(labels), [("added", np.uint8)])


@bug("it takes images of another size", "shape (24, 32, 18, 1) for (24, 41, 18, 1)")
class CroppedToSize(Good):
    def apply(self, images, labels, params):
        return super().apply(images, labels, params)[:, :32, :40]


@bug("it takes images of another size", "ValueError: cannot reshape")
class EvenOnly(Good):
    def apply(self, images, labels, params):
        n, height, width, channels = images.shape
        halves = images.reshape(n, height // 2, 2, width, channels)
        return halves[:, :, ::-1].reshape(images.shape)


@bug("its window and table are what it does", "makes other pixels in a chain than alone")
class OtherTable(Good):
    def as_lut(self, params):
        return np.repeat(np.arange(255, -1, -1, np.uint8)[None], len(params), 0)


def local():
    class Local(Good):
        pass

    return Local


bug("it reaches worker processes", "define its class at the top of its module")(local())


@bug("it leaves masks alone", "apply_masks modifies its input")
class ModifiesMasks(Good):
    def apply_masks(self, masks, params):
        made = masks.copy()
        masks[:] = 0
        return made


@bug("its masks have the shape of the images", "gives float64 (24, 32, 40) for uint8")
class FloatMasks(Good):
    def apply_masks(self, masks, params):
        return masks.astype(float)


@bug("its masks are black and white", "values other than 0 and 255")
class GreyMasks(Good):
    def apply_masks(self, masks, params):
        return masks // 2


@bug("its masks show nothing where nothing is", "what comes in from outside is black")
class WhiteBorder(Good):
    def apply_masks(self, masks, params):
        made = masks.copy()
        made[:, :, 0] = 255
        return made


@bug("its masks move with the images", "moves images but not their masks")
class MirrorsImagesOnly(Good):
    def apply(self, images, labels, params):
        return images[:, :, ::-1].copy()


@bug("its masks move with the images", "moves images but not their masks")
class MirrorsMasksOnly(Good):
    def apply_masks(self, masks, params):
        return masks[:, :, ::-1].copy()


@bug("what it saves is safe", "save writes learned.npy; a model is kept as .safetensors and .json")
class SavesArrays(Learner):
    def save(self, folder):
        super().save(folder)
        np.save(folder / "learned.npy", np.zeros(1))


@bug("its way begins and ends with its images", "other pixels at 0 and 1 than apply gives")
class LosesItsWay(Learner):
    def interpolate(self, label, params, shares):
        halfway = params[[0] * len(shares)]
        halfway["seed"] += 1
        return self.apply(None, np.full(len(shares), label), halfway)


@bug("what it saves is all", "gives other pixels after save and load")
class LosesModel(Learner):
    def load(self, folder):
        super().load(folder)
        self.classes_ = self.classes_[::-1]


@bug("it learns the same again", "when it is fitted again with the same seed")
class LearnsByClock(Learner):
    fits: ClassVar = count()

    def fit(self, train, context):
        turn = next(self.fits) % 2
        super().fit(train, Context(0, (*context.classes[turn:], *context.classes[:turn])))


@bug("it says how its fit ended", "fit gives ReturnsItself; it must give Fitted or None")
class ReturnsItself(Learner):
    def fit(self, train, context):
        super().fit(train, context)
        return self


@bug("it leaves the training part alone", "writes over the samples that it is given")
class Scribbles(Learner):
    def fit(self, train, context):
        super().fit(train, context)
        train.labels[:] = 0


@bug("it leaves its options alone", "changes its options while it works: n_looks")
class CountsLooks(Learner):
    def fit(self, train, context):
        super().fit(train, context)
        self.n_looks = 2


@bug("it seeds nothing shared", "seeds the random numbers that everybody shares")
class SeedsGlobal(Good):
    def apply(self, images, labels, params):
        np.random.seed(0)
        return super().apply(images, labels, params)


@bug("it prints nothing", "prints 'done'; use logging, or context.progress")
class Prints(Good):
    def apply(self, images, labels, params):
        print("done")
        return super().apply(images, labels, params)


@dataclass
class Undocumented(Good):
    pass


BUGS.append(("it says what it does", Undocumented, "its first line is what augkit plugins shows"))


@bug("its options are explained", "does not say what extra means")
class Unexplained(Good):
    extra: int = 1


# -- classifiers: a good one, and the same with one bug each ---------------------------------------


@dataclass
class Frequencies(Classifier):
    """Predicts how frequent each class is: not clever, but correct."""

    name = "frequencies"
    deterministic = True

    extra: float = option(1.0, "pseudo-count", low=0)
    n_looks: int = option(1, "how often it looks", low=1)

    def fit(self, train, val, context):
        counts = np.bincount(train.labels, minlength=len(context.classes)) + self.extra
        self.shares_ = (counts / counts.sum()).astype(np.float32)

    def predict_proba(self, samples):
        return np.tile(self.shares_, (len(samples), 1))


@bug("its name can be typed", "a name is short, lower case, hyphenated")
class NoName(Frequencies):
    name = ""


@bug("its options are declared", "option 'kernel' has a type that cannot be typed")
class OddOption(Frequencies):
    kernel: dict = option(None, "the kernel")


@bug("its options are only stored", "constructors only store")
class Halves(Frequencies):
    def __post_init__(self):
        self.extra /= 2


@bug("its options are flags", "-o views=a,b,c gives ['a', 'b', 'c'], not the default ['a,b', 'c']")
class Commas(Frequencies):
    views: tuple[str, ...] = option(("a,b", "c"), "which views count")


@bug("it gives numbers", "predict_proba gives float64, not float32")
class Doubles(Frequencies):
    def predict_proba(self, samples):
        return super().predict_proba(samples).astype(np.float64)


@bug("it gives a column for each class", "shape (9, 2) for 9 rows of 3 classes")
class TwoOnly(Frequencies):
    def predict_proba(self, samples):
        return np.full((len(samples), 2), 0.5, np.float32)


@bug("it gives probabilities", "values that are no probabilities")
class Logits(Frequencies):
    def predict_proba(self, samples):
        return np.log(super().predict_proba(samples))


@bug("its rows sum to 1", "not 1")
class Unnormalised(Frequencies):
    def predict_proba(self, samples):
        return super().predict_proba(samples) * np.float32(1.00001)


@bug("it does without labels", "the labels of these samples are not for classifiers")
class Peeks(Frequencies):
    def predict_proba(self, samples):
        return np.eye(len(self.shares_), dtype=np.float32)[samples.labels]


@bug("it predicts a row by itself", "predicts a row differently when it is alone")
class ByBatch(Frequencies):
    def predict_proba(self, samples):
        made = super().predict_proba(samples)
        made[:, 0] *= len(samples)
        return made / made.sum(1, keepdims=True)


@bug("fitting it twice is fitting it once", "other probabilities when it is fitted twice")
class GoesOn(Frequencies):
    def fit(self, train, val, context):
        self.fits_ = getattr(self, "fits_", 0) + 1
        shares = np.arange(len(context.classes)) + float(self.fits_)
        self.shares_ = (shares / shares.sum()).astype(np.float32)


@bug("it repeats with the seed", "other probabilities for the same seed")
class Unseeded(Frequencies):
    made: ClassVar = count(1)

    def __post_init__(self):
        self.number_ = next(self.made)

    def fit(self, train, val, context):
        shares = np.arange(len(context.classes)) + float(self.number_)
        self.shares_ = (shares / shares.sum()).astype(np.float32)


@bug("it is as deterministic as it says", "called deterministic, but the seed matters")
class Seeded(Frequencies):
    def fit(self, train, val, context):
        drawn = np.random.default_rng(context.seed).random(len(context.classes))
        self.shares_ = (drawn / drawn.sum()).astype(np.float32)


@bug("it forgets other fits", "remembers what was learned in another fit")
class Hoards(Frequencies):
    known: ClassVar[dict[bytes, int]] = {}

    def fit(self, train, val, context):
        super().fit(train, val, context)
        names = [image.tobytes() for image in train[:]]
        self.known.update(zip(names, train.labels.tolist(), strict=True))

    def predict_proba(self, samples):
        made = super().predict_proba(samples)
        for row, image in zip(made, samples[:], strict=True):
            if image.tobytes() in self.known:
                row[:] = np.arange(len(row)) == self.known[image.tobytes()]
        return made


@bug("it takes one image", "values that are no probabilities")
class DividesBySpread(Frequencies):
    def fit(self, train, val, context):
        super().fit(train, val, context)
        self.shares_ *= 1 if len(train) > 1 else np.float32("nan")


@bug("it takes a class without images", "shape (9, 2) for 9 rows of 3 classes where one class has")
class OnlyWhatItSaw(Frequencies):
    def fit(self, train, val, context):
        super().fit(train, val, context)
        present = np.unique(train.labels)
        if len(present) < 2:
            raise InputError("give images of two classes")
        self.shares_ = self.shares_[present] / self.shares_[present].sum()


@bug("it leaves the samples alone", "writes over the samples that it is given")
class WritesLabels(Frequencies):
    def fit(self, train, val, context):
        super().fit(train, val, context)
        val.labels[:] = 0


@bug("it leaves its options alone", "changes its options while it works: n_looks")
class ChangesOptions(Frequencies):
    def fit(self, train, val, context):
        super().fit(train, val, context)
        self.n_looks = 2


@bug("it seeds nothing shared", "seeds the random numbers that everybody shares")
class SeedsRandom(Frequencies):
    def predict_proba(self, samples):
        random.seed(samples.shape[0])
        return super().predict_proba(samples)


@bug("it prints nothing", "prints 'epoch 1 epoch 2'")
class PrintsEpochs(Frequencies):
    def fit(self, train, val, context):
        print("epoch 1")
        print("epoch 2")
        super().fit(train, val, context)


@dataclass
class Silent(Frequencies):
    pass


BUGS.append(("it says what it does", Silent, "has no docstring"))


@bug("its options are explained", "does not say what depth means")
class Terse(Frequencies):
    depth: int = 1


# -- each bug is found by its check, and by no other -----------------------------------------------


@pytest.mark.parametrize("check, cls, said", BUGS, ids=lambda v: getattr(v, "__name__", None))
def test_a_bug_is_found_by_its_check_alone(check, cls, said):
    (found,) = [f for f in examine(cls) if f.fault and f.reached]
    assert (found.check, found.ok) == (check, False)
    assert said in found.fault and "\n" not in found.fault


@pytest.mark.parametrize(
    "cls", [Good, Learner, Flip, Brightness, Scale, Zoom, Copy, Oracle, Poison, Frequencies, Linear]
)
def test_a_good_plugin_passes_every_check(cls):
    found = list(examine(cls))
    assert [f.fault for f in found if f.fault] == []
    kind = "classifier" if issubclass(cls, Classifier) else "augmenter"
    assert [f.check for f in found] == [c.name for c in checks_of(kind)]


@pytest.mark.parametrize(
    "checks, base", [(AUGMENTER_CHECKS, Augmenter), (CLASSIFIER_CHECKS, Classifier)]
)
def test_every_check_has_a_bug_that_it_finds(checks, base):
    assert len(checks) > 20
    assert {check for check, cls, _ in BUGS if issubclass(cls, base)} == {c.name for c in checks}
    assert all(c.meaning.endswith(".") for c in checks)


def test_the_document_lists_every_check_and_no_other():
    document = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text()
    tables = document.split("| check | what is looked at |\n|---|---|\n")[1:]
    listed = [dict(re.findall(r"^\| (.+) \| (.+) \|$", t, re.M)) for t in tables]
    package, augmenter, classifier = listed
    assert len(package) == 3
    assert augmenter == {c.name: c.meaning for c in AUGMENTER_CHECKS}
    shared = {c.name for c in CLASSIFIER_CHECKS if c.name in augmenter}
    assert {c.name: c.meaning for c in CLASSIFIER_CHECKS if c.name not in shared} == {
        name: meaning for name, meaning in classifier.items() if name not in shared
    }


def test_what_cannot_be_done_any_more_is_neither_right_nor_wrong():
    found = list(examine(Floats))
    at = [f.check for f in found].index("it makes bytes")
    assert [f.reached for f in found] == [i <= at for i in range(len(AUGMENTER_CHECKS))]
    assert all(f.fault == "not done: not 'it makes bytes'" for f in found[at + 1 :])


@dataclass
class Picky(Good):
    """Says which images it can work with."""

    def plan(self, labels, shape, rng):
        if shape[0] % 2:
            raise OptionError("images of an odd height cannot be halved; ingest with --size")
        return super().plan(labels, shape, rng)


def test_a_size_that_is_refused_in_plain_words_is_no_bug():
    assert not [f for f in examine(Picky) if f.fault]


@dataclass
class DrawsInVain(Frequencies):
    """Draws what it does not use, as scikit-learn's LinearSVC does."""

    def fit(self, train, val, context):
        super().fit(train, val, context)
        np.random.random()


def test_what_is_drawn_without_effect_is_no_bug_and_shared_numbers_are_put_back():
    random.seed(7)
    assert not [f for f in examine(DrawsInVain) if f.fault]
    assert random.random() == random.Random(7).random()


def test_options_that_leave_nothing_to_draw_are_no_bug():
    assert not [f for f in examine(Brightness, gain_range=(1.1, 1.1)) if f.fault]


def test_the_masks_of_a_scanner_at_its_limits_are_still_right():
    assert not [f for f in examine(Brightness, gain_range=(20, 90)) if f.fault]
    assert not [f for f in examine(Scale, factor_range=(0.2, 5)) if f.fault]


# -- packages, checked in child processes ----------------------------------------------------------

PLUGIN = """
from dataclasses import dataclass
from augkit import Augmenter, hookimpl

@dataclass
class Invert(Augmenter):
    \"\"\"Turns white to black.\"\"\"
    name = "NAME"
    deterministic = True
    def apply(self, images, labels, params):
        APPLY

@dataclass
class Same(Augmenter):
    \"\"\"Changes nothing.\"\"\"
    name = "same"
    def apply(self, images, labels, params):
        return images.copy()

@hookimpl
def register_augmenters():
    return [Invert, Same]
"""


def package(folder, source="", name="invert", apply="return 255 - images", plugin=PLUGIN):
    """Write a package of one module."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "augkit-invert"\n[project.entry-points.augkit]\ninvert = "stranger"\n'
    )
    text = dedent(source) + plugin.replace("NAME", name).replace("APPLY", apply)
    (folder / "stranger.py").write_text(text)
    return folder


def faults(examination):
    return [(f.plugin, f.check, f.fault) for f in examination.findings if f.fault and f.reached]


def test_a_package_need_not_be_installed_and_is_left_as_it_is(tmp_path):
    folder = package(tmp_path / "stranger")
    found = check(folder)
    assert found.sound and faults(found) == []
    assert {f.plugin for f in found.findings} == {"augkit-invert", "invert", "same"}
    assert len(found.findings) == 3 + 2 * len(AUGMENTER_CHECKS)
    assert sorted(p.name for p in folder.iterdir()) == ["pyproject.toml", "stranger.py"]
    assert "stranger" not in sys.modules


def test_the_checks_of_a_plugin_are_told_as_they_begin(tmp_path):
    told = []
    check(package(tmp_path / "stranger"), progress=lambda *said: told.append(said))
    names = [one.name for one in AUGMENTER_CHECKS]
    assert [one for one in told if one[0] == "checking invert"] == [
        ("checking invert", k, len(names), name) for k, name in enumerate(names, start=1)
    ]


def test_modules_are_found_below_src(tmp_path):
    folder = package(tmp_path / "stranger")
    (folder / "src").mkdir()
    (folder / "stranger.py").rename(folder / "src" / "stranger.py")
    assert check(folder).sound


@pytest.mark.parametrize(
    "given, check_name, said",
    [
        ({"source": "import no_such_module"}, "it can be loaded", "ModuleNotFoundError"),
        ({"source": "import sys; sys.exit(3)"}, "it can be loaded", "SystemExit: 3"),
        (
            {"source": "import os; os._exit(3)"},
            "it can be loaded",
            "augkit-invert ended the process with exit status 3 at import",
        ),
        ({"name": "Not Good"}, "it can be loaded", "name 'Not Good' is not lower-case"),
        (
            {
                "plugin": "from augkit import hookimpl\n"
                "@hookimpl\ndef register_augmenters(): return []"
            },
            "it can be loaded",
            "its hooks return no class",
        ),
        ({"source": "import cv2"}, "it imports little", "import it inside the functions"),
        ({"name": "flip"}, "its names are free", "flip: a built-in plugin has this name"),
    ],
)
def test_a_package_is_told_what_is_wrong_with_it(tmp_path, given, check_name, said):
    (found,) = faults(check(package(tmp_path / "stranger", **given)))
    assert found[:2] == ("augkit-invert", check_name) and said in found[2]


@pytest.mark.slow
def test_an_import_without_end_is_ended(tmp_path):
    folder = package(tmp_path / "stranger", "import time; time.sleep(600)")
    (found,) = faults(check(folder, timeout=4))
    assert found[1:] == ("it can be loaded", "augkit-invert has not ended after 4 s at import")


@pytest.mark.slow
@pytest.mark.parametrize(
    "apply, said",
    [
        ("import os; os._exit(7)", "invert ended the process with exit status 7 while this was"),
        ("import os; os.abort()", "invert ended the process with signal 6"),
        ("while True: pass", "invert has not ended after 4 s while this was checked"),
    ],
)
def test_a_plugin_that_takes_the_process_with_it_does_not_take_the_others(tmp_path, apply, said):
    found = check(package(tmp_path / "stranger", apply=apply), timeout=4)
    ((plugin, at, fault),) = faults(found)
    assert (plugin, at) == ("invert", "it makes bytes") and said in fault
    same = [f for f in found.findings if f.plugin == "same"]
    assert len(same) == len(AUGMENTER_CHECKS) and all(f.ok for f in same)
    assert len(found.findings) == 3 + 2 * len(AUGMENTER_CHECKS)


def test_nobody_is_left_behind_when_the_command_is_killed(tmp_path):
    source = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} ')\n"
    package(tmp_path / "stranger", source + "time.sleep(600)")
    code = "from augkit_cli.main import run; run()"
    line = [sys.executable, "-c", code, "plugin", "check", "stranger"]
    with subprocess.Popen(line, cwd=tmp_path) as parent:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (tmp_path / "pid").exists():
            time.sleep(0.05)
        parent.kill()
    while not (written := (tmp_path / "pid").read_text()):
        time.sleep(0.05)
    assert wait_until_gone([int(written)])


def test_what_a_plugin_prints_at_import_comes_not_between(tmp_path):
    folder = package(tmp_path / "stranger", "import os; print('{'); os.write(1, b'no json\\n')")
    assert check(folder).sound


def test_the_command_prints_a_table_and_ends_with_1_where_a_check_fails(tmp_path):
    package(tmp_path / "stranger")
    done = works("plugin", "check", "stranger", cwd=tmp_path)
    assert "invert" in done.out and done.out.endswith("checks done, the contract is kept\n")
    package(tmp_path / "broken", apply="return images / 255")
    done = command("plugin", "check", "broken", cwd=tmp_path)
    assert done.code == 1 and done.err == ""
    assert "invert.apply gives float64; it must give uint8" in done.out
    assert done.out.endswith("checks done, 1 check failed\n")
    done = command("plugin", "check", "broken", "--json", cwd=tmp_path)
    assert done.code == 1 and done.json["sound"] is False
    (fault,) = [c for c in done.json["checks"] if not c["ok"] and c["reached"]]
    assert set(fault) == {"plugin", "check", "meaning", "ok", "reached", "fault"}
    assert json.dumps(fault["fault"]) in done.out


def test_an_installed_package_is_found_by_its_name():
    found = locate("augkit")
    assert found.paths == () and ("traditional", "augkit_traditional") in found.points


@pytest.mark.parametrize(
    "pyproject, error, said",
    [
        (None, OptionError, "is a folder without a pyproject.toml, nor an installed package"),
        ("not toml", InputError, "pyproject.toml cannot be read: "),
        ("project = 3", InputError, "pyproject.toml cannot be read: "),
        ("[project]\nname = 'x'", InputError, r"needs the section \[project.entry-points.augkit\]"),
    ],
)
def test_a_folder_that_is_no_package_is_refused_in_plain_words(tmp_path, pyproject, error, said):
    if pyproject is not None:
        (tmp_path / "pyproject.toml").write_text(pyproject)
    with pytest.raises(error, match=said):
        check(tmp_path)


def test_a_package_that_is_nowhere_is_refused_in_plain_words(tmp_path):
    with pytest.raises(OptionError, match="neither a folder here nor an installed package"):
        check("no-such-package")
    with pytest.raises(InputError, match="numpy offers no plugins"):
        check("numpy")
    with pytest.raises(OptionError, match="timeout is 0; it must be above 0 seconds"):
        check(tmp_path, timeout=0)
