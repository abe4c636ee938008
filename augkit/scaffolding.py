"""New packages of plugins: small, complete, and working before the first change."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from augkit.errors import InputError, OptionError
from augkit.registry import Kind

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$package"
version = "0.1.0"
description = "The $kind $name, a plugin for augkit"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["augkit", "numpy"]

[project.optional-dependencies]
test = ["pytest"]

# This is how augkit finds the module.
[project.entry-points.augkit]
$name = "$module"

[tool.setuptools]
py-modules = ["$module"]
"""

_README = """\
# $package

The $kind `$name`, a plugin for augkit.

```
pip install -e .
augkit plugins $name
$use
```

It is in `$module.py`. After a change:

```
augkit plugin check .
python -m pytest
```

The whole contract is one page: `augkit/interfaces.py` of augkit.
"""

_AUGMENTER = '''\
"""The augmenter $name, a plugin for augkit."""

from dataclasses import dataclass

import numpy as np

from augkit import Augmenter, hookimpl, option


@hookimpl
def register_augmenters():
    return [$cls]


@dataclass
class $cls(Augmenter):
    """Makes each image brighter or darker by a gain of its own."""

    name = "$name"

    gain_range: tuple[float, float] = option(
        (0.8, 1.2), "factor on the grey levels, drawn uniformly", low=0.01, high=100
    )

    def plan(self, labels, shape, rng):
        """Return everything random, a row for each new image; it is stored."""
        params = np.empty(len(labels), [("gain", np.float64)])
        params["gain"] = rng.uniform(*self.gain_range, len(labels))
        return params

    def apply(self, images, labels, params):
        """Return uint8 (N, H, W, C): each from its row alone, nothing drawn."""
        made = images * params["gain"][:, None, None, None]
        return np.clip(np.rint(made), 0, 255).astype(np.uint8)

    def apply_masks(self, masks, params):
        """Return uint8 (N, H, W), moved as the images were: here not at all."""
        return masks
'''

_AUGMENTER_TEST = '''\
"""The contract of every augmenter, and what is particular to this one."""

import numpy as np
from $module import $cls

from augkit.testing import check_augmenter, toy_samples


def test_it_keeps_the_contract():
    check_augmenter($cls)
    check_augmenter($cls, gain_range=(0.5, 2.0))


def test_a_gain_of_two_doubles_grey_levels_up_to_white():
    images = toy_samples(1).images[:1]
    params = np.array([(2.0,)], [("gain", np.float64)])
    made = $cls().apply(images, None, params)
    assert (made == np.minimum(images.astype(int) * 2, 255)).all()
'''

_CLASSIFIER = '''\
"""The classifier $name, a plugin for augkit."""

from dataclasses import dataclass

import numpy as np

from augkit import Classifier, hookimpl, option


@hookimpl
def register_classifiers():
    return [$cls]


@dataclass
class $cls(Classifier):
    """Compares the grey levels of an image with the mean of each class."""

    name = "$name"
    family = "classical"
    deterministic = True  # the seed changes nothing
    fast = True  # a fit takes seconds

    n_bins: int = option(16, "bins of the histogram of grey levels", low=2, high=256)

    def fit(self, train, val, context):
        """Learn from train; choose, if there is a choice, on val."""
        self.context_ = context
        features = self._features(train)
        self.means_ = np.full((len(context.classes), self.n_bins), np.inf)
        for label in np.unique(train.labels):  # one without images stays out of reach
            self.means_[label] = features[train.labels == label].mean(0)
        distance = np.square(features - self.means_[train.labels]).sum(1)  # (N,)
        self.spread_ = distance.mean() + 1e-9

    def predict_proba(self, samples):
        """Return float32 (N, classes), rows sum to 1."""
        features = self._features(samples)[:, None]  # (N, 1, bins)
        distance = np.square(features - self.means_).sum(2) / self.spread_
        chances = np.exp(distance.min(1, keepdims=True) - distance)
        return (chances / chances.sum(1, keepdims=True)).astype(np.float32)

    def _features(self, samples):
        """Return float32 (N, bins); what the key names is computed only once."""
        key = f"$name-{self.n_bins}"
        return self.context_.cached(key, self._histograms, samples)

    def _histograms(self, images):
        counts = [np.histogram(i, self.n_bins, (0, 256))[0] / i.size for i in images]
        return np.sqrt(counts)
'''

