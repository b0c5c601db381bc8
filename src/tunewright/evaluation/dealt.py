"""One approach on several processes: each answers a share of the rows, and all come to know all answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from tunewright.data.rows import Row
from tunewright.engine.placement import Placement
from tunewright.evaluation.task import Answer, Approach


class Dealt(Approach):
    """Answers as `approach` does, on all processes of `placement` together.

    Rows are dealt out in turn, and answers gathered. Where an answer could depend on who else is asked (drawn text), or where every
    process must make the same forward passes (divided weights), each process answers all rows and the first one's answers count.

    Args:
        drawn: whether what is said of a row depends on the others: text that is drawn at random, a loss measured from a point
            that all rows share.
    """

    def __init__(self, approach: Approach, placement: Placement, drawn: bool) -> None:
        self.approach, self.placement, self.name = approach, placement, approach.name
        self.whole = drawn or placement.in_step

    def answer(self, rows: Sequence[Row], written: int) -> list[Answer]:
        placement = self.placement
        if placement.process.world == 1:
            return self.approach.answer(rows, written)
        if self.whole:
            with placement.guarded(), placement.readable():
                found = self.approach.answer(rows, written)
            return [Answer(*values) for values in placement.tell([astuple(answer) for answer in found])]
        rank, world = placement.process.rank, placement.process.world
        mine = range(rank, len(rows), world)
        # The first `written` rows are written; of a share these are its own first ones.
        found = self.approach.answer([rows[index] for index in mine], sum(index < written for index in mine))
        hands = placement.gather([astuple(answer) for answer in found])
        return [Answer(*hands[index % world][index // world]) for index in range(len(rows))]
