"""Grading many answers: every grade is a finite number, or a failure that names the grader, the row and what it gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tunewright.core.errors import GraderError
from tunewright.graders import NOTHING, Grade, GradeFailure, Grader, Judge, Sitting, room

if TYPE_CHECKING:
    from tunewright.data.rows import Row

OnError = Literal["fail", "zero"]
LONGEST = 80  # characters of an answer, or of what a grader gave, in a message


@dataclass
class Graded:
    """The grades of some answers.

    Args:
        values: one number an answer, in order; 0 where the grader failed and that was allowed.
        failed: what went wrong, a sentence each.
    """

    values: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def graded(
    grader: Grader, asked: Sequence[tuple[Row, str]], on_error: OnError = "fail", judges: Mapping[str, Judge] = NOTHING.judges
) -> Graded:
    """Grade every (row, answer).

    Args:
        judges: the models that it asks, by name.

    Raises:
        GraderError: the grader raised, hung or gave what is no finite number, and `on_error` is "fail".
    """
    found, name = Graded(), room.name_of(grader)
    with grader.opened(Sitting(asked, judges)) as grade:
        for row, answer in asked:
            value, failure = _attempted(grade, row, answer)
            problem = f"the grader '{name}' {failure} for the answer {_short(answer)}"
            if failure and on_error == "fail":
                hint = "Mend the grader (a run keeps its own copy in run.yaml), or count such answers as 0 with `on_error: zero`."
                raise GraderError(problem, where=row.where, hint=hint)
            found.values.append(value)
            found.failed += [f"{row.where}: {problem}"] if failure else []
    return found


def _attempted(grade: Grade, row: Row, answer: str) -> tuple[float, str]:
    """The grade of one answer, or 0 and why there is none."""
    try:
        return number(grade(row, answer)), ""
    except GradeFailure as failure:
        return 0.0, str(failure)


def number(value: Any) -> float:
    """`value` as a finite float.

    Raises:
        GradeFailure: it is none.
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise GradeFailure(f"gave {_short(value)} ({type(value).__name__}), which is no number,")
    found = float(value)
    if not math.isfinite(found):
        raise GradeFailure(f"gave {found}, which is no finite number,")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + "...'"
