"""ROUGE-2: the word pairs an answer shares with its reference."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric
from tunewright.metrics._rouge_rows import rouge_rows


class Rouge2(RowMetric):
    """The mean over rows of the F measure of pairs of neighbouring words shared.

    As `rouge-score` counts it, without stemming; letters outside ASCII are kept (its default drops them).

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries".
    Cost: linear in the words.
    Use for summaries, with ROUGE-1 and ROUGE-L; avoid for answers of one word, which have no pair and score 0.
    """

    title = "ROUGE-2"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return rouge_rows("rouge2", answers, references)
