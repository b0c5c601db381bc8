"""SimPO: prefer one answer over another by its mean log-probability, without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tunewright.objectives._preference import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


class SimPO(PairObjective):
    """Raises the chosen answer's log p per token over the rejected one's by a margin.

    cost = -log sigmoid(beta (m(c) - m(r)) - gamma), m the mean log p over an answer's tokens. With `label_smoothing` as in `dpo`.

    Source: Meng et al., arXiv 2405.14734; defaults as in its experiments and TRL (gamma / beta = 0.25).
    Cost: one pass over each prompt and both answers; no pass of the base.
    Use when: the base's own preference between the answers should not count, or length is a short cut. Avoid when: staying near
    the base matters: nothing holds the model back.
    Raises: nothing of its own; rows whose answers are equal or empty are refused.
    """

    beta: float = Field(default=2.0, gt=0, description="scale of the difference per token")
    gamma: float = Field(default=0.5, ge=0, description="margin that is aimed at")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="share of labels that are expected to be wrong")

    needs_base: ClassVar[bool] = False

    def costs(self, pairs: Pairs) -> Tensor:
        from torch.nn.functional import logsigmoid

        h_P, e = self.beta * (pairs.chosen_mean_P - pairs.rejected_mean_P) - self.gamma, self.label_smoothing
        return -(1 - e) * logsigmoid(h_P) - e * logsigmoid(-h_P)
