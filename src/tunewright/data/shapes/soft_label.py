"""A text, or a pair of texts, and how probable each label is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.core.errors import nearest
from tunewright.data.rows import LabelRow, SoftLabelRow
from tunewright.data.shapes import RowProblem, Shape, _columns, room, text_at
from tunewright.data.shapes._texts import PAIRS, SINGLE, text_keys
from tunewright.data.sources import Record
from tunewright.data.sources._json import BadJson, parse

ROUNDED = 0.01  # how far probabilities may be from 1 together; they are then divided by their sum
COLUMN = "distribution"


class SoftLabel(Shape):
    """Classification with probabilities: `distribution` is an object, label to probability (in a table, the same as JSON text).

    Such files come from `tunewright label`. `label` may stand beside it, and is otherwise the most probable one. Rows without
    `distribution` have one certain label, so that a test file may be labelled by hand.
    """

    title: ClassVar[str] = "text and a probability for each label"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = text_keys(PAIRS, SINGLE, (COLUMN,))
    optional: ClassVar[tuple[str, ...]] = ("label",)

    def row(self, record: Record) -> LabelRow:
        plain = room["text_label"]()
        if COLUMN not in record.value and plain.matches(record.value):
            found = plain.row(record)
            assert isinstance(found, LabelRow)
            return found
        used = self.used(record)
        distribution = _distribution(record.value[COLUMN])
        texts = [key for key in used if key not in (COLUMN, "label")]
        return SoftLabelRow(
            text=text_at(record, texts[0]),
            second_text=text_at(record, texts[1]) if len(texts) == 2 else "",
            label=_label(record.value.get("label"), distribution),
            distribution=distribution,
            where=record.where,
            metadata={key: value for key, value in record.value.items() if key not in used},
        )


def _distribution(value: Any) -> dict[str, float]:
    if isinstance(value, str):
        try:
            value = parse(value)
        except BadJson:
            raise RowProblem("wrong_type", f"'{COLUMN}' is text, and no JSON object of labels and probabilities") from None
    if value is None:
        raise RowProblem("null", f"'{COLUMN}' is null")
    if not isinstance(value, dict) or not value:
        raise RowProblem(
            "wrong_type", f"'{COLUMN}' must be an object of labels and probabilities, it is {_columns.described(value)}"
        )
    for label, one in value.items():
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) or one < 0:
            raise RowProblem("no_probability", f"the probability of '{label}' must be a number from 0 to 1, it is {one!r}")
        if not label.strip():
            raise RowProblem("empty_label", f"'{COLUMN}' holds an empty label")
    total = math.fsum(value.values())
    if abs(total - 1) > ROUNDED:
        raise RowProblem("not_one", f"the probabilities in '{COLUMN}' add up to {total:.6g}, not to 1")
    return {label: one / total for label, one in sorted(value.items())}


def _label(value: Any, distribution: Mapping[str, float]) -> str:
    if value is None:
        return max(distribution, key=lambda label: distribution[label])
    label = str(value).lower() if isinstance(value, bool) else str(value)
    if not distribution.get(label):
        close = nearest(label, distribution)
        guess = f" (did you mean '{close}'?)" if close else ""
        raise RowProblem("strange_label", f"'{COLUMN}' gives the label '{label}' no probability{guess}")
    return label
