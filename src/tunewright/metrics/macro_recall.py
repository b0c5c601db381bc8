"""Macro recall: how many rows of a label are found, averaged over labels."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import check_rows
from tunewright.metrics._label_tallies import MacroMetric


class MacroRecall(MacroMetric):
    """The mean over labels of `hit / wanted`; a label that is never wanted has 0.

    Every label counts the same, however rare. Labels are all that occur in answers or references, so every wrong word a
    generator invents would count as a label of its own: map answers outside the label set to one word first.

    Source: scikit-learn `recall_score(average="macro", zero_division=0)` (parity tested).
    Use when a missed label costs more than a wrong one. It is the balanced accuracy, unless labels outside the references are
    answered.
    """

    title = "Macro recall"
    part = "recall"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        from sklearn.metrics import recall_score

        check_rows(answers, references)
        return float(recall_score(list(references), list(answers), average="macro", zero_division=0))
