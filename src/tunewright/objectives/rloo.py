"""RLOO: REINFORCE in which the other answers to a prompt are the baseline of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from tunewright.core.errors import ConfigurationError
from tunewright.objectives._policy import SMALL, Drawn, Group, PolicyObjective, clipped, deviation

if TYPE_CHECKING:
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss


class RLOO(PolicyObjective):
    """Raises an answer by how much better it was graded than the mean of the others to the same prompt (leave one out).

    A_i = R_i - sum_{j != i} R_j / (G - 1), with R = reward - beta sum_t (log p_old - log p_base), and the answer as a whole costs
    -min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A), ratio = exp(log p(answer) - log p_old(answer)).

    Source: Ahmadian et al., "Back to Basics: Revisiting REINFORCE Style Optimization", arXiv 2402.14740.
    Cost: as `grpo`.
    Use when: a grade belongs to an answer as a whole and an unbiased gradient is wanted. Avoid when: answers are long and several
    updates are made on them, for the ratio of a whole answer leaves the clip soon (`grpo`).
    Raises: `ConfigurationError` for a group of one, which has no others; `GraderError` where an answer gets no grade.
    """

    beta: float = Field(default=0.05, ge=0, description="weight of the KL to the base, taken off the reward")
    epsilon: float = Field(default=0.2, ge=0, lt=1, description="how far the ratio of an answer may go from 1")
    normalize_advantages: bool = Field(default=False, description="divide by their deviation over the step, about their mean")

    @field_validator("group")
    @classmethod
    def _several(cls, group: int) -> int:
        if group < 2:
            raise ConfigurationError("needs two answers a prompt or more: the others are each one's baseline", where="group")
        return group

    def carried(self, engine: Engine, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        found = [_left_out([self._worth(one) for one in group]) for group in groups]
        if self.normalize_advantages:
            every = [advantage for group in found for advantage in group]
            mean, scale = sum(every) / len(every), deviation(every) + SMALL
            found = [[(advantage - mean) / scale for advantage in group] for group in found]
        return [
            [(advantage,) * len(one.tokens) + one.old + one.base for one, advantage in zip(group, advantages, strict=True)]
            for group, advantages in zip(groups, found, strict=True)
        ]

    def _worth(self, one: Drawn) -> float:
        return one.reward - self.beta * (sum(one.old) - sum(one.base))

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss

        known = self.tokens(engine, batch)
        advantage_N, old_N, _ = known.columns
        log_A = known.sums(known.log_N)
        ratio_A = (log_A - (log_A.detach() if self.updates == 1 else known.sums(old_N))).exp()
        cost_A = clipped(ratio_A, known.firsts(advantage_N), self.epsilon, self.epsilon)
        return Loss(cost_A.sum(), cost_A.new_tensor(float(len(cost_A))))


def _left_out(worths: Sequence[float]) -> list[float]:
    """Each less the mean of the others."""
    total, others = sum(worths), len(worths) - 1
    return [worth - (total - worth) / others for worth in worths]
