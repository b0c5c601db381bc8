"""Exact match as SQuAD counts it: the share of answers with the words of the reference."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric, check_rows
from tunewright.metrics._squad_words import squad_words


class SquadExactMatch(RowMetric):
    """The share of answers that are the reference after SQuAD's normalisation: case, punctuation, articles and spacing aside.

    Where a row has several accepted answers, the best one counts.

    Source: Rajpurkar et al. 2016, "SQuAD" (evaluation script 2.0).
    Use for short answers in words; avoid where every character counts: take `exact_match`.
    """

    title = "Exact match (SQuAD)"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        check_rows(answers, references)
        return [float(squad_words(answer) == squad_words(reference)) for answer, reference in zip(answers, references, strict=True)]
