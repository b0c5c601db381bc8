"""Whether the last number of the answer is that of the reference."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pydantic import Field

from tunewright.graders import GradeFailure, Grader
from tunewright.graders._template import ANSWER, REFERENCE, filled

if TYPE_CHECKING:
    from tunewright.data.rows import Row

# A minus that follows a digit or a letter is a dash ("3-4"), and commas stand between groups of three.
NUMBER = re.compile(r"(?:(?<![\w.])-)?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


class Number(Grader):
    """1 where the last number of the answer equals the last number of the reference, 0 where it does not or there is none.

    `1,234.50` is 1234.5, and `#### 42` (the form of GSM8K) is 42.

    Source: Cobbe et al., "Training Verifiers to Solve Math Word Problems", arXiv 2110.14168.
    """

    reference: str = Field(default=REFERENCE, description="where the right number stands; the row's answer when not given")
    input: str = Field(default=ANSWER, description="what is looked at; the answer when not given")
    tolerance: float = Field(default=1e-6, ge=0, description="largest difference that counts as equal, as a share of the number")

    def check(self, row: Row) -> None:
        filled(self.reference, row, "", "grader.reference")
        filled(self.input, row, "", "grader.input")

    def grade(self, row: Row, answer: str) -> float:
        wanted = last_number(filled(self.reference, row, answer))
        if wanted is None:
            raise GradeFailure("finds no number in the reference")
        found = last_number(filled(self.input, row, answer))
        return float(found is not None and abs(found - wanted) <= self.tolerance * max(1.0, abs(wanted)))


def last_number(text: str) -> float | None:
    """The last number of a text; None where it has none."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
