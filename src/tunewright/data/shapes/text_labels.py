"""A text, or a pair of texts, and all the labels that hold for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunewright.data.rows import LabelsRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest, text_at
from tunewright.data.shapes._texts import PAIRS, SINGLE, text_keys
from tunewright.data.sources import Record
from tunewright.data.sources._json import BadJson, parse

SEPARATORS = ("|", ";", ",")


class TextLabels(Shape):
    """Multi-label classification: `labels` is a list of words, which may be empty.

    In a table it is one text: a JSON list, or labels with `|`, `;` or `,` between them (the first of these that the text holds).
    """

    title: ClassVar[str] = "text and a list of labels"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = text_keys(PAIRS, SINGLE, ("labels",))

    def matches(self, record: Mapping[str, Any]) -> bool:
        # A number under `labels` is a class of its own, and beside `label` the list is something else.
        return "label" not in record and isinstance(record.get("labels"), list | str | None) and super().matches(record)

    def row(self, record: Record) -> LabelsRow:
        used = self.used(record)
        return LabelsRow(
            text=text_at(record, used[0]),
            second_text=text_at(record, used[1]) if len(used) == 3 else "",
            labels=_labels(record.value["labels"]),
            where=record.where,
            metadata=rest(record, used),
        )


def _labels(value: Any) -> tuple[str, ...]:
    if value is None:
        raise RowProblem("null", "'labels' is null; a text without labels has an empty list")
    if not isinstance(value, list | str):
        raise RowProblem("wrong_type", f"'labels' must be a list of words, it is {_columns.described(value)}")
    found = _listed(value) if isinstance(value, str) else value
    wrong = next((label for label in found if not isinstance(label, str | int) or isinstance(label, bool)), None)
    if wrong is not None:
        raise RowProblem("wrong_type", f"'labels' must hold words, it holds {_columns.described(wrong)}")
    labels = tuple(str(label) for label in found)
    twice = next((label for place, label in enumerate(labels) if label in labels[:place]), None)
    if twice is not None:
        raise RowProblem("label_twice", f"the label '{twice}' stands twice in 'labels'")
    if any(not label.strip() for label in labels):
        raise RowProblem("empty_label", "'labels' holds an empty label")
    return labels


def _listed(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            value = parse(text)
        except BadJson:
            value = None
        if isinstance(value, list):
            return value
    separator = next((mark for mark in SEPARATORS if mark in text), SEPARATORS[0])
    return [part.strip() for part in text.split(separator)] if text.strip() else []
