"""Hamming loss: the share of wrong decisions, label by label."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric
from tunewright.metrics._label_sets import label_sets


class HammingLoss(RowMetric):
    """The mean over rows of the labels that are missing or too many, divided by the number of labels there are.

    The labels that there are, are those of any answer or reference.

    Source: scikit-learn `hamming_loss` on indicator matrices (parity tested).
    Use when every decision about a label costs the same; avoid with many labels of which few hold: answering none is then
    already nearly right.
    """

    title = "Hamming loss"
    task = "labels"
    higher_is_better = False

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        answered, wanted = label_sets(answers, references)
        labels = max(1, len(frozenset().union(*answered, *wanted)))
        return [len(own ^ right) / labels for own, right in zip(answered, wanted, strict=True)]
