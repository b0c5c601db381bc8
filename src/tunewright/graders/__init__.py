"""Floor 2: what an answer is worth: one grader a file.

An entry is a `Grader`: a frozen configuration that gives a number for a row and an answer to it. Graders are the rewards of
reinforcement (`objectives/_policy.py`) and of its validation. Names and fields follow OpenAI's graders where these exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tunewright.core.configuration import Strict
from tunewright.core.registry import Room

if TYPE_CHECKING:
    from tunewright.data.rows import Row

Grade = Callable[["Row", str], Any]
"""What an opened grader is: a row and the answer to it in, the number out; what it gives is checked by `graders._grading`."""


class Judge(Protocol):
    """Another model that was tuned to judge, opened by the run (`engine.beside`)."""

    objective: str
    labels: tuple[str, ...]

    def judged(self, asked: Sequence[tuple[Row, str]]) -> list[Mapping[str, float] | str]:
        """What it says of each answer to its row: `reward`, or the probability of each label; or why it cannot, as a clause."""
        ...

    def spread(self) -> tuple[float, float]:
        """Mean and deviation of its rewards for the answers that it was validated on."""
        ...


@dataclass(frozen=True)
class Sitting:
    """What is at hand while answers are graded.

    Args:
        asked: the answers that will be graded, each with its row: a judge reads them at once.
        judges: other models, by the names that graders gave them.
    """

    asked: Sequence[tuple[Row, str]] = ()
    judges: Mapping[str, Judge] = field(default_factory=dict)


NOTHING = Sitting()
"""No judge, and nothing known of what will be asked."""


class Grader(Strict, ABC):
    """What an answer is worth, as a configuration: a number, between 0 and 1 for every entry here unless it says otherwise.

    Contract (tested for every entry): the grade is a function of row and answer and of nothing else; `check` refuses, before
    anything is trained, what cannot work on such rows; what goes wrong with one answer is a `GradeFailure` and harms no other.
    """

    @abstractmethod
    def grade(self, row: Row, answer: str) -> float:
        """The grade of one answer.

        Raises:
            GradeFailure: there is none.
        """

    @contextmanager
    def opened(self, sitting: Sitting = NOTHING) -> Iterator[Grade]:
        """`grade`, with whatever it needs (a process, another model) in place until the end of the context."""
        yield self.grade

    def others(self) -> tuple[str, ...]:
        """The models that it asks, as a user names them; the run opens them."""
        return ()

    def check(self, row: Row) -> None:
        """Look whether rows such as this one can be graded.

        Raises:
            ConfigurationError: a field that rows do not have was named, or the grader's own code cannot be loaded.
        """


class GradeFailure(Exception):
    """One answer got no grade; the text says why ("raised ValueError: ..."). `graders._grading` makes a `GraderError` of it."""


def made(value: Any) -> Any:
    """A grader from what a run file holds: a name, a mapping with `name`, or OpenAI's form, where `type` says which one it is."""
    if isinstance(value, dict) and "type" in value:
        value = {"name": value["type"], **{key: one for key, one in value.items() if key not in ("type", "name")}}
    return room.make(value)


room: Room[Grader] = Room("tunewright.graders", Grader, "grader")  # type: ignore[type-abstract]
