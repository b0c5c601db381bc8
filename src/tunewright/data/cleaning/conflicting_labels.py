"""The same input with different answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

from tunewright.data.cleaning import Action, Filter, Pool, Verdict
from tunewright.data.rows import JudgedRow, PreferenceRow, RankingRow, TextRow


class ConflictingLabels(Filter):
    """Rows of one file with equal inputs and different labels or answers; for preferences, the same pair the other way round.

    For labels this is mostly a mistake; for free answers it is often meant. So it is reported. When dropping is asked for, the
    most frequent answer of each input stays (none, where two are equally frequent).
    """

    order: ClassVar[int] = 30
    action: ClassVar[Action] = "report"

    def judge(self, pool: Pool) -> Iterable[Verdict]:
        same: dict[tuple[str, str], list[int]] = {}
        for index, (role, row) in enumerate(zip(pool.roles, pool.rows, strict=True)):
            if not isinstance(row, TextRow):
                same.setdefault((role, _asked(pool, index)), []).append(index)
        for members in same.values():
            yield from _conflicts(pool, members)


def _asked(pool: Pool, index: int) -> str:
    row = pool.rows[index]
    # A prompt has many pairs as a rule; only the same answers can be put into two orders, or judged twice.
    if isinstance(row, PreferenceRow):
        return "\x1f".join([row.input_text(), *sorted((row.chosen, row.rejected))])
    if isinstance(row, RankingRow):
        return "\x1f".join([row.input_text(), *sorted(row.answers)])
    return "\x1f".join([row.input_text(), row.completion]) if isinstance(row, JudgedRow) else row.input_text().strip()


def _conflicts(pool: Pool, members: list[int]) -> Iterable[Verdict]:
    answers = Counter(pool.rows[index].target_text() for index in members)
    if len(answers) < 2:
        return
    (first, most), (_, second) = answers.most_common(2)
    stays = first if most > second else None
    for index in members:
        answer = pool.rows[index].target_text()
        if answer != stays:
            other = next(i for i in members if pool.rows[i].target_text() != answer)
            shown = [_short(pool.rows[i].target_text()) for i in (index, other)]
            yield Verdict(index, f"answers '{shown[0]}' where {pool.rows[other].where} answers '{shown[1]}' to the same input")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
