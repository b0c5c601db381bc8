"""Rows to learn from that also stand among those to measure with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tunewright.data.cleaning import Action, Filter, Pool, Verdict

_HELD = {"validation": 1, "test": 2}


class Leakage(Filter):
    """Inputs of the training file that equal, or nearly equal, one of a validation or test file that the user gave.

    The training row is dropped, so that the test stays what it was. Between validation and test, the validation row is: it
    decides when training stops. (Splits made here cannot leak: equal rows are kept on one side.)
    """

    order: ClassVar[int] = 50
    action: ClassVar[Action] = "drop"
    roles: ClassVar[tuple[str, ...]] = ("train", "validation")

    def judge(self, pool: Pool) -> Iterable[Verdict]:
        if len(set(pool.roles)) < 2:
            return
        holder: dict[int, int] = {}
        for index, (role, side) in enumerate(zip(pool.roles, pool.sides, strict=True)):
            held = holder.get(side)
            if held is None or _HELD.get(role, 0) > _HELD.get(pool.roles[held], 0):
                holder[side] = index
        for index, (role, side) in enumerate(zip(pool.roles, pool.sides, strict=True)):
            held = holder[side]
            if _HELD.get(role, 0) < _HELD.get(pool.roles[held], 0):
                how = "equals" if pool.inputs[index] == pool.inputs[held] else "nearly equals"
                yield Verdict(index, f"its input {how} that of {pool.rows[held].where}, a row of the {pool.roles[held]} split")
