"""`grpo` and `rloo` against TRL 1.16: given answers and rewards go through its own trainers from behind the drawing on.

What TRL makes of them (log-probabilities when they were drawn, those of the base, advantages, the loss after the policy has moved)
and its gradients are compared with ours.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

from tunewright.engine.engine import Engine
from tunewright.objectives._policy import Drawn, PolicyObjective, tokens_of, tree_of
from tunewright.objectives.grpo import GRPO
from tunewright.objectives.rloo import RLOO
from tunewright.training.rollouts import with_base

pytest.importorskip("trl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from .trl_side import adopt, assert_same, engine_with_lora, move, ours, theirs, trainer_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # raised by TRL about transformers

GRADER, LONGEST = "string_check", 9
PROMPTS = ((5, 6, 7, 8), (9, 10))
REWARDS = (1.0, 0.0, 0.25, 0.5, 2.0, -1.0)  # three answers a prompt


class GivenGRPO(GRPOTrainer):
    """Answers that are given; everything behind the drawing is TRL's own."""

    given: list[Drawn]

    def _tokenize_prompts(self, prompts: Any) -> Any:
        return [list(one.prompt) for one in self.given], None, {}

    def _generate_single_turn(self, *_: Any) -> Any:
        return [list(one.tokens) for one in self.given], None


class GivenRLOO(RLOOTrainer):
    """The same."""

    given: list[Drawn]

    def _tokenize_prompts(self, prompts: Any) -> Any:
        return [list(one.prompt) for one in self.given], None, {}

    def _generate_single_turn(self, *_: Any) -> Any:
        return [list(one.tokens) for one in self.given]


def drawn(engine: Engine, temperature: float) -> list[list[Drawn]]:
    """Two groups of answers of different lengths, with log p of their tokens under the policy and under the base."""
    draw, rewards = torch.Generator().manual_seed(0), iter(REWARDS)
    groups = []
    for row, (prompt, sizes) in enumerate(zip(PROMPTS, ((2, 6, 4), (3, 1, 5)), strict=True)):
        ids = [tuple(torch.randint(5, 200, (size,), generator=draw).tolist()) for size in sizes]
        groups.append([Drawn(row, prompt, one, "", next(rewards), (), ()) for one in ids])
    groups = with_base(engine, groups, temperature)
    batch = engine.collate([tree_of(group, [()] * len(group)) for group in groups])
    with torch.no_grad():
        log_N = engine.token_scores(batch, temperature=temperature).log_probability_N
    numbers = iter(tokens_of(batch, log_N, 0).log_N.tolist())
    return [[replace(one, old=tuple(next(numbers) for _ in one.tokens)) for one in group] for group in groups]


def both(kind: Any, config: Any, objective: PolicyObjective, asked: dict[str, Any], place: Any) -> Any:
    """Draw, move the policy away from what drew where there are several updates, and compare; TRL's trainer is returned."""
    engine = engine_with_lora()
    groups = drawn(engine, objective.temperature)
    settings = {
        "num_generations": 3,
        "per_device_train_batch_size": len(REWARDS),
        "steps_per_generation": 1,
        "num_iterations": objective.updates,
        "max_completion_length": LONGEST,
        "temperature": objective.temperature,
        **asked,
    }
    trainer = trainer_of(
        kind, config, engine, {"prompt": "a"}, place, asked=settings, reward_funcs=lambda completions, **_: list(REWARDS)
    )
    trainer.given = [one for group in groups for one in group]
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([{"prompt": "a"}] * len(REWARDS))
    values = objective.carried(engine, groups)
    advantages = [one[0] for group in values for one in group]
    assert advantages == pytest.approx(inputs["advantages"].tolist(), rel=1e-5, abs=1e-6)
    if objective.updates > 1:
        move(engine, 0.03, seed=1)
        adopt(trainer, engine)
    trees = [tree_of(*pair) for pair in zip(groups, values, strict=True)]
    assert_same(ours(engine, objective, trees), theirs(trainer, [inputs]))
    return trainer


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_grpo_is_that_of_trl(loss_type: Any, beta: float, tmp_path) -> None:
    """Several updates: the policy has moved, and some tokens are cut."""
    objective = GRPO(grader=GRADER, loss_type=loss_type, beta=beta, updates=2, max_new_tokens=LONGEST)
    trainer = both(GivenGRPO, GRPOConfig, objective, {"loss_type": loss_type, "beta": beta, "epsilon": 0.2}, tmp_path)
    assert 0 < trainer._metrics["train"]["clip_ratio/region_mean"][-1] < 1


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_scales_advantages_and_cuts_like_trl(scale: Any, tmp_path) -> None:
    objective = GRPO(
        grader=GRADER, scale_rewards=scale, epsilon_low=0.1, epsilon_high=0.3, updates=2, temperature=0.7, max_new_tokens=LONGEST
    )
    asked = {"loss_type": "dapo", "scale_rewards": scale, "epsilon": 0.1, "epsilon_high": 0.3, "beta": 0.04}
    trainer = both(GivenGRPO, GRPOConfig, objective, asked, tmp_path)
    assert 0 < trainer._metrics["train"]["clip_ratio/region_mean"][-1] < 1


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("updates", [1, 2])
def test_the_kl_of_grpo_is_that_of_trl(unbiased: bool, updates: int, tmp_path) -> None:
    """In the only update on an answer the ratio is 1, and its gradient is not 0."""
    objective = GRPO(grader=GRADER, loss_type="grpo", beta=0.3, unbiased_kl=unbiased, updates=updates, max_new_tokens=LONGEST)
    both(GivenGRPO, GRPOConfig, objective, {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": unbiased}, tmp_path)


@pytest.mark.parametrize(("beta", "updates", "normalize"), [(0.0, 2, False), (0.05, 2, False), (0.05, 2, True), (0.05, 1, False)])
def test_rloo_is_that_of_trl(beta: float, updates: int, normalize: bool, tmp_path) -> None:
    objective = RLOO(grader=GRADER, beta=beta, updates=updates, normalize_advantages=normalize, max_new_tokens=LONGEST)
    asked = {"beta": beta, "normalize_advantages": normalize, "epsilon": 0.2}
    trainer = both(GivenRLOO, RLOOConfig, objective, asked, tmp_path)
    assert (trainer._metrics["train"]["clip_ratio/region_mean"][-1] > 0) == (updates > 1)
