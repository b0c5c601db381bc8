"""PPO: a policy and a critic that says, token by token, what reward to expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from tunewright.core.errors import BaseModelError
from tunewright.data.packing import batches_for
from tunewright.objectives import Objective
from tunewright.objectives._policy import BUDGET, Drawn, Group, PolicyObjective, Tokens, clipped, tokens_of, tree_of

if TYPE_CHECKING:
    from torch import Tensor

    from tunewright.data.rows import Row
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import Head

KL_WEIGHT = "policy.kl_weight"


class PPO(PolicyObjective):
    """Raises tokens from which more reward came than a value head on the hidden states had expected.

    Reward of token t: -kl_weight (log p_old - log p_base), and the grade at the last one. delta_t = r_t + gamma V_{t+1} - V_t,
    A_t = delta_t + gamma lambda A_{t+1} (whitened over the step), R_t = A_t + V_t. A token costs
    -min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A) + value_weight / 2 max((V - R)^2, (clip(V, V_old - value_epsilon,
    V_old + value_epsilon) - R)^2). The KL weight rises and falls with the measured KL: it is multiplied by
    1 + 0.1 clip(KL / kl_target - 1, -0.2, 0.2) after each rollout.

    Source: Schulman et al., arXiv 1707.06347; Stiennon et al., arXiv 2009.01325 (per-token KL); Ziegler et al., arXiv 1909.08593
    (adaptive weight); GAE: Schulman et al., arXiv 1506.02438.
    Cost: width + 1 parameters; one pass without gradients more than `grpo` for the values.
    Use when: several updates on the same answers are wanted, or groups are small. Avoid when: groups of eight and more are cheap:
    `grpo` needs no critic. The critic shares the body, so `value_weight` moves the policy too; it is not saved with the tuning.
    Raises: `BaseModelError` for an encoder-decoder; `GraderError` where an answer gets no grade.
    """

    columns: ClassVar[int] = 4  # advantages, old log p, returns, old values
    compares: ClassVar[bool] = False

    updates: int = Field(default=4, ge=1, le=64, description="optimizer steps on the same answers")
    epsilon: float = Field(default=0.2, ge=0, lt=1, description="how far the ratio may go from 1")
    value_epsilon: float = Field(default=0.2, gt=0, description="how far a value may go from the one it had")
    value_weight: float = Field(default=0.1, ge=0, description="weight of the critic's loss")
    gamma: float = Field(default=1.0, gt=0, le=1, description="what a reward one token later is worth")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="1 trusts rewards, 0 trusts values")
    kl_weight: float = Field(default=0.05, ge=0, description="reward taken off for each nat of KL at the start")
    kl_target: float | None = Field(default=0.1, gt=0, description="nats a token that the weight steers to; null: it stays")
    whiten: bool = Field(default=True, description="advantages of a step have mean 0 and deviation 1")

    def decided(self, kind: str, rows: Sequence[Row]) -> Objective:
        if kind == "encoder_decoder":
            raise BaseModelError("ppo's critic reads the states of a decoder", where="base", hint="Take `grpo` or `rloo`.")
        return super().decided(kind, rows)

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> Head:
        import torch

        from tunewright.models.heads.value import ValueHead

        return ValueHead(model.width, ("value",), torch.Generator().manual_seed(seed))

    def kept(self) -> dict[str, float]:
        return {KL_WEIGHT: self.kl_weight}

    def noticed(self, engine: Engine, facts: dict[str, float]) -> None:
        weight = engine.first.kept[KL_WEIGHT]
        facts["kl_weight"] = float(weight)
        if self.kl_target is not None:
            weight.mul_(1 + 0.1 * min(0.2, max(-0.2, facts["kl"] / self.kl_target - 1)))

    def carried(self, engine: Engine, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
        weight = float(engine.first.kept.get(KL_WEIGHT, self.kl_weight))
        values = _values(engine, groups)
        found = [
            [self._estimated(one, value, weight) for one, value in zip(group, own, strict=True)]
            for group, own in zip(groups, values, strict=True)
        ]
        mean, scale = _whitening([a for group in found for one, _ in group for a in one]) if self.whiten else (0.0, 1.0)
        return [
            [
                (*((a - mean) * scale for a in advantages), *one.old, *returns, *value)
                for one, (advantages, returns), value in zip(group, own, of_group, strict=True)
            ]
            for group, own, of_group in zip(groups, found, values, strict=True)
        ]

    def _estimated(self, one: Drawn, values: Sequence[float], weight: float) -> tuple[list[float], list[float]]:
        """Advantages and returns of one answer (GAE)."""
        rewards = [-weight * (old - base) for old, base in zip(one.old, one.base, strict=True)]
        rewards[-1] += one.reward
        advantages, after, ahead = [0.0] * len(rewards), 0.0, 0.0
        for place in range(len(rewards) - 1, -1, -1):
            ahead = rewards[place] + self.gamma * after - values[place] + self.gamma * self.gae_lambda * ahead
            advantages[place], after = ahead, values[place]
        return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=True)]

    def loss(self, engine: Engine, batch: Batch) -> Loss:
        from tunewright.engine.loss import Loss

        known, value_N = self._read(engine, batch)
        advantage_N, old_N, return_N, before_N = known.columns
        ratio_N = (known.log_N - (known.log_N.detach() if self.updates == 1 else old_N)).exp()
        near_N = before_N + (value_N - before_N).clamp(-self.value_epsilon, self.value_epsilon)
        critic_N = (value_N - return_N).square().maximum((near_N - return_N).square())
        cost_N = clipped(ratio_N, advantage_N, self.epsilon, self.epsilon) + 0.5 * self.value_weight * critic_N
        return Loss(cost_N.sum(), cost_N.new_tensor(float(len(cost_N))))

    def _read(self, engine: Engine, batch: Batch) -> tuple[Tokens, Tensor]:
        """The tokens and the critic's value before each, [N], from one pass of the body."""
        with engine.sharing(batch):
            known = self.tokens(engine, batch)
            return known, value_before(engine, batch)


def value_before(engine: Engine, batch: Batch) -> Tensor:
    """What the critic expects in the state that predicts each target, [N]."""
    head = engine.member_of(batch).head
    if head is None:
        raise ValueError("ppo needs its value head on the engine")
    with engine.autocast():
        hidden_ND = engine.hidden_at(batch, batch.rows_N)
        nothing = batch.rows_N[:0]
        return head(hidden_ND, nothing, nothing, nothing)[:, 0].float()


def _values(engine: Engine, groups: Sequence[Group]) -> list[list[tuple[float, ...]]]:
    """The critic's values before each token of each answer, as the policy stands."""
    trees = [tree_of(group, [()] * len(group)) for group in groups]
    found: list[list[tuple[float, ...]]] = [[] for _ in groups]
    with engine.evaluating():
        for chosen in batches_for(trees, BUDGET):
            batch = engine.collate([trees[index] for index in chosen])
            numbers = iter(tokens_of(batch, value_before(engine, batch), 0).log_N.tolist())
            for index in chosen:
                found[index] = [tuple(next(numbers) for _ in one.tokens) for one in groups[index]]
    return found


def _whitening(values: Sequence[float]) -> tuple[float, float]:
    """What is taken off, and what the rest is multiplied by."""
    mean = sum(values) / len(values)
    return mean, 1 / (sum((value - mean) ** 2 for value in values) / len(values) + 1e-8) ** 0.5
