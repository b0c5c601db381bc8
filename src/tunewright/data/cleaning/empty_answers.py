"""Rows whose answer is empty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tunewright.core.errors import DataError
from tunewright.core.units import share_text
from tunewright.data.cleaning import Action, Filter, Pool, Verdict
from tunewright.data.rows import ChatRow, PreferenceRow, Row, TextRow

LIMIT = 0.5  # share of empty answers from which on the wrong column was read


class EmptyAnswers(Filter):
    """An empty answer teaches a model to say nothing, and cannot be scored; so it is dropped from every split.

    Raises:
        DataError: more than half of a file's answers are empty.
    """

    order: ClassVar[int] = 10
    action: ClassVar[Action] = "drop"
    roles: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    def judge(self, pool: Pool) -> Iterable[Verdict]:
        empty = [Verdict(index, reason) for index, row in enumerate(pool.rows) if (reason := _reason(row))]
        for role in dict.fromkeys(pool.roles):
            inside = [verdict for verdict in empty if pool.roles[verdict.place] == role]
            count = pool.roles.count(role)
            if len(inside) > LIMIT * count:
                where = ", ".join(pool.rows[verdict.place].where for verdict in inside[:3])
                raise DataError(
                    f"{len(inside)} of {count} answers are empty ({share_text(len(inside), count)}; first: {where})",
                    where=pool.rows[inside[0].place].where.rsplit(":", 1)[0],
                    hint="Is the right column read as the answer? `--data.columns` names another.",
                )
        return empty


def _reason(row: Row) -> str:
    if isinstance(row, TextRow):
        return "" if row.text.strip() else "the text is empty"
    if isinstance(row, PreferenceRow) and not row.rejected.strip():
        return "the rejected answer is empty"
    if row.has_answer():
        return ""
    # A call of a tool is an answer without words.
    last = (
        next((message for message in reversed(row.messages) if message.role == "assistant"), None)
        if isinstance(row, ChatRow)
        else None
    )
    return "" if last and ("tool_calls" in last.extra or "function_call" in last.extra) else "the answer is empty"
