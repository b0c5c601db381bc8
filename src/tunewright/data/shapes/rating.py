"""Ratings: a prompt and several answers, each with a number that somebody gave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.data.rows import RatingRow
from tunewright.data.shapes import RowProblem, Shape, rest
from tunewright.data.shapes._answers import ANSWERS, ASKED, answers_at, inside, keys_of, listed, number, prompt_at
from tunewright.data.shapes._messages import tools_of
from tunewright.data.sources import Record

_SCORES = ("scores", "ratings")
_INSIDE = ("score", "rating", "overall_score")


class Rating(Shape):
    """A prompt with several answers and a number for each, `scores` or `ratings`: more is better.

    The number may also stand inside each answer (`{"response": ..., "score": 4}`). Answers with equal numbers are not compared
    with each other; where all are equal nothing is preferred, and the row cannot be used. In a table, lists are JSON text.

    Source: Cui et al., "UltraFeedback", arXiv 2310.01377.
    """

    title: ClassVar[str] = "answers with a number each"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = keys_of(_SCORES)
    optional: ClassVar[tuple[str, ...]] = ("tools",)
    suggested: ClassVar[bool] = False

    def uses(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        within = ((prompt, answers) for answers in ANSWERS for prompt in ASKED if prompt in record and answers in record)
        found = super().uses(record) or next((pair for pair in within if inside(record[pair[1]], _INSIDE)), ())
        return (*found, "tools") if len(found) == 2 and "tools" in record else found

    def matches(self, record: Mapping[str, Any]) -> bool:
        found = self.uses(record)
        return bool(found) and listed(record[found[1]])

    def row(self, record: Record) -> RatingRow:
        used = self.used(record)
        given = answers_at(record, [name for name in used if name != "tools"], _INSIDE)
        scores = [number(one, given.column) for one in given.numbers or ()]
        if len(set(scores)) == 1:
            raise RowProblem("tie", f"'{given.column}' gives every answer {scores[0]:g}: none is preferred")
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        return RatingRow(
            messages=prompt_at(record, used[0]),
            answers=tuple(given.texts[place] for place in order),
            scores=tuple(scores[place] for place in order),
            tools=tools_of(record.value.get("tools")),
            where=record.where,
            metadata=rest(record, used),
        )
