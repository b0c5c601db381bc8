"""A text, or a pair of texts, and a number that is to be predicted, or several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.data.rows import NumberRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest, text_at
from tunewright.data.shapes._texts import PAIRS, SINGLE, text_keys
from tunewright.data.sources import Record

_NUMBERS = ("score", "scores", "value", "values", "target", "targets")
_LABELS = ("label", "labels", "intent", "sentiment")


class TextScore(Shape):
    """Regression: a number, a list of numbers, or an object of named numbers. In a table a number is written as text."""

    title: ClassVar[str] = "text and a number"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = text_keys(PAIRS, SINGLE, _NUMBERS)

    def matches(self, record: Mapping[str, Any]) -> bool:
        # Beside a label, a score says how sure somebody was of it.
        if any(name in record for name in _LABELS):
            return False
        found = self.uses(record)
        return bool(found) and _may_be_numbers(record[found[-1]])

    def row(self, record: Record) -> NumberRow:
        used = self.used(record)
        value = record.value[used[-1]]
        names = tuple(value) if isinstance(value, dict) else ()
        listed = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if not listed:
            raise RowProblem("no_number", f"'{used[-1]}' holds no number")
        return NumberRow(
            text=text_at(record, used[0]),
            second_text=text_at(record, used[1]) if len(used) == 3 else "",
            values=tuple(_number(one, used[-1]) for one in listed),
            names=names,
            where=record.where,
            metadata=rest(record, used),
        )


def _may_be_numbers(value: Any) -> bool:
    """Whether a value could be meant as numbers: a shape is told from what stands in a column, and `target` may be a text."""
    if isinstance(value, str):
        return _read(value) is not None
    if isinstance(value, list | dict):
        inside = list(value.values()) if isinstance(value, dict) else value
        return all(isinstance(one, int | float) for one in inside)
    return isinstance(value, int | float | None) and not isinstance(value, bool)


def _number(value: Any, key: str) -> float:
    if value is None:
        raise RowProblem("null", f"'{key}' is null")
    number = _read(value) if isinstance(value, str) else value
    if number is None or isinstance(number, bool) or not isinstance(number, int | float):
        raise RowProblem("wrong_type", f"'{key}' must be a number, it is {_columns.described(value)}")
    if not math.isfinite(number):
        raise RowProblem("non_finite_number", f"'{key}' is {number}, not a finite number")
    return float(number)


def _read(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
