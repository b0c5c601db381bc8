"""Token accuracy: the share of words with the right tag."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunewright.metrics import Metric, check_rows


class TokenAccuracy(Metric):
    """Words whose tag is the reference's, of all words of all rows; a word without an answer is wrong.

    Use for parts of speech; avoid for named entities, where most words are outside and answering so is mostly right: take
    `entity_f1`.
    """

    title = "Token accuracy"
    task = "tags"

    def measure(self, answers: Sequence[str], references: Sequence[str]) -> float:
        return float(self.from_tallies(self.tallies(answers, references).sum(axis=0, keepdims=True))[0])

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
        check_rows(answers, references)
        pairs = [(one.split(), other.split()) for one, other in zip(answers, references, strict=True)]
        return np.array([(sum(a == b for a, b in zip(own, right, strict=False)), len(right)) for own, right in pairs], dtype=float)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return np.divide(sums_RK[:, 0], sums_RK[:, 1], out=np.zeros(len(sums_RK)), where=sums_RK[:, 1] > 0)
