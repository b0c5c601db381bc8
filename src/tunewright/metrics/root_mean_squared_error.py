"""Root mean squared error: how far predictions are off, large errors weighing more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._numbers import numbers


class RootMeanSquaredError(Metric):
    """`sqrt(mean (prediction - target)^2)` of each target, averaged over targets.

    Source: scikit-learn `root_mean_squared_error` (parity tested).
    Use when large errors are worse than their size says; avoid when single rows are far out: take `mean_absolute_error`.
    """

    title = "Root mean squared error"
    task = "numbers"
    higher_is_better = False
    percent = False

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        answers_NK, wanted_NK = numbers(answers, references)
        return np.hstack([np.ones((len(answers), 1)), (answers_NK - wanted_NK) ** 2])

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return np.sqrt(sums_RK[:, 1:] / np.maximum(sums_RK[:, :1], 1)).mean(axis=1)
