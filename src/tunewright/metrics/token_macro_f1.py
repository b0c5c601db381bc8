"""Macro F1 of tags: the F1 of each tag over words, averaged over tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewright.metrics import Metric, check_rows
from tunewright.metrics._label_tallies import label_tallies, macro

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MISSING = ""  # stands for the tag of a word that has no answer


class TokenMacroF1(Metric):
    """The mean over tags of `2 hit / (answered + wanted)`, counted in words; every tag counts the same, however rare.

    Source: scikit-learn `f1_score(average="macro", zero_division=0)` over words (parity tested).
    Use when rare tags matter as much as frequent ones; avoid for named entities: take `entity_f1`.
    """

    title = "Tag macro F1"
    task = "tags"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(np.asarray(self.tallies(answers, references).sum(axis=0)).reshape(1, -1))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> csr_array:
        from scipy.sparse import csr_array

        check_rows(answers, references)
        wanted = [text.split() for text in references]
        given = [[*text.split(), *[MISSING] * len(own)][: len(own)] for text, own in zip(answers, wanted, strict=True)]
        owners = [row for row, own in enumerate(wanted) for _ in own]
        words = label_tallies([tag for own in given for tag in own], [tag for own in wanted for tag in own])
        rows_of_words = csr_array((np.ones(len(owners)), (owners, range(len(owners)))), shape=(len(wanted), len(owners)))
        return csr_array(rows_of_words @ words)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return macro(sums_RK, "f1")
