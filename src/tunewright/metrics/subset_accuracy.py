"""Subset accuracy: the share of rows whose labels are all right."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric
from tunewright.metrics._label_sets import label_sets


class SubsetAccuracy(RowMetric):
    """The share of rows whose set of labels is the reference's, no label more and none less.

    Source: scikit-learn `accuracy_score` on indicator matrices (parity tested).
    Use when a set is of use only whole; avoid with many labels a row, where sets are seldom whole: take `multi_label_micro_f1`.
    """

    title = "Subset accuracy"
    task = "labels"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return [float(own == right) for own, right in zip(*label_sets(answers, references), strict=True)]
