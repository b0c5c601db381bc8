"""R2: the share of the targets' variance that predictions explain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._numbers import moments, numbers


class R2(Metric):
    """`1 - sum (target - prediction)^2 / sum (target - mean target)^2`, averaged over targets; below 0 is worse than the mean.

    Where all targets are the same it is 1 for right predictions and 0 for others.

    Source: scikit-learn `r2_score` (parity tested).
    Use for how much of the differences between rows is predicted; avoid to compare sets of rows that spread differently.
    """

    title = "R2 (variance explained)"
    task = "numbers"
    percent = False

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return moments(*numbers(answers, references))

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        n, _, y, _, yy, _, off = np.split(sums_RK, 7, axis=1)
        spread = yy - y * y / np.maximum(n, 1)
        varied = spread > 1e-12 * np.maximum(yy, 1e-300)
        return np.where(varied, 1 - off / np.where(varied, spread, 1.0), (off == 0).astype(float)).mean(axis=1)
