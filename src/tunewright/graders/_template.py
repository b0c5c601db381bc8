"""Texts with places to fill in, as OpenAI's graders have them: `{{ sample.output_text }}`, `{{ item.reference }}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunewright.core.errors import ConfigurationError
from tunewright.data.rows import ChatRow, PreferenceRow, Row

PLACE = re.compile(r"\{\{\s*([\w.]+)\s*\}\}")
ANSWER, REFERENCE = "{{ sample.output_text }}", "{{ item.reference }}"


def item_of(row: Row) -> dict[str, Any]:
    """What a grader knows of a row: `prompt`, `reference`, `where`, `messages` of a conversation, and every column kept beside."""
    known: dict[str, Any] = {**row.metadata, "prompt": row.input_text(), "reference": row.target_text(), "where": row.where}
    if isinstance(row, ChatRow | PreferenceRow):
        known["messages"] = [{"role": one.role, "content": one.content} for one in row.messages]
    return known


def filled(template: str, row: Row, answer: str, where: str = "") -> str:
    """`template` with its places filled.

    Args:
        where: the key path of the template, for the message.

    Raises:
        ConfigurationError: it names something that the row does not have.
    """
    # Most templates are one of these two, for every answer of a run.
    if template == ANSWER:
        return answer
    if template == REFERENCE:
        return row.target_text()
    known = {"item": item_of(row), "sample": {"output_text": answer}}
    return PLACE.sub(lambda found: _text(_at(known, found[1], where)), template)


def _at(known: Mapping[str, Any], path: str, where: str) -> Any:
    here: Any = known
    walked: list[str] = []
    for name in path.split("."):
        if not isinstance(here, Mapping) or name not in here:
            allowed = [".".join((*walked, one)) for one in here] if isinstance(here, Mapping) else []
            raise ConfigurationError(f"there is no '{path}' to fill in", where=where, allowed=allowed, given=path)
        here = here[name]
        walked.append(name)
    return here


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
