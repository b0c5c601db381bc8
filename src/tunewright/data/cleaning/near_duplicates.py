"""Rows that are nearly the same row again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tunewright.data.cleaning import Action, Filter, Pool, Verdict


class NearDuplicates(Filter):
    """Inputs of one file with a Jaccard similarity of shingles above the pool's; found with MinHash.

    They are reported and kept on one side of a split by default: paraphrases are often wanted. Rows with equal inputs and other
    answers are not counted here.
    """

    order: ClassVar[int] = 60
    action: ClassVar[Action] = "report"

    def judge(self, pool: Pool) -> Iterable[Verdict]:
        if not pool.similarity:
            return
        first: dict[tuple[str, int], int] = {}
        seen: set[tuple[str, str]] = set()
        for index, (role, side) in enumerate(zip(pool.roles, pool.sides, strict=True)):
            earlier = first.setdefault((role, side), index)
            text = (role, pool.inputs[index])
            if earlier != index and text not in seen:
                yield Verdict(index, f"is nearly the same as {pool.rows[earlier].where}")
            seen.add(text)
