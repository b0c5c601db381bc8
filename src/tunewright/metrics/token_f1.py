"""Token F1: how many words answer and reference share, as SQuAD counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tunewright.metrics import RowMetric, check_rows
from tunewright.metrics._squad_words import squad_words


class TokenF1(RowMetric):
    """The mean over rows of `2 shared / (words of the answer + words of the reference)`.

    Words are taken as SQuAD's evaluation takes them: lower case, without punctuation and without the articles a, an, the.
    Where one side has no words left, the value is 1 if the other has none either, else 0. Where a row has several accepted
    answers, the best one counts.

    Source: Rajpurkar et al. 2016, "SQuAD" (evaluation script 2.0).
    Use when answers are short phrases; avoid for languages written without spaces: take `chrf`.
    """

    title = "Token F1"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        check_rows(answers, references)
        return [_shared(squad_words(answer), squad_words(reference)) for answer, reference in zip(answers, references, strict=True)]


def _shared(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    return 2 * (Counter(answer) & Counter(reference)).total() / (len(answer) + len(reference))
