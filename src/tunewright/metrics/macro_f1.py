"""Macro F1: the F1 of each label, averaged over labels."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import check_rows
from tunewright.metrics._label_tallies import MacroMetric


class MacroF1(MacroMetric):
    """The mean over labels of `2 hit / (answered + wanted)`; a label that is never answered rightly has 0.

    Every label counts the same, however rare. Labels are all that occur in answers or references, so every wrong word a
    generator invents would count as a label of its own: map answers outside the label set to one word first.

    Source: scikit-learn `f1_score(average="macro", zero_division=0)` (parity tested).
    Use when labels are unequally frequent and all matter; avoid with labels of a handful of rows each: the interval is wide.
    """

    title = "Macro F1"
    part = "f1"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        from sklearn.metrics import f1_score

        check_rows(answers, references)
        return float(f1_score(list(references), list(answers), average="macro", zero_division=0))
