"""Token F1: how many words answer and reference share, as SQuAD counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from tunewright.metrics import RowMetric, check_rows

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class TokenF1(RowMetric):
    """The mean over rows of `2 shared / (words of the answer + words of the reference)`.

    Words are taken as SQuAD's evaluation takes them: lower case, without punctuation and without the articles a, an, the.
    Where one side has no words left, the value is 1 if the other has none either, else 0.

    Source: Rajpurkar et al. 2016, "SQuAD" (evaluation script 2.0).
    Use when answers are short phrases; avoid for languages written without spaces: take `chrf`.
    """

    title = "Token F1"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        check_rows(answers, references)
        return [_shared(_words(answer), _words(reference)) for answer, reference in zip(answers, references, strict=True)]


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def _shared(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    return 2 * (Counter(answer) & Counter(reference)).total() / (len(answer) + len(reference))
