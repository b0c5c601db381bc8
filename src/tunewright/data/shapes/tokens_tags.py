"""Words and one tag for each: named entities, parts of speech."""

from __future__ import annotations

from typing import Any, ClassVar

from tunewright.data.rows import TagsRow
from tunewright.data.shapes import RowProblem, Shape, _columns, rest
from tunewright.data.sources import Record

_WORDS = ("tokens", "words")
_TAGS = ("tags", "ner_tags", "pos_tags", "labels")


class TokensTags(Shape):
    """Token classification: two lists of the same length, as CoNLL files and `datasets` have them; in a table, words with spaces.

    Tags are words without white space. Class numbers stay numbers ("3"): where a file knows their names, take these.
    """

    title: ClassVar[str] = "tokens and tags"
    keys: ClassVar[tuple[tuple[str, ...], ...]] = tuple((words, tags) for tags in _TAGS for words in _WORDS)

    def row(self, record: Record) -> TagsRow:
        used = self.used(record)
        tokens, tags = (_words(record.value[key], key) for key in used)
        if len(tokens) != len(tags):
            raise RowProblem("uneven", f"'{used[0]}' has {len(tokens)} words and '{used[1]}' has {len(tags)} tags")
        if not tokens:
            raise RowProblem("no_tokens", f"'{used[0]}' holds no word")
        spaced = next((tag for tag in tags if not tag or any(sign.isspace() for sign in tag)), None)
        if spaced is not None:
            raise RowProblem("bad_tag", f"'{used[1]}' holds the tag '{spaced}'; a tag is a word without white space")
        return TagsRow(tokens=tokens, tags=tags, where=record.where, metadata=rest(record, used))


def _words(value: Any, key: str) -> tuple[str, ...]:
    if value is None:
        raise RowProblem("null", f"'{key}' is null")
    if isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, list):
        raise RowProblem("wrong_type", f"'{key}' must be a list, it is {_columns.described(value)}")
    wrong = next((one for one in value if isinstance(one, bool) or not isinstance(one, str | int)), None)
    if wrong is not None or any(one is None for one in value):
        raise RowProblem("wrong_type", f"'{key}' must hold words, it holds {_columns.described(wrong)}")
    return tuple(str(one) for one in value)
