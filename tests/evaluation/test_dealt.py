"""Rows dealt out over processes: every answer comes back to its place, whoever gave it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from tunewright.core.surroundings import Process
from tunewright.data.rows import PromptRow, Row
from tunewright.engine.placement import Placement
from tunewright.evaluation.dealt import Dealt
from tunewright.evaluation.task import Answer, Approach

ROWS = [PromptRow(prompt=str(number), completion="x") for number in range(7)]


class Echo(Approach):
    """Answers with the prompt, and notes what it was asked."""

    def __init__(self) -> None:
        self.name, self.asked = "echo", []

    def answer(self, rows: Sequence[Row], written: int) -> list[Answer]:
        self.asked.append((len(rows), written))
        prompts = [row.prompt for row in rows]
        return [Answer(text if place < written else None, float(text), 3) for place, text in enumerate(prompts)]


class Seat(Placement):
    """One of several processes, here threads at one table."""

    def __init__(self, rank: int, table: Barrier, said: dict[int, Any], in_step: bool = False) -> None:
        super().__init__(Process(rank, table.parties))
        self.table, self.said, self.in_step = table, said, in_step

    def gather(self, value: Any) -> list[Any]:
        self.said[self.process.rank] = json.loads(json.dumps(value))
        self.table.wait(10)
        return [self.said[rank] for rank in range(self.process.world)]

    def tell(self, value: Any) -> Any:
        return self.gather(value)[0]


def together(world: int, written: int, drawn: bool = False, in_step: bool = False) -> tuple[list[list[Answer]], list[Echo]]:
    """The answers that each process has in the end, and the approaches that were asked."""
    table, said = Barrier(world), dict[int, Any]()
    echoes = [Echo() for _ in range(world)]
    seats = [Dealt(echo, Seat(rank, table, said, in_step), drawn) for rank, echo in enumerate(echoes)]
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(lambda seat: seat.answer(ROWS, written), seats)), echoes


@pytest.mark.parametrize("world", [2, 3, 8])
@pytest.mark.parametrize("written", [0, 1, 4, 7, 200])
def test_answers_are_those_of_one_process(world: int, written: int):
    answers, echoes = together(world, written)
    assert answers == [Echo().answer(ROWS, written)] * world
    asked = [echo.asked[0] for echo in echoes]
    assert sum(rows for rows, _ in asked) == len(ROWS)
    assert sum(share for _, share in asked) == min(written, len(ROWS))


@pytest.mark.parametrize(("drawn", "in_step"), [(True, False), (False, True)])
def test_all_answer_everything_where_a_share_would_not_do(drawn: bool, in_step: bool):
    answers, echoes = together(2, 2, drawn, in_step)
    assert answers == [Echo().answer(ROWS, 2)] * 2
    assert [echo.asked for echo in echoes] == [[(7, 2)]] * 2


def test_alone_nothing_is_dealt():
    alone = Dealt(Echo(), Placement(), drawn=True)
    assert alone.name == "echo"
    assert alone.answer(ROWS, 2) == Echo().answer(ROWS, 2)
