"""Logistic regression on hand-made features: seconds where a network takes hours."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from augkit.descriptors import describe
from augkit.errors import PluginFailed
from augkit.interfaces import Classifier, Context, Samples
from augkit.options import option
from augkit_classifiers.machines import Standard, classes_present, one_thread, row_weights

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
        self.present_ = classes_present(labels, self.name, context)
        features = context.cached(_KEY, describe, train)
        weights = self._weights(labels)
        with one_thread():
            self.standard_ = Standard.of(features, weights)
            standard = self.standard_(features)
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
        balanced = self.class_weight == "balanced" and self.context_.balance
        return row_weights(labels, balanced)

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
                    return model.fit(
                        standard.astype(precision, copy=False), labels, sample_weight=weights
                    )
                except ConvergenceWarning as warning:
                    failure = warning
        raise PluginFailed(
            f"linear did not converge with C={strength:g}. "
            f"Take a smaller one: -o C={strength / 10:g}"
        ) from failure

    def _predict(self, model: Any, samples: Samples) -> np.ndarray:
        """Return float64 (N, classes present in training)."""
        features = self.context_.cached(_KEY, describe, samples)
        with one_thread():
            return model.predict_proba(self.standard_(features))

    def _loss(self, model: Any, val: Samples) -> float:
        """Return the mean log loss on the validation rows whose class was in training."""
        known = np.isin(val.labels, self.present_)
        column = np.searchsorted(self.present_, val.labels[known])
        chances = self._predict(model, val)[known, column]
        weights = self._weights(val.labels[known])
        return float(np.average(-np.log(np.maximum(chances, 1e-12)), weights=weights))
