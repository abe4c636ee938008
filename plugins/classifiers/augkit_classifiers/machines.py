"""Machines: classifiers on rows of features, and what they share with logistic regression.

A support vector machine or AdaBoost gives scores, not probabilities. Here they become
probabilities by one temperature that is chosen, like the strength, on the validation part.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np

from augkit.descriptors import LEAST_SPREAD
from augkit.errors import InputError, PluginFailed
from augkit.interfaces import Classifier, Context, Samples
from augkit.options import option

# From wider ranges, by the validation parts of BUSI with texture features: beyond, the log loss
# was worse, or better by less than 0.005, and trees deeper than stumps gained nothing.
# The linear ones are for 128 features: products of rows grow with their number.
_STRENGTHS = {"linear": (1.0, 10.0, 100.0), "rbf": (100.0, 1000.0, 10_000.0)}
_FEATURES = 128
_ROUNDS = (10, 30, 100)
_DEPTH = 1
_MAX_ITERATIONS = {"linear": 1000, "rbf": 1_000_000}
_LOG_SHARPNESS = (-5.0, 5.0)


@dataclass(frozen=True)
class Recipe:
    """What to make of the features: the options that `texture` and its like have in common."""

    name: str
    """Of the classifier, for messages."""

    machine: Literal["svm", "adaboost"] = "svm"

    kernel: Literal["linear", "rbf"] = "linear"
    """Of the support vector machine. Linear: one class against the rest, squared hinge. Rbf: one
    class against another, hinge, exp(-|x - z|^2 / d) of the d standardised features."""

    C: float | None = None
    """Inverse strength of the L2 penalty of the support vector machine on the mean loss of the
    rows; None: chosen on the validation part."""

    balanced: bool = True
    """Whether the classes weigh the same, in the fit and in what is chosen after it."""


@dataclass
class OnFeatures(Classifier):
    """A support vector machine, or what a subclass makes of it, on features that it names."""

    family = "classical"
    deterministic = True  # AdaBoost as well
    fast = True

    kernel: Literal["linear", "rbf"] = option("linear", "of the support vector machine")
    C: float | None = option(
        None,
        "inverse strength of the SVM's penalty on the mean loss; none: chosen on the validation "
        "part, as is the number of AdaBoost's trees",
        low=1e-6,
        high=1e6,
    )
    class_weight: Literal["balanced", "none"] = option(
        "balanced", "balanced: every class weighs the same; none: every image does"
    )

    @abstractmethod
    def features(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, d), by way of `context_.cached`."""

    def recipe(self) -> Recipe:
        """Return what to make of the features."""
        balanced = self.class_weight == "balanced"
        return Recipe(self.name, kernel=self.kernel, C=self.C, balanced=balanced)

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        """Fit until convergence; what is not given is chosen by the log loss on `val`.

        Ignores the seed and the budget. Raises InputError if `train` holds fewer than two
        classes, PluginFailed if the optimiser does not converge.
        """
        self.context_ = context
        self.machine_ = fit_machine(
            self.features(train),
            train.labels,
            self.features(val),
            val.labels,
            recipe=self.recipe(),
            context=context,
        )

    def predict_proba(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, n_classes); a class that was not in training has probability 0."""
        return self.machine_.predict_proba(self.features(samples))


@dataclass(frozen=True)
class Standard:
    """Moves and scales features so that each has mean 0 and spread 1 in the rows it was made of."""

    mean: np.ndarray
    """float64 (d,)."""
    spread: np.ndarray
    """float64 (d,), > 0."""

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray) -> Standard:
        """Return the weighted mean and spread of features (N, d); weights: (N,), > 0."""
        wide = features.astype(np.float64)
        mean = weights @ wide / weights.sum()
        wide -= mean  # in place: with many rows, these are gigabytes
        np.square(wide, out=wide)
        variance = weights @ wide / weights.sum()
        return cls(mean, np.maximum(np.sqrt(variance), LEAST_SPREAD))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return float64 (N, d)."""
        moved = features - self.mean
        moved /= self.spread
        return moved


