"""What a reward model says of the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from tunewright.core.errors import ConfigurationError
from tunewright.graders import NOTHING, Grade, GradeFailure, Grader, Sitting
from tunewright.graders._judges import Asked, judge_of, settings_for
from tunewright.graders._template import ANSWER, filled

if TYPE_CHECKING:
    from tunewright.data.rows import Row


class RewardModel(Grader):
    """The reward r that a run of the objective `reward` gives the answer, as 1 / (1 + exp(-(r - m) / s)): between 0 and 1.

    m and s are the mean and the deviation of its rewards for the answers that it was validated on. A policy gains little from
    rewards far above those, where a reward model has never been right or wrong. `standard` gives (r - m) / s, cut at `clip`; `raw`
    gives r, and both have any sign. Prompt and answer are rendered with the reward model's own tokenizer and template, so its base
    may be another one; where it is the policy's, the weights are held once.

    Source: Ouyang et al., "InstructGPT", arXiv 2203.02155 (rewards shifted by their mean); Fu et al., "Reward Shaping to Mitigate
    Reward Hacking in RLHF", arXiv 2502.18770 (why a bounded, centred one).
    """

    model: str = Field(min_length=1, description="the folder of a run with `objective: reward`")
    scale: Literal["sigmoid", "standard", "raw"] = Field(default="sigmoid", description="what is made of the reward")
    clip: float = Field(default=5.0, gt=0, description="largest size of a `standard` reward")
    empty: float | None = Field(default=None, description="grade of an empty answer; the lowest there is when not given")
    input: str = Field(default=ANSWER, description="what is judged; the answer when not given")

    @model_validator(mode="after")
    def _lowest_known(self) -> RewardModel:
        if self.scale == "raw" and self.empty is None:
            hint = "Give one that no policy would want, -10 say."
            raise ConfigurationError("raw rewards have no lowest one for an empty answer", where="empty", hint=hint)
        return self

    def others(self) -> tuple[str, ...]:
        return (self.model,)

    def check(self, row: Row) -> None:
        settings_for(self.model, "reward")
        filled(self.input, row, "", "grader.input")

    def grade(self, row: Row, answer: str) -> float:
        raise GradeFailure(f"asks the model '{self.model}', which only a run opens,")

    @contextmanager
    def opened(self, sitting: Sitting = NOTHING) -> Iterator[Grade]:
        judge = judge_of(self.model, sitting)
        mean, deviation = (0.0, 1.0) if self.scale == "raw" else judge.spread()
        said = Asked(judge, self.input, sitting.asked)
        yield lambda row, answer: self._scaled(said(row, answer), mean, deviation)

    def _scaled(self, said: Mapping[str, float] | None, mean: float, deviation: float) -> float:
        if said is None:
            lowest = 0.0 if self.scale == "sigmoid" else -self.clip
            return lowest if self.empty is None else self.empty
        apart = (said["reward"] - mean) / deviation
        if self.scale == "raw" or math.isnan(apart):
            return apart
        cut = min(max(apart, -self.clip), self.clip)
        return cut if self.scale == "standard" else 1 / (1 + math.exp(-min(max(apart, -700.0), 700.0)))
