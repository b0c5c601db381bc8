"""ROUGE-L: the longest common subsequence of an answer and its reference."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric
from tunewright.metrics._rouge_rows import rouge_rows


class RougeL(RowMetric):
    """The mean over rows of the F measure of the longest common subsequence of words.

    As `rouge-score` counts it, without stemming; letters outside ASCII are kept (its default drops them).

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries".
    Cost: words of the answer x words of the reference, in Python: about 1 s for 1,000 rows of 60 words.
    Use for one-paragraph summaries; line breaks are not treated apart (that variant is ROUGE-Lsum).
    """

    title = "ROUGE-L"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        return rouge_rows("rougeL", answers, references)
