"""Precision, recall and F1 of every label, from what was answered and what was wanted in each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from tunewright.metrics.statistics.confusion import natural_order

Item = tuple[str, Hashable]
"""A label and where it was given: nowhere in particular, at a word, over a span."""


class LabelScore(NamedTuple):
    """How one label was found: ratios with an empty denominator are 0; `count` is how often it was wanted."""

    label: str
    precision: float
    recall: float
    f1: float
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  (a tuple's own `count` is never asked)


def per_label(answered: Sequence[Iterable[Item]], wanted: Sequence[Iterable[Item]]) -> list[LabelScore]:
    """Every label that was answered or wanted, in the order in which people sort them.

    Args:
        answered, wanted: for each row its labels with their places; a hit has the same label at the same place.
    """
    hits: Counter[str] = Counter()
    given: Counter[str] = Counter()
    due: Counter[str] = Counter()
    for own, right in zip(map(set, answered), map(set, wanted), strict=True):
        hits.update(label for label, _ in own & right)
        given.update(label for label, _ in own)
        due.update(label for label, _ in right)
    return [
        LabelScore(
            label,
            hits[label] / given[label] if given[label] else 0.0,
            hits[label] / due[label] if due[label] else 0.0,
            2 * hits[label] / (given[label] + due[label]),
            due[label],
        )
        for label in sorted({*given, *due}, key=natural_order)
    ]
