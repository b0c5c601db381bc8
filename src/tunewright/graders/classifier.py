"""How sure a classifier is that the answer is of a label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import Field

from tunewright.core.errors import ConfigurationError
from tunewright.graders import NOTHING, Grade, GradeFailure, Grader, Sitting
from tunewright.graders._judges import Asked, judge_of, settings_for
from tunewright.graders._template import ANSWER, filled

if TYPE_CHECKING:
    from tunewright.data.rows import Row


class Classifier(Grader):
    """The probability that a run of the objective `classification` gives one of its labels for the answer; 0 of an empty one.

    The classifier reads the answer alone, unless `input` says more. Its base may be of any kind (an encoder, say).

    Source: Ziegler et al., "Fine-Tuning Language Models from Human Preferences", arXiv 1909.08593 (a sentiment classifier as the
    reward).
    """

    model: str = Field(min_length=1, description="the folder of a run with `objective: classification`")
    label: str = Field(description="the label that is wanted")
    input: str = Field(default=ANSWER, description="what is classified; the answer when not given")

    def others(self) -> tuple[str, ...]:
        return (self.model,)

    def check(self, row: Row) -> None:
        labels = settings_for(self.model, "classification").get("labels") or ()
        if self.label not in labels:
            problem = f"'{self.model}' knows no label '{self.label}'"
            raise ConfigurationError(problem, where="grader.label", allowed=labels, given=self.label)
        filled(self.input, row, "", "grader.input")

    def grade(self, row: Row, answer: str) -> float:
        raise GradeFailure(f"asks the model '{self.model}', which only a run opens,")

    @contextmanager
    def opened(self, sitting: Sitting = NOTHING) -> Iterator[Grade]:
        judge = judge_of(self.model, sitting)
        if self.label not in judge.labels:
            problem = f"'{self.model}' knows no label '{self.label}'"
            raise ConfigurationError(problem, where="grader.label", allowed=judge.labels, given=self.label)
        said = Asked(judge, self.input, sitting.asked)
        yield lambda row, answer: _share(said(row, answer), self.label)


def _share(said: Mapping[str, float] | None, label: str) -> float:
    return 0.0 if said is None else said[label]
