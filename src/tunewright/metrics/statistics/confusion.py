"""Which label was answered for which: the confusion matrix as plain data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

OTHER = "(other)"


class Confusion(NamedTuple):
    """`matrix[i][j]` rows whose reference is `labels[i]` were answered `labels[j]`."""

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


def label_order(references: Sequence[str], *systems: Sequence[str]) -> tuple[str, ...]:
    """The labels of the references, as people sort them (2 before 10), and `OTHER` last if a system answers anything else.

    Give every system that is to share the axes.
    """
    known = set(references)
    ordered = sorted(known, key=natural_order)
    outside = any(answer not in known for answers in systems for answer in answers)
    return (*ordered, OTHER) if outside and OTHER not in known else tuple(ordered)


def confusion(answers: Sequence[str], references: Sequence[str], labels: Sequence[str] | None = None) -> Confusion:
    """Count answers against references.

    Args:
        answers: one a row.
        references: one a row.
        labels: the order of both axes; `label_order(references, answers)` where not given. An answer that is none of them is
            counted under `OTHER`.

    Raises: ValueError when a reference, or an answer while `OTHER` is absent, has no place on the axes.
    """
    order = tuple(labels) if labels is not None else label_order(references, answers)
    place = {label: index for index, label in enumerate(order)}
    matrix = [[0] * len(order) for _ in order]
    for answer, reference in zip(answers, references, strict=True):
        row, column = place.get(reference), place.get(answer, place.get(OTHER))
        if row is None or column is None:
            raise ValueError(f"'{reference if row is None else answer}' is not among the {len(order)} labels given")
        matrix[row][column] += 1
    return Confusion(order, tuple(tuple(counts) for counts in matrix))


def natural_order(label: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts labels as people do: 2 before 10, case aside."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in re.findall(r"\d+|\D+", label)]
    return (*parts, (2, 0, label))
