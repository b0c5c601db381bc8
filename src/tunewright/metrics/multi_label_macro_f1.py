"""Macro F1 of sets of labels: the F1 of each label, averaged over labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewright.metrics import Metric
from tunewright.metrics._label_sets import set_tallies
from tunewright.metrics._label_tallies import macro

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class MultiLabelMacroF1(Metric):
    """The mean over labels of `2 hit / (answered + wanted)`; labels that are neither answered nor wanted take no part.

    Source: scikit-learn `f1_score(average="macro", zero_division=0)` on indicator matrices (parity tested).
    Use when all labels matter, however rare; avoid with labels of a handful of rows each: the interval is wide.
    """

    title = "Macro F1"
    task = "labels"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(np.asarray(set_tallies(answers, references).sum(axis=0)).reshape(1, -1))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> csr_array:
        return set_tallies(answers, references)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        nothing_R = sums_RK.sum(axis=1) == 0
        return np.where(nothing_R, 1.0, macro(sums_RK, "f1"))
