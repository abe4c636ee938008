"""Logistic regression on hand-made features: seconds where a network takes hours."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from augkit.descriptors import LEAST_SPREAD, describe
from augkit.errors import InputError, PluginFailed
from augkit.interfaces import Classifier, Context, Samples
from augkit.options import option

_KEY = "linear-features-1"
_GRID = (0.1, 1.0, 10.0)
_MAX_ITERATIONS = 5000


@dataclass
class Linear(Classifier):
    """Multinomial logistic regression on gradients, grey levels and texture.

    The loss is averaged over the rows, not summed as in scikit-learn, so `C` means the same for
    any number of rows and plain copies of the data change nothing. The classes weigh the same by
    default, also when the features are standardised: balanced accuracy is what is judged, and an
    augmentation that only equalises the classes must not look like one that helps. The price:
    the probabilities are those of equally frequent classes. With `class_weight=none` they
    are those of the training part.
    """

    name = "linear"
    family = "linear"
    deterministic = True
    fast = True

    C: float | None = option(
        None,
        "inverse strength of the L2 penalty on the mean loss; none: chosen on the validation part",
        low=1e-6,
        high=1e6,
    )
    class_weight: Literal["balanced", "none"] = option(
        "balanced", "balanced: every class weighs the same; none: every image does"
    )

    def fit(self, train: Samples, val: Samples, context: Context) -> None:
        """Fit until convergence; without `C`, keep the C of least log loss on `val`.

        Ignores the seed and the budget. Raises InputError if `train` holds fewer than two
        classes, PluginFailed if the optimiser does not converge.
        """
        labels = train.labels
        self.context_ = context
        self.present_ = np.unique(labels)
        if len(self.present_) < 2:
            raise InputError(_too_few(self.present_, context.classes))
        features = context.cached(_KEY, describe, train)
        weights = self._weights(labels)
        with _one_thread():
            self._standardise(features, weights)
            standard = (features - self.mean_) / self.spread_
            fitted = [self._regression(standard, labels, weights, c) for c in self._candidates(val)]
        losses = [self._loss(model, val) for model in fitted] if len(fitted) > 1 else [0.0]
        self.model_ = fitted[int(np.argmin(losses))]

    def predict_proba(self, samples: Samples) -> np.ndarray:
        """Return float32 (N, n_classes); a class that was not in training has probability 0."""
        made = np.zeros((len(samples), len(self.context_.classes)), np.float32)
        if len(samples):
            made[:, self.present_] = self._predict(self.model_, samples)
        return made

    def _weights(self, labels: np.ndarray) -> np.ndarray:
        """Return float64 (N,), the weight of each row, 1 on average."""
        if self.class_weight == "none":
            return np.ones(len(labels))
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        return len(labels) / (len(counts) * counts[inverse])

    def _standardise(self, features: np.ndarray, weights: np.ndarray) -> None:
        wide = features.astype(np.float64)  # (N, d)
        self.mean_ = weights @ wide / weights.sum()
        variance = weights @ np.square(wide - self.mean_) / weights.sum()
        self.spread_ = np.maximum(np.sqrt(variance), LEAST_SPREAD)

    def _candidates(self, val: Samples) -> tuple[float, ...]:
        if self.C is not None:
            return (self.C,)
        return _GRID if np.isin(val.labels, self.present_).any() else (1.0,)

    def _regression(
        self, standard: np.ndarray, labels: np.ndarray, weights: np.ndarray, strength: float
    ) -> Any:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=strength / len(labels), tol=1e-4, max_iter=_MAX_ITERATIONS)
        failure: Warning | None = None
        for precision in (np.float32, np.float64):  # the first is several times faster
            with warnings.catch_warnings():
                warnings.simplefilter("error", ConvergenceWarning)
                try:
                    return model.fit(standard.astype(precision), labels, sample_weight=weights)
                except ConvergenceWarning as warning:
                    failure = warning
        raise PluginFailed(
            f"linear did not converge with C={strength:g}. "
            f"Take a smaller one: -o C={strength / 10:g}"
        ) from failure

    def _predict(self, model: Any, samples: Samples) -> np.ndarray:
        """Return float64 (N, classes present in training)."""
        features = self.context_.cached(_KEY, describe, samples)
        with _one_thread():
            return model.predict_proba((features - self.mean_) / self.spread_)

    def _loss(self, model: Any, val: Samples) -> float:
        """Return the mean log loss on the validation rows whose class was in training."""
        known = np.isin(val.labels, self.present_)
        column = np.searchsorted(self.present_, val.labels[known])
        chances = self._predict(model, val)[known, column]
        weights = self._weights(val.labels[known])
        return float(np.average(-np.log(np.maximum(chances, 1e-12)), weights=weights))


def _one_thread() -> AbstractContextManager[Any]:
    """Hold the linear algebra to one thread.

    The matrices are small: more threads wait for each other, ten times slower on a busy machine,
    and their number would change the last digits.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _too_few(present: np.ndarray, classes: tuple[str, ...]) -> str:
    held = f"only images of class {classes[present[0]]!r}" if len(present) else "no images"
    return f"the training part holds {held}; linear needs at least two classes. Ingest more images"
