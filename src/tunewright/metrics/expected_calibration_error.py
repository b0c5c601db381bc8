"""Expected calibration error: how far a model's confidence is from how often it is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._probabilities import judgements

BINS = 15


class ExpectedCalibrationError(Metric):
    """`sum over bins of |share right - mean confidence| x share of judgements`, in 15 bins of equal width.

    Of two answers the confidence is the probability of the one that is preferred, so it lies between one half and one; of a
    ranking all pairs are judged. Rows that are few make it too large, because the share right in a bin of few rows is far from
    what it should be by chance: below some hundred judgements take `brier_score`.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599 (parity with its definition tested).
    Use when: probabilities are to be believed: a policy is trained on them, or uncertain rows go to people; avoid when only the
    order counts.
    """

    title = "Expected calibration error"
    task = "probabilities"
    higher_is_better = False

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """Per row and bin how much more often right than sure, and the judgements of the row, `[N, B + 1]`."""
        sure_J, right_J, row_J = judgements(answers, references)
        bin_J = np.minimum((sure_J * BINS).astype(int), BINS - 1)
        table = np.zeros((len(references), BINS + 1))
        np.add.at(table, (row_J, bin_J), right_J - sure_J)
        table[:, BINS] = np.bincount(row_J, minlength=len(references))
        return table

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return np.abs(sums_RK[:, :BINS]).sum(axis=1) / np.maximum(sums_RK[:, BINS], 1)
