"""What the macro averages share: per-label counts as additive tallies (the underscore keeps this file out of the room).

Shape suffixes: N rows, L labels, R sets of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from tunewright.metrics import Metric

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Part = Literal["precision", "recall", "f1"]


class MacroMetric(Metric):
    """The abstract macro average: `part` says of what; a subclass measures it through scikit-learn."""

    task = "label"
    part: ClassVar[Part]

    def tallies(self, answers: Sequence[str], references: Sequence[str]) -> csr_array:
        return label_tallies(answers, references)

    def from_tallies(self, sums_RK: np.ndarray) -> np.ndarray:
        return macro(sums_RK, self.part)


def label_tallies(answers: Sequence[str], references: Sequence[str]) -> csr_array:
    """Per row, one-hot `[hit | answered | wanted]` over all labels seen, `[N, 3L]`.

    Sparse, because a base that answers in free words brings a new "label" with nearly every row.
    """
    from scipy.sparse import csr_array

    labels = {label: column for column, label in enumerate(sorted({*answers, *references}))}
    answered_N = np.array([labels[answer] for answer in answers])
    wanted_N = np.array([labels[reference] for reference in references])
    hits = np.flatnonzero(answered_N == wanted_N)
    everyone = np.arange(len(answered_N))
    rows = np.concatenate([hits, everyone, everyone])
    columns = np.concatenate([answered_N[hits], len(labels) + answered_N, 2 * len(labels) + wanted_N])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(answered_N), 3 * len(labels)))


def macro(sums: np.ndarray, part: Part) -> np.ndarray:
    """The macro average of `part` from `[R, 3L]` sums, `[R]`.

    As scikit-learn counts: labels that are neither answered nor wanted in a set of rows do not take part in its average, and a
    ratio with an empty denominator is 0.
    """
    hit_RL, answered_RL, wanted_RL = np.split(sums, 3, axis=1)
    present_RL = answered_RL + wanted_RL > 0
    upper_RL, lower_RL = {
        "precision": (hit_RL, answered_RL),
        "recall": (hit_RL, wanted_RL),
        "f1": (2 * hit_RL, answered_RL + wanted_RL),
    }[part]
    ratio_RL = np.divide(upper_RL, lower_RL, out=np.zeros_like(upper_RL), where=lower_RL > 0)
    return ratio_RL.sum(axis=1) / np.maximum(present_RL.sum(axis=1), 1)
