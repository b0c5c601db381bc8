"""Rankings: a prompt and several answers, in the order in which somebody put them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.data.rows import RankingRow
from tunewright.data.shapes import RowProblem, Shape, rest
from tunewright.data.shapes._answers import ANSWERS, PROMPTS, answers_at, inside, keys_of, listed, number, prompt_at
from tunewright.data.shapes._messages import tools_of
from tunewright.data.sources import Record

_RANKS = ("ranks", "ranking", "rank")
_RATED = ("scores", "ratings", "score", "rating")


class Ranking(Shape):
    """A prompt with several answers: the best one first, or in any order with `ranks` (1 is the best).

    A rank may also stand inside each answer (`{"answer": ..., "rank": 2}`). Two answers of one rank, and one answer alone, make
    the row unusable: they put no order. In a table, lists are JSON text.

    Source: Ouyang et al., "InstructGPT", arXiv 2203.02155, section 3.4 (4 to 9 answers a prompt, ranked); Zhu et al. 2023,
    "Starling", whose Nectar holds ranks inside the answers.
    """

    title: ClassVar[str] = "answers in an order"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (
        *keys_of(_RANKS),
        *((prompt, answers) for answers in ANSWERS for prompt in PROMPTS),
    )
    optional: ClassVar[tuple[str, ...]] = ("tools",)
    suggested: ClassVar[bool] = False

    def matches(self, record: Mapping[str, Any]) -> bool:
        found = self.uses(record)
        if not found or not listed(record[found[1]]) or inside(record[found[1]], _RATED):
            return False
        # Beside numbers that rate, answers stand in no order of their own.
        return found[2:3] in {(name,) for name in _RANKS} or not any(name in record for name in _RATED)

    def row(self, record: Record) -> RankingRow:
        used = self.used(record)
        given = answers_at(record, [name for name in used if name != "tools"], _RANKS)
        answers = given.texts
        if given.numbers is not None:
            if len(given.numbers) != len(answers):
                raise RowProblem("uneven", f"{len(given.numbers)} of the {len(answers)} answers have a rank")
            ranks = [number(one, given.column) for one in given.numbers]
            tied = next((one for one in ranks if ranks.count(one) > 1), None)
            if tied is not None:
                raise RowProblem("tie", f"'{given.column}' gives two answers the rank {tied:g}: they stand in no order")
            answers = tuple(answers[place] for place in sorted(range(len(answers)), key=ranks.__getitem__))
        return RankingRow(
            messages=prompt_at(record, used[0]),
            answers=answers,
            tools=tools_of(record.value.get("tools")),
            where=record.where,
            metadata=rest(record, used),
        )
