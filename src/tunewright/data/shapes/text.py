"""Plain text, every token of which is learned."""

from __future__ import annotations

from typing import ClassVar

from tunewright.data.rows import TextRow
from tunewright.data.shapes import Shape, rest, text_at
from tunewright.data.sources import Record


class Text(Shape):
    """Continued pre-training: a column `text` and nothing that answers or labels it."""

    title: ClassVar[str] = "plain text"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (("text",),)
    weak: ClassVar[bool] = True

    def row(self, record: Record) -> TextRow:
        used = self.used(record)
        return TextRow(text=text_at(record, "text"), where=record.where, metadata=rest(record, used))
