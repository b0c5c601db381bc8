"""Accuracy: the share of rows with the right label."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import Metric, check_rows


class Accuracy(Metric):
    """The share of rows whose label is the reference, `sum(answer == reference) / rows`.

    Source: scikit-learn `accuracy_score` (parity tested).
    Use when the labels are about equally frequent or every row counts the same; avoid when a rare label matters most, where
    always answering the frequent one already scores high: take `macro_f1`.
    """

    title = "Accuracy"
    task = "label"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        from sklearn.metrics import accuracy_score

        check_rows(answers, references)
        return float(accuracy_score(list(references), list(answers)))

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return [float(answer == reference) for answer, reference in zip(answers, references, strict=True)]
