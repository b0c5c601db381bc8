"""Mean absolute error: how far predictions are off, in the unit of the target."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric
from tunewright.metrics._numbers import numbers


class MeanAbsoluteError(RowMetric):
    """The mean of `|prediction - target|` over rows (and targets).

    Source: scikit-learn `mean_absolute_error` (parity tested).
    Use when an error twice as large is twice as bad; avoid when large errors must not happen: take `root_mean_squared_error`.
    """

    title = "Mean absolute error"
    task = "numbers"
    higher_is_better = False
    percent = False

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        answers_NK, wanted_NK = numbers(answers, references)
        return abs(answers_NK - wanted_NK).mean(axis=1).tolist()
