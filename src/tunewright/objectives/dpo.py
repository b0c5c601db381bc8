"""DPO: prefer one answer over another, without a reward model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tunewright.objectives._preference import PairObjective, Pairs

if TYPE_CHECKING:
    from torch import Tensor


class DPO(PairObjective):
    """Raises the chosen answer over the rejected one, by more than the base already does.

    With h = beta ((log p(c) - log p_base(c)) - (log p(r) - log p_base(r))): `sigmoid` is -log sigmoid(h), with `label_smoothing` e
    -(1 - e) log sigmoid(h) - e log sigmoid(-h) (cDPO); `hinge` is max(0, 1 - h); `robust` is the unbiased estimate under labels
    that are wrong with probability e. `sft_weight` adds that many times the chosen answer's mean -log p (RPO).

    Source: Rafailov et al., arXiv 2305.18290; hinge: Zhao et al., "SLiC-HF", arXiv 2305.10425; robust: Chowdhury et al.,
    arXiv 2403.00409; RPO: arXiv 2404.19733.
    Cost: one pass over each prompt and both answers, and once, before training, the same without gradients for the base.
    Use when: there are pairs of a better and a worse answer. Avoid when: single answers are judged good or bad, not pairs.
    Raises: nothing of its own; rows whose answers are equal or empty are refused.
    """

    beta: float = Field(default=0.1, gt=0, description="how strongly the base holds back; smaller moves further")
    loss_type: Literal["sigmoid", "hinge", "robust"] = Field(default="sigmoid", description="what a margin costs")
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5, description="share of labels that are expected to be wrong")
    sft_weight: float = Field(default=0.0, ge=0, description="weight of the chosen answer's own mean loss")

    needs_base: ClassVar[bool] = True

    def costs(self, pairs: Pairs) -> Tensor:
        from torch.nn.functional import logsigmoid

        h_P, e = self.beta * pairs.margin_P, self.label_smoothing
        if self.loss_type == "hinge":
            cost_P = (1 - h_P).clamp_min(0)
        elif self.loss_type == "robust":
            cost_P = (-(1 - e) * logsigmoid(h_P) + e * logsigmoid(-h_P)) / (1 - 2 * e)
        else:
            cost_P = -(1 - e) * logsigmoid(h_P) - e * logsigmoid(-h_P)
        return cost_P - self.sft_weight * pairs.chosen_mean_P if self.sft_weight else cost_P
