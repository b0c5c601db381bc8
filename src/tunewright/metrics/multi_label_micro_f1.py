"""Micro F1 of sets of labels: every label of every row counts the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._label_sets import label_sets


class MultiLabelMicroF1(Metric):
    """`2 hit / (answered + wanted)` over all labels of all rows; 1 where no label is wanted and none is answered.

    Source: scikit-learn `f1_score(average="micro", zero_division=1)` on indicator matrices (parity tested).
    Use when frequent labels matter most; avoid when rare labels matter as much: take `multi_label_macro_f1`.
    """

    title = "Micro F1"
    task = "labels"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        pairs = zip(*label_sets(answers, references), strict=True)
        return np.array([(len(own & right), len(own) + len(right)) for own, right in pairs], dtype=float)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return np.divide(2 * sums_RK[:, 0], sums_RK[:, 1], out=np.ones(len(sums_RK)), where=sums_RK[:, 1] > 0)
