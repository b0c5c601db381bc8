"""Whether the answer is, holds, begins or ends with a text, or matches a pattern."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from tunewright.core.errors import ConfigurationError
from tunewright.graders import Grader
from tunewright.graders._template import ANSWER, REFERENCE, filled

if TYPE_CHECKING:
    from tunewright.data.rows import Row

OPENAI: dict[str, dict[str, Any]] = {
    "eq": {"operation": "equals"},
    "ne": {"operation": "differs"},
    "like": {"operation": "contains"},
    "ilike": {"operation": "contains", "ignore_case": True},
}
"""OpenAI's names of operations."""


class StringCheck(Grader):
    """1 where the check holds, 0 where it does not. White space around both texts does not count, except for patterns.

    Source: https://platform.openai.com/docs/guides/graders (`eq`, `ne`, `like` and `ilike` are taken as well).
    A regular expression is searched for anywhere in the answer; one that backtracks without end holds up the run, since only
    the grader `python` is limited in time.
    """

    operation: Literal["equals", "differs", "contains", "starts_with", "ends_with", "regex"] = Field(
        default="equals", description="what is asked of `input`"
    )
    reference: str = Field(default=REFERENCE, description="the text or the pattern; `{{ item.reference }}` is the row's answer")
    input: str = Field(default=ANSWER, description="what is looked at; the answer when not given")
    ignore_case: bool = Field(default=False, description="whether `A` is `a`")

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, value: Any) -> Any:
        known = OPENAI.get(str(value.get("operation"))) if isinstance(value, dict) else None
        return {**known, **{key: one for key, one in value.items() if key != "operation"}} if known else value

    @model_validator(mode="after")
    def _compiles(self) -> StringCheck:
        if self.operation == "regex" and "{{" not in self.reference:
            _pattern(self.reference, self.ignore_case)
        return self

    def check(self, row: Row) -> None:
        filled(self.reference, row, "", "grader.reference")
        filled(self.input, row, "", "grader.input")

    def grade(self, row: Row, answer: str) -> float:
        text, wanted = filled(self.input, row, answer), filled(self.reference, row, answer)
        if self.operation == "regex":
            return float(_pattern(wanted, self.ignore_case).search(text) is not None)
        text, wanted = text.strip(), wanted.strip()
        if self.ignore_case:
            text, wanted = text.casefold(), wanted.casefold()
        return float(
            {
                "equals": text == wanted,
                "differs": text != wanted,
                "contains": wanted in text,
                "starts_with": text.startswith(wanted),
                "ends_with": text.endswith(wanted),
            }[self.operation]
        )


@lru_cache(maxsize=256)
def _pattern(text: str, ignore_case: bool) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ConfigurationError(f"is no regular expression ({error})", where="reference", given=text) from None
