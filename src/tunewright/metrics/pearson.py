"""Pearson's correlation: how nearly predictions and targets lie on a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._numbers import correlation, moments, numbers


class Pearson(Metric):
    """`cov(prediction, target) / (std prediction * std target)`, averaged over targets; 0 where one side is constant.

    Source: scipy `pearsonr` (parity tested).
    Use when the order and the spacing matter but not the scale; avoid when predictions are used as they are: take `r2`.
    """

    title = "Pearson correlation"
    task = "numbers"
    percent = False

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return moments(*numbers(answers, references))

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return correlation(sums_RK)
