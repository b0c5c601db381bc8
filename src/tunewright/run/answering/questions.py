"""What a teacher is asked: rows of a file, with or without answers, and what is written of them once they are answered."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tunewright.core.errors import DataError
from tunewright.data.labelling.votes import unlabelled
from tunewright.data.ledger import Drop, Ledger
from tunewright.data.rows import ChatRow, LabelRow, Message, PromptRow, Row, TextRow
from tunewright.data.shapes import RowProblem, Shape, detect, rest, text_at
from tunewright.data.shapes._messages import messages_of, tools_of
from tunewright.data.sources import Problem, Record, records

PEEKED = 100  # records from which a file's shape is told
DIGITS = 6  # of a probability that is written
SHAPES = ("prompt_completion", "chat", "text", "text_label")
ANSWERS = ("completion", "response")  # columns beside `prompt` that hold its answer
HINT = "Name the column that is meant: --columns '{YOURS: prompt}'."
SPLIT = "asked"  # what a ledger calls these rows


class Questions(NamedTuple):
    """The rows to ask, in the order of the file, and those that nobody can be asked."""

    rows: list[Row]
    ledger: Ledger


def questions(data: str, columns: Mapping[str, str], *, texts: bool) -> Questions:
    """Read what is to be answered: prompts, conversations, or texts, whether they have answers already or not.

    Args:
        columns: names of columns in the file and the fields that they are.
        texts: they are to be classified; else written to.

    Raises:
        DataError: the file cannot be read, or no row of it can be asked.
    """
    drops, found = [], []
    for item in records(data):
        if isinstance(item, Problem):
            drops.append(Drop(item.where, item.kind, item.message, SPLIT))
        elif isinstance(item, Record):
            found.append(item._replace(value={columns.get(key, key): one for key, one in item.value.items()}))
    shape = _shape(found)
    rows = []
    for record in found:
        try:
            row = _row(record, shape)
            rows.append(_as_text(row) if texts else _as_prompt(row))
        except RowProblem as problem:
            drops.append(Drop(record.where, problem.kind, problem.message, SPLIT))
    if not rows:
        first = f" (the first: {drops[0].message})" if drops else ""
        raise DataError(f"no row can be asked{first}", where=data, allowed=("prompt", "messages", "text"), hint=HINT)
    return Questions(_alike(rows), Ledger(tuple(drops)))


def _alike(rows: list[Row]) -> list[Row]:
    """Prompts among conversations as conversations too: a file holds one shape."""
    if not any(isinstance(row, ChatRow) for row in rows):
        return rows
    return [_as_chat(row) if isinstance(row, PromptRow) else row for row in rows]


def _as_chat(row: PromptRow) -> ChatRow:
    answer = (Message(role="assistant", content=row.completion),) if row.completion else ()
    return ChatRow(messages=(Message(role="user", content=row.prompt), *answer), where=row.where, metadata=row.metadata)


def _shape(found: Sequence[Record]) -> Shape | None:
    """The shape of the records that do not say by themselves what is asked."""
    others = [record for record in found if not _plain(record)]
    return detect(itertools.islice(others, PEEKED)).shape if others else None


def _plain(record: Record) -> bool:
    return "messages" in record.value or ("prompt" in record.value and not any(key in record.value for key in ANSWERS))


def _row(record: Record, shape: Shape | None) -> Row:
    if not _plain(record):
        assert shape is not None
        return shape.row(record)
    column = "messages" if "messages" in record.value else "prompt"
    metadata = rest(record, (column, "tools"))
    if isinstance(record.value[column], str):
        return PromptRow(prompt=text_at(record, column), completion="", where=record.where, metadata=metadata)
    messages, tools = messages_of(record.value[column], column), tools_of(record.value.get("tools"))
    return ChatRow(messages=messages, tools=tools, where=record.where, metadata=metadata)


def _as_text(row: Row) -> LabelRow:
    if isinstance(row, PromptRow):
        return LabelRow(text=row.prompt, label="", where=row.where, metadata=row.metadata)
    try:
        return unlabelled(row)
    except DataError as error:
        raise RowProblem("no_text", error.problem) from None


def _as_prompt(row: Row) -> Row:
    if isinstance(row, TextRow | LabelRow):
        row = PromptRow(prompt=row.input_text(), completion="", where=row.where, metadata=row.metadata)
    if isinstance(row, PromptRow):
        if not row.prompt.strip():
            raise RowProblem("empty_prompt", "the prompt is empty")
        return row
    if not isinstance(row, ChatRow):
        raise RowProblem("no_prompt", f"a row of shape '{row.shape}' is no prompt")
    if not any(message.content.strip() for message in asked_messages(row)):
        raise RowProblem("empty_prompt", "nothing stands before the answer")
    return row


def asked_messages(row: ChatRow) -> tuple[Message, ...]:
    """A conversation without the answer that it may end with."""
    count = len(row.messages)
    while count and row.messages[count - 1].role == "assistant":
        count -= 1
    return row.messages[:count]


def told(row: Row, system: str) -> Row:
    """The row as the teacher sees it, with a system text in front that is not written."""
    if not system:
        return row
    before = (Message(role="system", content=system),)
    row = _as_chat(row) if isinstance(row, PromptRow) else row
    assert isinstance(row, ChatRow)
    return replace(row, messages=before + tuple(one for one in asked_messages(row) if one.role != "system"))


def as_messages(row: Row) -> list[dict[str, Any]]:
    """The row as an OpenAI-compatible server is asked it."""
    if isinstance(row, PromptRow):
        return [{"role": "user", "content": row.prompt}]
    assert isinstance(row, ChatRow)
    return [_written(message) for message in asked_messages(row)]


def _written(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, **message.extra}


def question(row: Row) -> dict[str, Any]:
    """A row as it can be asked again, without an answer."""
    found = line(row, "")
    if "messages" in found:
        return found | {"messages": found["messages"][:-1]}
    return {key: value for key, value in found.items() if key not in ("completion", "label")}


def line(row: Row, answer: str, distribution: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A row with its answer, as `tunewright tune` reads it; columns that are not used stay."""
    if isinstance(row, LabelRow):
        texts = {"text": row.text, "second_text": row.second_text} if row.second_text else {"text": row.text}
        kept = {key: one for key, one in row.metadata.items() if key not in ("text", "second_text", "label", "distribution")}
        shares = {} if distribution is None else {"distribution": {name: round(one, DIGITS) for name, one in distribution.items()}}
        return {**texts, "label": answer, **shares, **kept}
    if isinstance(row, PromptRow):
        kept = {key: one for key, one in row.metadata.items() if key not in ("prompt", "completion")}
        return {"prompt": row.prompt, "completion": answer, **kept}
    assert isinstance(row, ChatRow)
    own = [_written(one) | ({} if one.weight == 1 else {"weight": one.weight}) for one in asked_messages(row)]
    tools = {"tools": list(row.tools)} if row.tools else {}
    kept = {key: one for key, one in row.metadata.items() if key not in ("messages", "tools")}
    return {"messages": [*own, {"role": "assistant", "content": answer}], **tools, **kept}
