"""A text, or a pair of texts, and its label."""

from __future__ import annotations

from typing import Any, ClassVar

from tunewright.data.rows import LabelRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest, text_at
from tunewright.data.shapes._texts import PAIRS, SINGLE, text_keys
from tunewright.data.sources import Record

# `category`, `class` and the like also stand beside texts that are not for classification, so they are only suggested.
_LABELS = ("label", "intent", "sentiment")


class TextLabel(Shape):
    """Classification. Labels stay words: the number 1 is the label "1", false is "false"."""

    title: ClassVar[str] = "text and label"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = text_keys(PAIRS, SINGLE, _LABELS)

    def row(self, record: Record) -> LabelRow:
        used = self.used(record)
        return LabelRow(
            text=text_at(record, used[0]),
            second_text=text_at(record, used[1]) if len(used) == 3 else "",
            label=_label(record.value[used[-1]], used[-1]),
            where=record.where,
            metadata=rest(record, used),
        )


def _label(value: Any, key: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if value is None:
        raise RowProblem("null", f"'{key}' is null")
    raise RowProblem("wrong_type", f"'{key}' must be a word or a whole number, it is {_columns.described(value)}")