_CLASSIFIER_TEST = '''\
"""The contract of every classifier, and that this one learns."""

from $module import $cls

from augkit import Context
from augkit.testing import CLASSES, check_classifier, toy_samples


def test_it_keeps_the_contract():
    check_classifier($cls)
    check_classifier($cls, n_bins=2)


def test_it_tells_easy_phantoms_apart_better_than_chance():
    train, test = toy_samples(40, seed=1), toy_samples(40, seed=2)
    classifier = $cls()
    classifier.fit(train, test, Context(seed=0, classes=CLASSES))
    assert (classifier.predict_proba(test).argmax(1) == test.labels).mean() > 0.45
'''

_USE = {
    "augmenter": "augkit augment --plugin $name -o gain_range=0.5,2",
    "classifier": "augkit evaluate --classifier $name -o n_bins=32",
}
_FLAG = {"augmenter": "", "classifier": " --classifier"}
_MODULES = {
    "augmenter": (_AUGMENTER, _AUGMENTER_TEST),
    "classifier": (_CLASSIFIER, _CLASSIFIER_TEST),
}


@dataclass(frozen=True)
class NewPackage:
    """A package that was written."""

    name: str
    """Of the plugin."""
    kind: Kind
    folder: Path
    files: tuple[str, ...]
    """Relative to the folder, the plugin first."""

    def __str__(self) -> str:
        lines = [f"{self.folder}: the {self.kind} {self.name}, complete and working"]
        lines += [f"  {file}" for file in self.files]
        lines += ["Change the first, then:", f"  augkit plugin check {self.folder}"]
        lines += [f"  pip install -e {self.folder}", f"  augkit plugins {self.name}"]
        return "\n".join(lines)


def new(name: str, kind: Kind = "augmenter", folder: Path | str | None = None) -> NewPackage:
    """Write a package with one plugin, its tests and a README, and return where.

    name: of the plugin. folder: must not exist; by default augkit-NAME here. Raises OptionError
    for a name that cannot be used, InputError if the folder exists or cannot be written.
    """
    if kind not in _MODULES:
        raise OptionError(f"kind is {kind!r}; it is one of: {', '.join(_MODULES)}")
    _check_name(name, kind)
    target = Path(folder) if folder is not None else Path(f"augkit-{name}")
    words = _words(name, kind)
    texts = {file: Template(text).substitute(words) for file, text in _files(kind, words).items()}
    try:
        target.mkdir(parents=True)
        for file, text in texts.items():
            path = target / file
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise InputError(
            f"{target} exists already, and nothing is overwritten. Write elsewhere: "
            f"augkit plugin new {name}{_FLAG[kind]} --folder FOLDER"
        ) from None
    except OSError as error:
        raise InputError(
            f"{target} cannot be written: {error.strerror}; choose --folder DIR"
        ) from error
    return NewPackage(name, kind, target, tuple(texts))


def _check_name(name: str, kind: Kind) -> None:
    """Raise OptionError, with a name that can be typed instead, unless this one can be used."""
    from augkit.examination import built_in

    own = built_in()
    good = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-").lstrip("-0123456789") or "speckle"
    module = _words(good, kind)["module"]
    if name != good or len(name) > 40:
        why = "a name is short, lower case, hyphenated"
    elif name in own:
        why = "a built-in plugin has this name"
    elif name in _MODULES:
        why = "that is what all of them are called"
    elif importlib.util.find_spec(module) is not None:
        why = f"a module {module} is installed already"
    else:
        return
    better = good[:37].strip("-")
    better = f"my-{better}" if better == name or better in own else better
    raise OptionError(f"name is {name!r}; {why}. Type: augkit plugin new {better}{_FLAG[kind]}")


def _words(name: str, kind: Kind) -> dict[str, str]:
    """Return what the templates are filled in with."""
    words = {
        "name": name,
        "kind": kind,
        "package": f"augkit-{name}",
        "module": f"augkit_{name.replace('-', '_')}",
        "cls": "".join(part.capitalize() for part in name.split("-")),
    }
    return words | {"use": Template(_USE[kind]).substitute(words)}


def _files(kind: Kind, words: dict[str, str]) -> dict[str, str]:
    """Return the templates by the files that they become."""
    module, test = _MODULES[kind]
    return {
        f"{words['module']}.py": module,
        f"tests/test_{words['module']}.py": test,
        "pyproject.toml": _PYPROJECT,
        "README.md": _README,
    }
