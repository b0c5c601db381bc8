"""ROUGE-1: the words an answer shares with its reference."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric
from tunewright.metrics._rouge_rows import rouge_rows


class Rouge1(RowMetric):
    """The mean over rows of the F measure of single words shared.

    As `rouge-score` counts it, without stemming; letters outside ASCII are kept (its default drops them).

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries".
    Cost: linear in the words.
    Use when the content of a summary matters; avoid as the only judge of fluent text: word order does not count.
    """

    title = "ROUGE-1"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return rouge_rows("rouge1", answers, references)
