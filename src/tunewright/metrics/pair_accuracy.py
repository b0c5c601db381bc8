"""Pair accuracy: in how many pairs of answers the better one is put first."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from tunewright.metrics import RowMetric, check_rows


class PairAccuracy(RowMetric):
    """The share of a row's pairs of answers that stand in the right order, averaged over rows.

    An order is a JSON list, the best answer first; of k answers it has k (k - 1) / 2 pairs. A row that names one answer is a single
    pair: right where it names the reference.

    Source: for a ranking (1 + Kendall's tau) / 2, Kendall 1938 (parity with scipy tested); for pairs as in Lambert et al.,
    "RewardBench", arXiv 2403.13787.
    Use when: answers were compared or ranked; avoid when only the best of many answers will be used: ask how often it stands first
    (`exact_match` of the first).
    """

    title = "Pair accuracy"
    task = "label"

    def per_row(self, answers: Sequence[str], references: Sequence[str]) -> list[float]:
        check_rows(answers, references)
        return [_right(answer, reference) for answer, reference in zip(answers, references, strict=True)]


def _right(answer: str, reference: str) -> float:
    if answer == reference:
        return 1.0
    own, wanted = _order(answer), _order(reference)
    if len(wanted) < 2 or sorted(own) != sorted(wanted):
        return 0.0
    place = {text: number for number, text in enumerate(own)}
    pairs = list(itertools.combinations(wanted, 2))
    return sum(place[better] < place[worse] for better, worse in pairs) / len(pairs)


def _order(text: str) -> list[str]:
    """The answers of an order; empty where the text is none."""
    try:
        found = json.loads(text) if text.startswith("[") else []
    except ValueError:
        return []
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else []
