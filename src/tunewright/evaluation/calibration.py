"""Whether probabilities can be believed: what answers claim, and whether it was so, for the metrics of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tunewright.data.rows import Row
from tunewright.evaluation.report.schema import Measure
from tunewright.evaluation.task import Answer
from tunewright.metrics import Metric
from tunewright.metrics.statistics.intervals import score
from tunewright.metrics.statistics.paired import compare

PROBABILITIES = "probabilities"
"""The task of metrics that are given what this module finds, in place of answers and references."""


class Claims(NamedTuple):
    """For each row its probabilities and whether what they are of was so (1 or 0), as metrics take them."""

    said: list[str]
    happened: list[str]


def claims(answers: Sequence[Answer], rows: Sequence[Row], of: Sequence[int] | None = None) -> Claims:
    """What the answers claim: of answers that were compared, for each pair the probability of its order; else of the answer given.

    Args:
        of: the places of the rows to take, each of which must claim something; all that do when not given.
    """
    places = claiming(answers) if of is None else of
    found = [_claim(answers[place], rows[place]) for place in places]
    return Claims([said for said, _ in found], [happened for _, happened in found])


def claiming(answers: Sequence[Answer]) -> list[int]:
    """The places of the answers that come with a probability."""
    return [place for place, answer in enumerate(answers) if answer.confidence is not None]


def _claim(answer: Answer, row: Row) -> tuple[str, str]:
    pairs = answer.details.get("pairs")
    if pairs:  # rows hold their answers in the right order
        return " ".join(map(repr, pairs)), " ".join("1" for _ in pairs)
    return repr(answer.confidence), str(int(answer.text == row.target_text()))


def calibrated(
    name: str, metric: Metric, sides: tuple[Sequence[Answer] | None, Sequence[Answer]], rows: Sequence[Row], seed: int, split: str
) -> Measure | None:
    """A metric of probabilities as a measure; None where no answer comes with one.

    Args:
        sides: what base and tuned model answered. A base that gives no probabilities (a coin) is not compared.
    """
    before, after = sides
    known = claiming(after)
    if not known:
        return None
    own = claims(after, rows, known)
    lacking = before is None or not set(known) <= set(claiming(before))
    other = None if before is None or lacking else claims(before, rows, known)
    comparable = other is not None and other.happened == own.happened
    return Measure(
        metric=name,
        title=metric.title,
        split=split,
        base=None if other is None else score(metric, *other, seed),
        tuned=score(metric, *own, seed),
        difference=compare(metric, other.said, own.said, own.happened, seed) if other is not None and comparable else None,
        higher_is_better=metric.higher_is_better,
        percent=metric.percent,
    )
