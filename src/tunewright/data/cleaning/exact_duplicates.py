"""Rows that are the same row again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tunewright.data.cleaning import Action, Filter, Pool, Verdict


class ExactDuplicates(Filter):
    """Equal content within one file; the first stays. (Equal rows on two sides of a split are `leakage`.)

    Source: Lee et al. 2022, Deduplicating Training Data Makes Language Models Better, https://arxiv.org/abs/2107.06499
    """

    order: ClassVar[int] = 20
    action: ClassVar[Action] = "drop"

    def judge(self, pool: Pool) -> Iterable[Verdict]:
        first: dict[tuple[str, str], int] = {}
        for index, key in enumerate(zip(pool.roles, pool.keys, strict=True)):
            earlier = first.setdefault(key, index)
            if earlier != index:
                yield Verdict(index, f"is the same as {pool.rows[earlier].where}")