@dataclass(frozen=True)
class Machine:
    """A fitted machine with the standard of its features and the temperature of its scores."""

    model: Any
    """A fitted estimator of scikit-learn."""
    rounds: int | None
    """How many trees of AdaBoost count; None: it is no AdaBoost."""
    standard: Standard
    present: np.ndarray
    """int64 (K,), the classes that were in training, ascending."""
    n_classes: int
    temperature: float = 1.0
    """What the scores are divided by before the softmax, > 0."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 (N, K), higher where a class of `present` is likelier."""
        with one_thread():
            return _scores(self.model, self.standard(features), self.rounds)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return float32 (N, n_classes); a class that was not in training has probability 0.

        features: float32 (N, d). The order of the scores of a row is kept.
        """
        made = np.zeros((len(features), self.n_classes), np.float32)
        if len(features):
            made[:, self.present] = _softmax(self.scores(features) / self.temperature)
        return made


def fit_machine(
    features: np.ndarray,
    labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    recipe: Recipe,
    context: Context,
) -> Machine:
    """Return the machine whose probabilities have the least log loss on the validation part.

    features: float32 (N, d); labels: int64 (N,); `val_features` may be empty of any width, and
    rows of classes that were not in training are left out. Without any row the middle strength
    and temperature 1 are taken. The seed changes nothing. A loss is a mean over the rows, so plain
    copies of the training part change nothing either. Raises InputError if `labels` holds fewer
    than two classes, PluginFailed if the optimiser does not converge.
    """
    present = classes_present(labels, recipe.name, context)
    balanced = recipe.balanced and context.balance
    weights = row_weights(labels, balanced)
    known = np.isin(val_labels, present)
    with one_thread():
        standard = Standard.of(features, weights)
        fitted = list(_candidates(standard(features), labels, weights, recipe, any(known)))
    made = [Machine(model, n, standard, present, len(context.classes)) for model, n in fitted]
    if not known.any():
        return made[0]
    columns = np.searchsorted(present, val_labels[known])
    val_weights = row_weights(val_labels[known], balanced)
    tempered = [_tempered(m, val_features[known], columns, val_weights) for m in made]
    return min(tempered, key=lambda pair: pair[1])[0]


def classes_present(labels: np.ndarray, name: str, context: Context) -> np.ndarray:
    """Return int64 (K,), the classes of a training part, ascending.

    Raises InputError if there are fewer than the two that classifier `name` needs.
    """
    present = np.unique(labels)
    if len(present) > 1:
        return present
    held = f"only images of class {context.classes[present[0]]!r}" if len(present) else "no images"
    raise InputError(
        f"the training part holds {held}; {name} needs at least two classes. Ingest more images"
    )


def row_weights(labels: np.ndarray, balanced: bool) -> np.ndarray:
    """Return float64 (N,), 1 on average; `balanced`: every class has the same sum."""
    if not balanced:
        return np.ones(len(labels))
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[inverse])


def one_thread() -> AbstractContextManager[Any]:
    """Hold the linear algebra to one thread.

    The matrices are small: more threads wait for each other, ten times slower on a busy machine,
    and their number would change the last digits.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _candidates(
    standard: np.ndarray, labels: np.ndarray, weights: np.ndarray, recipe: Recipe, choose: bool
) -> Iterator[tuple[Any, int | None]]:
    """Yield fitted models with their rounds; one alone unless there is something to choose by."""
    if recipe.machine == "adaboost":
        model = _boosted(standard, labels, weights)
        rounds = sorted({min(n, len(model.estimators_)) for n in _ROUNDS})
        yield from ((model, n) for n in (rounds if choose else rounds[-1:]))
        return
    failure: PluginFailed | None = None
    n_fitted = 0
    for strength in _strengths(recipe, standard.shape[1], choose):
        try:
            yield _vectors(standard, labels, weights, recipe, strength), None
            n_fitted += 1
        except PluginFailed as error:  # a weaker penalty takes longer; the stronger may do
            failure = error
    if failure is not None and not n_fitted:
        raise failure


