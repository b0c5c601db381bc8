"""Exact match: the share of answers that are the reference, character for character."""

from __future__ import annotations

from collections.abc import Sequence

from tunewright.metrics import RowMetric, check_rows


class ExactMatch(RowMetric):
    """The share of answers equal to their reference after trimming the space around both.

    Nothing else is forgiven: case, punctuation and inner space count, because in code, numbers and JSON they carry the meaning
    (`-5` is not `5`). `token_f1` forgives them as SQuAD does.

    Use when there is one right way to write the answer; avoid for free text.
    """

    title = "Exact match"
    task = "text"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        check_rows(answers, references)
        return [float(answer.strip() == reference.strip()) for answer, reference in zip(answers, references, strict=True)]
