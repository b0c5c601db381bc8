"""GRPO: learn from how answers to the same prompt compare with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tunewright.objectives._policy import SMALL, Group, PolicyObjective, clipped, deviation, k3

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss


class GRPO(PolicyObjective):
    """Raises answers that were graded better than the other answers to their prompt, and lowers those graded worse.

    A_i = (r_i - mean of the group) / (deviation + 1e-4), the same for all tokens of answer i. Each token costs
    -min(ratio A, clip(ratio, 1 - epsilon_low, 1 + epsilon_high) A) + beta ratio k3, with ratio = p / p_old and k3 the estimate
    exp(d) - d - 1 of the KL to the base, d = log p_base - log p. The ratio in front of k3 makes its gradient that of the KL, even
    where it is 1 (`unbiased_kl`). `grpo` takes the mean over an answer's tokens, then over answers; `dapo` the mean over all tokens
    of the step; `dr_grpo` divides the sum over tokens by answers times `max_new_tokens`.

    Source: Shao et al., "DeepSeekMath", arXiv 2402.03300; DAPO: Yu et al., arXiv 2503.14476; Dr. GRPO: Liu et al.,
    arXiv 2503.20783; the ratio in front of the KL: "DeepSeek-V3.2", arXiv 2512.02556. Equal to TRL 1.16, tested.
    Cost: `group` answers a prompt are written, read once without gradients for the base, and once with them for each update.
    Use when: a program or a model can grade answers. Avoid when: right answers can be shown (`sft`), or the base never gives an
    answer that is better than its others: then all advantages are 0.
    Raises: `GraderError` where an answer gets no grade; groups of equal rewards teach nothing and are counted.
    """

    loss_type: Literal["grpo", "dapo", "dr_grpo"] = Field(default="dapo", description="what the sum over tokens is divided by")
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="group", description="whose deviation divides the advantages; `none` as in Dr. GRPO"
    )
    epsilon_low: float = Field(default=0.2, ge=0, lt=1, description="how far the ratio may fall below 1")
    epsilon_high: float | None = Field(default=None, ge=0, description="how far it may rise above 1; as `epsilon_low` if not given")
    beta: float = Field(default=0.04, ge=0, description="weight of the KL to the base")
    unbiased_kl: bool = Field(
        default=True, description="multiply the KL's estimate by the ratio, as TRL 1.16 does; false: DeepSeekMath"
    )

    def carried(self, engine: Engine, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        everything = deviation([one.reward for group in groups for one in group])
        return [self._of_group(group, everything) for group in groups]

    def _of_group(self, group: Group, everything: float) -> list[tuple[float, ...]]:
        rewards = [one.reward for one in group]
        mean, own = sum(rewards) / len(rewards), deviation(rewards)
        scale = {"group": own + SMALL, "batch": everything + SMALL, "none": 1.0}[self.scale_rewards]
        return [((one.reward - mean) / scale,) * len(one.tokens) + one.old + one.base for one in group]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss

        known = self.tokens(engine, batch)
        advantage_N, old_N, base_N = known.columns
        # In the only update on an answer the policy is the one that drew it: the ratio is 1, with the gradient of log p.
        old_N = known.log_N.detach() if self.updates == 1 else old_N
        ratio_N = (known.log_N - old_N).exp()
        high = self.epsilon_low if self.epsilon_high is None else self.epsilon_high
        cost_N = clipped(ratio_N, advantage_N, self.epsilon_low, high)
        if self.beta:
            kl_N = weighed_k3(known.log_N, old_N, base_N) if self.unbiased_kl else k3(known.log_N, base_N)
            cost_N = cost_N + self.beta * kl_N
        if self.loss_type == "dapo":
            return Loss(cost_N.sum(), cost_N.new_tensor(float(len(cost_N))))
        sums_A = known.sums(cost_N)
        divisor = known.counts_A if self.loss_type == "grpo" else self.max_new_tokens
        return Loss((sums_A / divisor).sum(), cost_N.new_tensor(float(len(sums_A))))


def weighed_k3(log_N: Tensor, old_N: Tensor, base_N: Tensor) -> Tensor:
    """`k3` times p / p_old, [N], as p_base / p_old + p / p_old (log p - log p_base - 1).

    So its gradient, p / p_old (log p - log p_base), is not the difference of two numbers as large as p_base / p.
    """
    return (base_N - old_N).exp() + (log_N - old_N).exp() * (log_N - base_N - 1)
