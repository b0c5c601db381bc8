"""Brier score: the squared distance between a probability and what happened."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._probabilities import judgements


class BrierScore(Metric):
    """`mean (probability - happened)^2`; 0 is best, 0.25 is what saying "one half" to everything gets.

    It falls with calibration and with telling cases apart. Of two answers the probability is that of the right order; of a ranking
    all pairs count.

    Source: Brier 1950; scikit-learn `brier_score_loss` (parity tested).
    Use when: probabilities are to be believed and to be sharp; avoid when only the order counts: take `pair_accuracy`.
    """

    title = "Brier score"
    task = "probabilities"
    higher_is_better = False
    percent = False

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        sure_J, right_J, row_J = judgements(answers, references)
        count = len(references)
        errors_N = np.bincount(row_J, (sure_J - right_J) ** 2, minlength=count)
        return np.stack([errors_N, np.bincount(row_J, minlength=count)], axis=1)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return sums_RK[:, 0] / np.maximum(sums_RK[:, 1], 1)
