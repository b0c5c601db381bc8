"""Several graders and a formula over what they give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from tunewright.core.errors import ConfigurationError
from tunewright.graders import NOTHING, Grade, GradeFailure, Grader, Sitting, made, room
from tunewright.graders._formula import Formula
from tunewright.graders._grading import number

if TYPE_CHECKING:
    from tunewright.data.rows import Row

One = Annotated[Grader, BeforeValidator(made), PlainSerializer(room.dump)]


class Multi(Grader):
    """`formula` over each grader's number by its name: `right * (0.5 + 0.5 * short)` for `{right: {...}, short: {...}}`.

    A formula has numbers, names, + - * / % ^, comparisons (1 or 0), and min, max, abs, floor, ceil, exp, sqrt, log. Nothing in it
    is executed: its syntax tree is walked.

    Source: https://platform.openai.com/docs/guides/graders (`calculate_output` is taken for `formula`).
    """

    graders: dict[str, One] = Field(min_length=1, description="graders by the names that the formula uses")
    formula: str = Field(description="what the grade is")

    @model_validator(mode="before")
    @classmethod
    def _openai(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "calculate_output" not in value:
            return value
        return {"formula": value["calculate_output"], **{key: one for key, one in value.items() if key != "calculate_output"}}

    @model_validator(mode="after")
    def _consistent(self) -> Multi:
        for name in self.graders:
            if not name.isidentifier():
                problem = f"'{name}' cannot stand in a formula"
                raise ConfigurationError(problem, where="graders", hint="Names are letters, digits and underscores.")
        Formula(self.formula, self.graders)
        return self

    def check(self, row: Row) -> None:
        for one in self.graders.values():
            one.check(row)

    def grade(self, row: Row, answer: str) -> float:
        with self.opened() as grade:
            return grade(row, answer)

    def others(self) -> tuple[str, ...]:
        return tuple(name for one in self.graders.values() for name in one.others())

    @contextmanager
    def opened(self, sitting: Sitting = NOTHING) -> Iterator[Grade]:
        formula = Formula(self.formula, self.graders)
        with ExitStack() as until_the_end:
            grades = {name: until_the_end.enter_context(one.opened(sitting)) for name, one in self.graders.items()}
            yield lambda row, answer: _value(formula, {name: _part(name, one, row, answer) for name, one in grades.items()})


def _part(name: str, grade: Grade, row: Row, answer: str) -> float:
    try:
        return number(grade(row, answer))
    except GradeFailure as failure:
        raise GradeFailure(f"has a part, '{name}', which {failure}") from None


def _value(formula: Formula, numbers: Mapping[str, float]) -> float:
    try:
        return formula.value(numbers)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise GradeFailure(f"has no value of '{formula.text}' for {dict(numbers)} ({error})") from None
