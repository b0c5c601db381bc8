"""Rows as a run keeps them: one JSON object a line, with the shape, so that a run can be resumed without the user's file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunewright.core.errors import StorageError
from tunewright.core.storage import write_text
from tunewright.data import rows as kinds
from tunewright.data.rows import Message, Row

_KINDS: dict[str, type[Row]] = {
    kind.shape: kind for kind in vars(kinds).values() if isinstance(kind, type) and issubclass(kind, Row) and kind is not Row
}


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Keep the rows, in order."""
    write_text(path, "".join(json.dumps({"shape": row.shape, **asdict(row)}, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """The rows that `write_rows` kept. Raises `StorageError` naming the line that is damaged."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(f"is damaged ({error})", where=f"{path}:{number}") from error
    return rows


def _row(fields: dict[str, Any]) -> Row:
    kind = _KINDS[fields.pop("shape")]
    if "messages" in fields:
        fields["messages"] = tuple(Message(**message) for message in fields["messages"])
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return kind(**values)
