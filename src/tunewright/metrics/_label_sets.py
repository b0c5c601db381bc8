"""What the metrics of sets of labels share: answers and references as sets, and per-label counts as additive tallies.

Shape suffixes: N rows, L labels, R sets of rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunewright.metrics import check_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def label_set(text: str) -> frozenset[str]:
    """The labels of a JSON list. Text that is none, as a refused row's, holds no label."""
    try:
        value = json.loads(text)
    except ValueError:
        return frozenset()
    return frozenset(str(label) for label in value) if isinstance(value, list) else frozenset()


def label_sets(answers: Sequence[str], references: Sequence[str]) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    """Answers and references as sets. Raises `ValueError` as `check_rows` does."""
    check_rows(answers, references)
    return [label_set(text) for text in answers], [label_set(text) for text in references]


def set_tallies(answers: Sequence[str], references: Sequence[str]) -> csr_array:
    """Per row, `[hit | answered | wanted]` over all labels seen, `[N, 3L]`; see `_label_tallies.macro`."""
    from scipy.sparse import csr_array

    answered, wanted = label_sets(answers, references)
    labels = sorted(frozenset().union(*answered, *wanted)) or [""]
    column = {label: place for place, label in enumerate(labels)}
    rows: list[int] = []
    columns: list[int] = []
    for row, (own, right) in enumerate(zip(answered, wanted, strict=True)):
        for block, chosen in enumerate((own & right, own, right)):
            rows += [row] * len(chosen)
            columns += [block * len(labels) + column[label] for label in sorted(chosen)]
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(answered), 3 * len(labels)))
