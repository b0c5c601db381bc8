"""Macro precision: how often a label, when given, is right, averaged over labels."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import check_rows
from tunewright.metrics._label_tallies import MacroMetric


class MacroPrecision(MacroMetric):
    """The mean over labels of `hit / answered`; a label that is never answered has 0.

    Every label counts the same, however rare. Labels are all that occur in answers or references, so every wrong word a
    generator invents would count as a label of its own: map answers outside the label set to one word first.

    Source: scikit-learn `precision_score(average="macro", zero_division=0)` (parity tested).
    Use when a wrong label costs more than a missed one; avoid alone: answering a label once, rightly, scores 1.
    """

    title = "Macro precision"
    part = "precision"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        from sklearn.metrics import precision_score

        check_rows(answers, references)
        return float(precision_score(list(references), list(answers), average="macro", zero_division=0))
