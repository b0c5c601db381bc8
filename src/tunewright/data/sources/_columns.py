"""Columnar tables (Arrow) to plain rows: values that JSON can hold, class numbers turned into the names of their classes."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.data.sources import Note, Record

if TYPE_CHECKING:
    import pyarrow

ROWS = 1024  # rows turned into Python at a time


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Columns of class numbers and their names, from the description of features that `datasets` keeps."""
    return {
        column: list(feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def classes_of(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """The same from an Arrow schema, where `datasets` wrote one."""
    described = (schema.metadata or {}).get(b"huggingface")
    return class_names(json.loads(described).get("info", {}).get("features") or {}) if described else {}


def records(batches: Iterable[pyarrow.RecordBatch], schema: pyarrow.Schema, path: Path) -> Iterator[Record | Note]:
    """Every row of the batches, with the number of the row; pictures, sounds and other bytes are left out and noted."""
    import pyarrow

    classes = classes_of(schema)
    binary = [field.name for field in schema if pyarrow.types.is_binary(field.type) or pyarrow.types.is_large_binary(field.type)]
    kept = [name for name in schema.names if name not in binary]
    if binary:
        yield Note(str(path), f"columns of bytes are not read: {', '.join(binary)}")
    if classes:
        yield Note(str(path), f"class numbers are read as the names of their classes: {', '.join(classes)}")
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            for value in batch.slice(start, ROWS).select(kept).to_pylist():
                number += 1
                yield Record(named_classes(plain(value), classes), f"{path}:row {number}")


def named_classes(value: dict[str, Any], classes: Mapping[str, list[str]]) -> dict[str, Any]:
    """A row with class numbers replaced by names; -1, which `datasets` writes for "no label", becomes null."""
    for column, names in classes.items():
        index = value.get(column)
        if isinstance(index, int):
            value[column] = names[index] if 0 <= index < len(names) else None
    return value


def plain(value: Any) -> Any:
    """`value` in terms of what JSON has: times as ISO text, decimals as text, NaN as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | int):
        return value
    return str(value) if isinstance(value, decimal.Decimal | datetime.timedelta) else f"<{type(value).__name__}>"
