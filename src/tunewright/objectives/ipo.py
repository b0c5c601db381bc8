"""IPO: prefer one answer over another by a fixed margin, and no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tunewright.objectives._preference import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


class IPO(PairObjective):
    """Draws the margin of the chosen answer to 1 / (2 beta).

    cost = (m(c) - m(r) - 1 / (2 beta))^2 with m the mean over tokens of log p - log p_base: per token, so that long answers do not
    count more (as the authors' experiments and TRL do).

    Source: Azar et al., arXiv 2310.12036, equation 17.
    Cost: as `dpo`.
    Use when: DPO drives the margins of easy pairs ever further. Avoid when: pairs differ much in how clear they are.
    Raises: nothing of its own; rows whose answers are equal or empty are refused.
    """

    beta: float = Field(default=0.1, gt=0, description="half the inverse of the margin that is aimed at (tau in the paper)")

    def costs(self, pairs: Pairs) -> Tensor:
        chosen_P = (pairs.chosen_P - pairs.chosen_base_P) / pairs.chosen_count_P
        rejected_P = (pairs.rejected_P - pairs.rejected_base_P) / pairs.rejected_count_P
        return (chosen_P - rejected_P - 1 / (2 * self.beta)) ** 2
