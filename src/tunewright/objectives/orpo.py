"""ORPO: learn the chosen answer and prefer it, in one stage and without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tunewright.objectives._preference import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


class ORPO(PairObjective):
    """The chosen answer's mean -log p, plus beta times -log sigmoid of the log odds ratio of the two answers.

    With m the mean log p over an answer's tokens: cost = -m(c) - beta log sigmoid(log odds(c) - log odds(r)), where
    log odds = m - log(1 - exp(m)). The mean is taken for each pair, so that a step cut otherwise gives the same sum.

    Source: Hong et al., arXiv 2403.07691.
    Cost: one pass over each prompt and both answers; no pass of the base.
    Use when: a base is to learn the task and the preference at once. Avoid when: the model already writes good answers (`dpo`).
    Raises: nothing of its own; rows whose answers are equal or empty are refused.
    """

    beta: float = Field(default=0.1, gt=0, description="weight of the odds ratio (lambda in the paper)")

    needs_base: ClassVar[bool] = False

    def costs(self, pairs: Pairs) -> Tensor:
        import torch
        from torch.nn.functional import logsigmoid

        chosen_P, rejected_P = pairs.chosen_mean_P, pairs.rejected_mean_P
        # log(1 - exp(m)) for m < 0; an answer of probability one has no finite odds.
        odds_P = chosen_P - rejected_P - (torch.log1p(-torch.exp(chosen_P)) - torch.log1p(-torch.exp(rejected_P)))
        return -chosen_P - self.beta * logsigmoid(odds_P)
