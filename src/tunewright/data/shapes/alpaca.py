"""Alpaca's format (instruction, input, output), and Dolly's (instruction, context, response)."""

from __future__ import annotations

from typing import ClassVar

from tunewright.data.rows import PromptRow
from tunewright.data.shapes import Shape, rest, text_at
from tunewright.data.sources import Record


class Alpaca(Shape):
    """An instruction, what it is about where there is something, and the answer.

    The prompt is the instruction and, after an empty line, the input. Alpaca's own wording ("Below is an instruction ...") is
    left out: a chat template says the same in the base's own words.
    """

    title: ClassVar[str] = "instructions (Alpaca, Dolly)"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = (("instruction", "output"), ("instruction", "response"))
    optional: ClassVar[tuple[str, ...]] = ("input", "context")

    def row(self, record: Record) -> PromptRow:
        used = self.used(record)
        given = [text_at(record, key, optional=True) for key in used[2:]]
        parts = [text_at(record, "instruction"), *(part for part in given if part.strip())]
        return PromptRow(
            prompt="\n\n".join(parts), completion=text_at(record, used[1]), where=record.where, metadata=rest(record, used)
        )
