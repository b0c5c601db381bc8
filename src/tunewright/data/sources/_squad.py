"""SQuAD's own files: one JSON object of articles, paragraphs and questions, flattened to one record a question.

Source: https://rajpurkar.github.io/SQuAD-explorer
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright.core.errors import DataError
from tunewright.core.units import bytes_text
from tunewright.data.sources import Problem, Record
from tunewright.data.sources._files import head
from tunewright.data.sources._json import BadJson, parse
from tunewright.data.sources._lines import lines

LARGEST = 500_000_000  # bytes; the nested object stands in memory whole
_BEGINNING = re.compile(rb'^\s*\{\s*("version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[\s*\{\s*"(title|paragraphs)"')


def holds(path: Path) -> bool:
    """Whether a file begins as SQuAD's do."""
    return _BEGINNING.match(head(path).removeprefix(b"\xef\xbb\xbf")) is not None


def records(path: Path) -> Iterator[Record | Problem]:
    """Every question with its context, its answers and the title of its article; placed by its id.

    Raises:
        DataError: the file is not whole, or not built as SQuAD's are.
    """
    if path.stat().st_size > LARGEST:
        raise DataError(f"is a SQuAD file above {bytes_text(LARGEST)}", where=str(path), hint="Divide it by articles.")
    try:
        value = parse("\n".join(line or "" for _, line in lines(path)))
    except BadJson as error:
        raise DataError(f"begins as a SQuAD file does, but is {error.message}", where=str(path)) from None
    paragraphs = [(article, one) for article in _list(value, "data", path) for one in _list(article, "paragraphs", path)]
    asked = [(article, paragraph, one) for article, paragraph in paragraphs for one in _list(paragraph, "qas", path)]
    for number, (article, paragraph, question) in enumerate(asked, start=1):
        where = f"{path}:question {number}"
        if not isinstance(question, dict) or not {"question", "answers"} <= set(question):
            yield Problem(where, "not_a_question", "has no 'question' with 'answers'")
            continue
        kept = {name: one for name, one in question.items() if name not in ("plausible_answers", "is_impossible")}
        title = {"title": article["title"]} if "title" in article else {}
        yield Record({**title, **kept, "context": paragraph.get("context")}, where)


def _list(value: Any, key: str, path: Path) -> list[Any]:
    inside = value.get(key) if isinstance(value, dict) else None
    if not isinstance(inside, list):
        hint = "SQuAD has data > paragraphs > qas; or write one object a line with question, context and answers."
        raise DataError(f"begins as a SQuAD file does, but a list '{key}' is missing in it", where=str(path), hint=hint)
    return inside
