"""The records of a file to rows: columns renamed, the shape detected, each row checked, bad ones counted against the limit."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.core.units import share_text
from tunewright.data.ledger import EXAMPLES, Drop
from tunewright.data.rows import Row
from tunewright.data.shapes import Detected, RowProblem, detect, room
from tunewright.data.shapes._columns import described
from tunewright.data.sources import Note, Problem, Record, records

FIRST = 100  # good records that the shape is told from


class Settings(NamedTuple):
    """How to read a file; see `DataConfig` for what each means."""

    shape: str | None = None
    columns: Mapping[str, str] = {}
    delimiter: str | None = None
    group: str | None = None
    bad_rows_limit: float = 0.05


@dataclass
class Table:
    """The usable rows of one split's files, the others with the reason, and what should be known."""

    shape: Detected
    rows: list[Row] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(places: Sequence[Path | str], role: str, settings: Settings) -> Table:
    """Read the files of one split as one.

    Args:
        places: the files, in order.
        role: the split, for the ledger.
        settings: how to read them.

    Raises:
        DataError: a file cannot be read, its shape cannot be told, or more rows than the limit are bad.
        ConfigurationError: a column or shape that is not there was named.
    """
    items = itertools.chain.from_iterable(records(place, settings.delimiter) for place in places)
    first, items = _peeked(items)
    where = str(places[0])
    good = [item for item in first if isinstance(item, Record)]
    if not good:
        raise _too_many([item for item in first if isinstance(item, Problem)], 0, settings.bad_rows_limit, where)
    _check_columns(good, settings, where)
    table = Table(_shape(good, settings))
    types: dict[str, type] = {}
    columns: Counter[tuple[str, ...]] = Counter()
    for item in items:
        if isinstance(item, Record):
            columns[tuple(item.value)] += 1
        outcome = _row(item, table.shape, settings, types) if isinstance(item, Record) else item
        if isinstance(outcome, Note):
            table.notes.append(f"{outcome.where}: {outcome.message}")
        elif isinstance(outcome, Problem):
            table.drops.append(Drop(*outcome, split=role))
        else:
            table.rows.append(outcome)
    problems = [Problem(drop.where, drop.kind, drop.message) for drop in table.drops]
    if len(problems) > settings.bad_rows_limit * (len(problems) + len(table.rows)):
        raise _too_many(problems, len(table.rows), settings.bad_rows_limit, where)
    table.notes += _column_notes(table, columns, settings)
    return table


def _peeked(items: Iterator[Record | Problem | Note]) -> tuple[list[Record | Problem | Note], Iterator[Record | Problem | Note]]:
    """The items up to the hundredth record, and all items."""
    first: list[Record | Problem | Note] = []
    good = 0
    for item in items:
        first.append(item)
        good += isinstance(item, Record)
        if good == FIRST:
            break
    return first, itertools.chain(first, items)


def _check_columns(good: Sequence[Record], settings: Settings, where: str) -> None:
    present = list(dict.fromkeys(column for record in good for column in record.value))
    fields = sorted({key for name in room.names() for keys in (*room[name].keys, room[name].optional) for key in keys})
    for column, name in settings.columns.items():
        if column not in present:
            raise ConfigurationError(f"{where} has no column '{column}'", where="data.columns", allowed=present, given=column)
        if name not in fields:
            raise ConfigurationError(f"'{name}' is not a field of any shape", where="data.columns", allowed=fields, given=name)
    names = Counter(settings.columns.values())
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ConfigurationError(f"two columns are named '{twice[0]}'", where="data.columns", hint="Each field has one column.")
    if settings.group is not None and settings.group not in present:
        raise ConfigurationError(
            f"{where} has no column '{settings.group}' to group by", where="data.group", allowed=present, given=settings.group
        )


def _renamed(record: Record, columns: Mapping[str, str]) -> Record:
    if not columns:
        return record
    # A column that was named takes the place of one that had the field's name by chance.
    named = {columns[name]: value for name, value in record.value.items() if name in columns}
    return Record(
        {name: value for name, value in record.value.items() if name not in columns and name not in named} | named, record.where
    )


def _shape(good: Sequence[Record], settings: Settings) -> Detected:
    if settings.shape is None:
        return detect(_renamed(record, settings.columns) for record in good)
    return Detected(room[settings.shape](), settings.shape, "it was asked for")


def _row(record: Record, detected: Detected, settings: Settings, types: dict[str, type]) -> Row | Problem:
    shape = detected.shape
    renamed = _renamed(record, settings.columns)
    try:
        row = shape.row(renamed)
        for column in shape.uses(renamed.value):
            _same_type(renamed, column, types)
        return row if settings.group is None else replace(row, group=_group(record, settings.group))
    except RowProblem as problem:
        return Problem(record.where, problem.kind, problem.message)


def _same_type(record: Record, column: str, types: dict[str, type]) -> None:
    value = record.value[column]
    if value is None:
        return
    kind = float if type(value) is int else type(value)
    if types.setdefault(column, kind) is not kind:
        raise RowProblem("changed_type", f"'{column}' is {described(value)}; in the rows before it was not")


def _group(record: Record, column: str) -> str:
    value = record.value.get(column)
    if value is None or value == "":
        raise RowProblem("no_group", f"has no value in the column '{column}' to group by")
    return str(value)


def _too_many(problems: Sequence[Problem], good: int, limit: float, where: str) -> DataError:
    total = len(problems) + good
    kinds = ", ".join(f"{count} x {kind}" for kind, count in Counter(problem.kind for problem in problems).most_common())
    alike = Counter(problem.message for problem in problems)
    firsts = {problem.message: problem for problem in reversed(problems)}
    shown = "; ".join(
        f"{firsts[message].where}: {message}" + (f" ({count} rows)" if count > 1 else "")
        for message, count in list(alike.items())[:EXAMPLES]
    )
    share = share_text(len(problems), total)
    return DataError(
        f"{len(problems)} of {total} rows cannot be used ({share}, the limit is {100 * limit:g} %): {kinds}. The first: {shown}",
        where=where,
        hint="Mend them, or let more be dropped with `--data.bad_rows_limit`." if good else "",
    )


def _column_notes(table: Table, columns: Counter[tuple[str, ...]], settings: Settings) -> list[str]:
    if not columns:
        return []
    common = columns.most_common(1)[0][0]
    extra = Counter(name for names, count in columns.items() for name in names if name not in common for _ in range(count))
    notes = [f"the column '{name}' stands in {count} rows only" for name, count in extra.most_common(EXAMPLES)]
    displaced = [name for name in settings.columns.values() if name in common and name not in settings.columns]
    notes += [f"the column '{name}' is not read: another one was named to be '{name}'" for name in displaced]
    unused = [name for name in (table.rows[0].metadata if table.rows else ()) if name != settings.group]
    if unused:
        notes.append(f"columns that are kept but not learned from: {', '.join(unused)}")
    if unused and table.shape.shape.weak and settings.shape is None:
        notes.append(
            f"every word is learned, as plain text; if a column holds the label, say `--data.columns '{{{unused[0]}: label}}'`"
        )
    return notes