def _strengths(recipe: Recipe, n_features: int, choose: bool) -> tuple[float, ...]:
    """Return what `C` is tried."""
    if recipe.C is not None:
        return (recipe.C,)
    scale = _FEATURES / n_features if recipe.kernel == "linear" else 1.0
    usual = tuple(scale * strength for strength in _STRENGTHS[recipe.kernel])
    return usual if choose else usual[1:2]


def _vectors(
    standard: np.ndarray, labels: np.ndarray, weights: np.ndarray, recipe: Recipe, strength: float
) -> Any:
    """Return a fitted support vector machine. Raises PluginFailed if it does not converge."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC, LinearSVC

    penalty, longest = strength / len(labels), _MAX_ITERATIONS[recipe.kernel]
    if recipe.kernel == "linear":
        model = LinearSVC(C=penalty, dual=False, max_iter=longest)
    else:
        model = SVC(
            C=penalty,
            gamma=1 / standard.shape[1],
            max_iter=longest,
            decision_function_shape="ovo",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            return model.fit(standard, labels, sample_weight=weights)
        except ConvergenceWarning as warning:
            raise PluginFailed(
                f"{recipe.name} did not converge with C={strength:g}. "
                f"Take a smaller one: -o C={strength / 10:g}"
            ) from warning


def _boosted(standard: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Any:
    """Return fitted AdaBoost on shallow trees (SAMME, Zhu et al. 2009).

    Raises PluginFailed if all rows are the same.
    """
    from sklearn.ensemble import AdaBoostClassifier
    from sklearn.tree import DecisionTreeClassifier

    if (standard == standard[0]).all():
        raise PluginFailed(
            "the images' features are all alike: take another classifier than adaboost"
        )
    # Its seed only decides between splits that are equally good: fixed, a fit is worth one run.
    model = AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=_DEPTH), n_estimators=_ROUNDS[-1], random_state=0
    )
    return model.fit(standard, labels, sample_weight=weights)


def _scores(model: Any, standard: np.ndarray, rounds: int | None) -> np.ndarray:
    """Return float64 (N, K), from one score for two classes, K, or one for each pair of them."""
    if rounds is None:
        found = model.decision_function(standard)
    else:
        found = next(islice(model.staged_decision_function(standard), rounds - 1, None))
    n_classes = len(model.classes_)
    if found.ndim == 1:
        return np.stack([-found, found], axis=1) / 2
    if getattr(model, "decision_function_shape", "") != "ovo":
        return found
    first, second = np.triu_indices(n_classes, 1)  # the order of scikit-learn's pairs
    made = np.zeros((len(standard), n_classes))
    for pair, (a, b) in enumerate(zip(first, second, strict=True)):
        made[:, a] += found[:, pair]
        made[:, b] -= found[:, pair]
    return made / n_classes


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _tempered(
    machine: Machine, features: np.ndarray, columns: np.ndarray, weights: np.ndarray
) -> tuple[Machine, float]:
    """Return the machine at the temperature of least log loss, and this loss.

    A class of n rows aims at probability (n + 1) / (n + K), not 1 (Platt 1999): few rows, all
    on the right side, would ask for a temperature of 0.
    """
    from scipy.optimize import minimize_scalar

    scores, n_classes = machine.scores(features), len(machine.present)
    counts = np.bincount(columns, minlength=n_classes)[columns, None]
    aims = np.where(np.arange(n_classes) == columns[:, None], counts + 1, 1) / (counts + n_classes)

    def loss(log_sharpness: float) -> float:
        chances = _softmax(scores * np.exp(log_sharpness))
        surprise = -(aims * np.log(np.maximum(chances, 1e-300))).sum(axis=1)
        return float(np.average(surprise, weights=weights))

    best = minimize_scalar(loss, bounds=_LOG_SHARPNESS, method="bounded")
    return replace(machine, temperature=float(np.exp(-best.x))), float(best.fun)
