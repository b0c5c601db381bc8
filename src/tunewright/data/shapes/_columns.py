"""Columns as a user knows them: what they hold, and which field each was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tunewright.core.errors import nearest

# What files call these things. Used for suggestions only: a guess is shown to the user, never taken silently.
_MEANT = {
    "prompt": (
        "query",
        "user",
        "source",
        "src",
        "input",
        "question",
        "request",
        "instruction",
        "problem",
        "human",
        "dialogue",
        "article",
        "document",
        "context",
    ),
    "completion": (
        "response",
        "answer",
        "target",
        "tgt",
        "output",
        "reply",
        "reference",
        "solution",
        "assistant",
        "final",
        "summary",
    ),
    "text": ("review", "document", "content", "body", "comment", "tweet", "utterance", "phrase", "message", "query", "title"),
    "label": ("class", "category", "target", "tag", "topic", "rating", "stars", "emotion", "labels", "y"),
    "messages": ("chat", "dialog", "dialogue", "turns", "conversation"),
    "chosen": ("preferred", "better", "winner", "accepted", "response_chosen"),
    "rejected": ("worse", "loser", "dispreferred", "response_rejected"),
}
_KINDS = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def described(value: Any) -> str:
    """What a value is, for a message: "a number (7)"."""
    kind = _KINDS.get(type(value), type(value).__name__)
    shown = str(value)
    return f"{kind} ({shown[:40]})" if isinstance(value, bool | int | float) else kind


def found(values: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The columns of some records and what each holds where it is not null."""
    kinds: dict[str, str] = {}
    for value in values:
        for column, item in value.items():
            if kinds.get(column, "null") == "null":
                kinds[column] = _KINDS.get(type(item), type(item).__name__)
    return kinds


def hint(columns: Mapping[str, str], alternatives: Sequence[tuple[str, ...]]) -> str:
    """What to do about columns that fit nothing, as a sentence."""
    mapping = suggestion(columns, alternatives)
    if mapping:
        inner = ", ".join(f"{column}: {field}" for column, field in mapping.items())
        return f"Perhaps this is meant: `--data.columns '{{{inner}}}'`."
    loose = suggestion(dict.fromkeys(columns, "text"), alternatives)
    wrong = [(column, kind) for column, kind in columns.items() if column in loose and kind != "text"]
    if wrong:
        column, kind = wrong[0]
        return f"'{column}' comes near to '{loose[column]}', but it holds {kind}, and a row needs one text there."
    nested = [column for column, kind in columns.items() if kind == "a list"]
    if nested:
        return f"If '{nested[0]}' holds examples, write each one as a row of its own."
    return "Name your columns: `--data.columns '{YOUR_COLUMN: prompt, YOUR_OTHER: completion}'`."


def suggestion(columns: Mapping[str, str], alternatives: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """Column to field for the alternative that the columns were probably meant to be; empty when none is near."""
    best: dict[str, str] = {}
    best_fit = (0, -1)
    for needed in alternatives:
        wanted = "a list" if needed[0] in ("messages", "conversations") else "text"
        mapping = _mapping([column for column, kind in columns.items() if kind == wanted], needed)
        # More fields explain more of the file; then, the fewer new names the better.
        fit = (len(needed), sum(field in columns for field in needed))
        if mapping and fit > best_fit:
            best, best_fit = mapping, fit
    return best


def _mapping(free: list[str], needed: tuple[str, ...]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    left = list(free)
    for field in needed:
        column = field if field in left else _meant(left, field)
        if column is None:
            return {}
        left.remove(column)
        if column != field:
            mapping[column] = field
    return mapping


def _meant(columns: list[str], field: str) -> str | None:
    by_lower = {column.lower(): column for column in columns}
    known = next((by_lower[name] for name in _MEANT.get(field, ()) if name in by_lower), None)
    return known or nearest(field, columns)
