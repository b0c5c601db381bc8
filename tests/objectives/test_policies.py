"""`grpo`, `rloo` and `ppo`: costs by hand and by the published formulas on padded tensors, and gradients through a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import LabelRow, PromptRow
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss
from tunewright.engine.probe import probe
from tunewright.methods.lora import LoRA
from tunewright.objectives import Objective, room
from tunewright.objectives._policy import Drawn, PolicyObjective, Tokens, deviation, tokens_of, tree_of
from tunewright.objectives.grpo import GRPO
from tunewright.objectives.ppo import KL_WEIGHT, PPO
from tunewright.objectives.rloo import RLOO
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny

ROWS = tuple(PromptRow(prompt=text, completion="x", where=f"r:{text}") for text in ("what is it?", "who?", "where is she", "why"))
LENGTHS = (3, 5, 1)
GRADER = "string_check"


def group(prompt: Sequence[int], row: int, seed: int = 0) -> list[Drawn]:
    """Three answers of different lengths, with made-up rewards and log-probabilities."""
    draw = torch.Generator().manual_seed(100 * seed + row)
    found = []
    for number, length in enumerate(LENGTHS):
        tokens = tuple(torch.randint(5, 200, (length,), generator=draw).tolist())
        old, base = (tuple((-5 - torch.rand(length, generator=draw)).tolist()) for _ in range(2))
        found.append(Drawn(row, tuple(prompt), tokens, "", float(number == row % 3), old, base))
    return found


def trees_of(engine: Engine, objective: PolicyObjective, planted: Sequence[Tree]) -> list[Tree]:
    """What a rollout would make of the planted prompts, without the last answers: advantages of whole groups add up to 0."""
    groups = [group(tree.segments[0].tokens, tree.segments[0].row) for tree in planted]
    return [tree_of(own[:2], values[:2]) for own, values in zip(groups, objective.carried(engine, groups), strict=True)]


class PolicyContract(ObjectiveContract):
    rows = ROWS
    useless = (LabelRow(text="text", label="label", where="l:1"),)

    def _ready(self, family: str, layout: Any = None) -> tuple[Engine, Objective, list[Tree]]:
        engine, objective, planted = super()._ready(family, layout)
        assert isinstance(objective, PolicyObjective)
        return engine, objective, trees_of(engine, objective, planted)

    def test_it_learns(self, family: str) -> None:
        """Answers with an advantage become more probable than those without."""
        engine, objective, trees = self._ready(family)
        batch = engine.collate(trees)
        known = tokens_of(batch, engine.token_scores(batch).log_probability_N.detach(), 1)
        for _ in range(10):
            engine.forward_backward([engine.collate(trees)], objective.loss)
            engine.step(1e-2)
        moved_N = engine.token_scores(batch).log_probability_N.detach() - known.log_N
        good_N = known.columns[0] > 0
        assert float(moved_N[good_N].mean()) > 0.1 + float(moved_N[~good_N].mean())


class TestGRPO(PolicyContract):
    objective = GRPO(grader=GRADER, beta=0.01)


class TestDrGRPO(PolicyContract):
    objective = GRPO(grader=GRADER, loss_type="dr_grpo", scale_rewards="none", beta=0.0, max_new_tokens=7)
    families = ("llama",)


class TestRLOO(PolicyContract):
    objective = RLOO(grader=GRADER)


class TestPPO(PolicyContract):
    objective = PPO(grader=GRADER, updates=1, whiten=False, value_weight=1.0)
    families = ("llama", "gpt2")


# ---- by hand ------------------------------------------------------------------------------------------------------------------


def told(log_N: Tensor, values: Sequence[Sequence[float]], counts: Sequence[int]) -> tuple[Any, Any]:
    """An engine that gives these log-probabilities, and the batch of answers that carry these values."""
    widest = max(map(len, values))
    padded = [[*one, *[math.nan] * (widest - len(one))] for one in values]
    batch = SimpleNamespace(
        owners_N=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)), values_SK=torch.tensor(padded)
    )
    return SimpleNamespace(token_scores=lambda *_, **__: SimpleNamespace(log_probability_N=log_N)), batch


def mean(loss: Loss) -> float:
    return float(loss.total.detach() / loss.count)


def test_grpo_by_hand() -> None:
    """Two answers, of 2 and 1 tokens, rewards 1 and 0: mean 0.5, deviation sqrt(0.5), so advantages +-0.5 / (0.70711 + 1e-4).

    First answer: ratios e^0.1 = 1.10517 and e^0.3 = 1.34986, the second cut to 1.2; costs -1.10517 A and -1.2 A. Second answer:
    ratio e^-0.5 = 0.60653 is below 0.8 and the advantage negative: min takes 0.8 A, and the cost is 0.8 |A|.
    """
    one = Drawn(0, (1,), (5, 6), "", 1.0, (-1.1, -1.3), (-1.0, -1.0))
    two = Drawn(0, (1,), (7,), "", 0.0, (-0.5,), (-1.0,))
    a = 0.5 / (math.sqrt(0.5) + 1e-4)
    log_N = torch.tensor([-1.0, -1.0, -1.0], requires_grad=True)
    costs = [-1.1051709 * a, -1.2 * a, 0.8 * a]
    for loss_type, wanted in (
        ("dapo", sum(costs) / 3),
        ("grpo", ((costs[0] + costs[1]) / 2 + costs[2]) / 2),
        ("dr_grpo", sum(costs) / (2 * 10)),
    ):
        objective = GRPO(grader=GRADER, loss_type=loss_type, beta=0.0, updates=2, max_new_tokens=10)
        values = objective.carried(None, [[one, two]])[0]  # type: ignore[arg-type]
        assert values[0][:2] == pytest.approx((a, a))
        loss = objective.loss(*told(log_N, values, (2, 1)))
        assert mean(loss) == pytest.approx(wanted, rel=1e-6)
    loss.total.backward()
    assert log_N.grad is not None
    assert log_N.grad[1:].tolist() == [0, 0]  # both were cut
    kept = GRPO(grader=GRADER, beta=0.5, updates=2, epsilon_low=0.9, epsilon_high=9)
    apart = Drawn(0, (1,), (5,), "", 0.0, (-1.0,), (-2.0,))  # equal rewards: no advantage, and k3 = e^-1 + 1 - 1 alone
    loss = kept.loss(*told(torch.tensor([-1.0, -1.0]), kept.carried(None, [[apart, apart]])[0], (1, 1)))  # type: ignore[arg-type]
    assert mean(loss) == pytest.approx(0.5 * math.exp(-1), rel=1e-6)


def test_the_first_update_has_ratio_one_with_a_gradient() -> None:
    log_N = torch.tensor([-1.0, -2.0], requires_grad=True)
    objective = GRPO(grader=GRADER, beta=0.0, scale_rewards="none")
    answers = [Drawn(0, (1,), (5,), "", reward, (-9.0,), (-1.0,)) for reward in (1.0, 0.0)]
    loss = objective.loss(*told(log_N, objective.carried(None, [answers])[0], (1, 1)))  # type: ignore[arg-type]
    loss.total.backward()
    assert mean(loss) == pytest.approx(0.0)
    assert log_N.grad is not None
    assert log_N.grad.tolist() == [-0.5, 0.5]


def test_rloo_by_hand() -> None:
    """Rewards 1, 0, 0.5, less 0.1 times log p_old - log p_base = 1, 0, -1: worths 0.9, 0, 0.6.

    The others' means are 0.3, 0.75, 0.45: advantages 0.6, -0.75, 0.15.
    """
    answers = [
        Drawn(0, (1,), (5, 6), "", 1.0, (-1.0, -1.0), (-1.5, -1.5)),
        Drawn(0, (1,), (5,), "", 0.0, (-1.0,), (-1.0,)),
        Drawn(0, (1,), (5,), "", 0.5, (-2.0,), (-1.0,)),
    ]
    objective = RLOO(grader=GRADER, beta=0.1, updates=2)
    values = objective.carried(None, [answers])[0]  # type: ignore[arg-type]
    assert [one[0] for one in values] == pytest.approx([0.6, -0.75, 0.15])
    # Ratios of whole answers: e^(0.05 + 0.05) = 1.10517; e^0.5, whose cost with a negative advantage is not cut; e^1, cut to 1.2.
    loss = objective.loss(*told(torch.tensor([-0.95, -0.95, -0.5, -1.0]), values, (2, 1, 1)))
    assert mean(loss) == pytest.approx((-1.1051709 * 0.6 + 0.75 * math.exp(0.5) - 1.2 * 0.15) / 3, rel=1e-5)


class ReadPPO(PPO):
    """PPO with what a network would give put in."""

    def _read(self, engine: Any, batch: Any) -> tuple[Tokens, Tensor]:
        return tokens_of(batch, engine.log_N, 4), engine.value_N


def test_ppo_by_hand() -> None:
    """Rewards: -0.1 (-1.0 + 2.0) = -0.1 at the first token, 1 - 0.1 (-1.5 + 1.0) = 1.05 at the last. Values 0.5 and 0.25.

    delta_2 = 1.05 - 0.25 = 0.8 = A_2; delta_1 = -0.1 + 0.9 0.25 - 0.5 = -0.375; A_1 = -0.375 + 0.9 0.8 0.8 = 0.201.
    Returns: 0.701 and 1.05.
    """
    one = Drawn(0, (1,), (5, 6), "", 1.0, (-1.0, -1.5), (-2.0, -1.0))
    objective = ReadPPO(grader=GRADER, gamma=0.9, gae_lambda=0.8, value_weight=0.5, value_epsilon=0.1)
    advantages, returns = objective._estimated(one, (0.5, 0.25), 0.1)
    assert advantages == pytest.approx([0.201, 0.8])
    assert returns == pytest.approx([0.701, 1.05])
    _, batch = told(torch.zeros(2), [(*advantages, *one.old, *returns, 0.5, 0.25)], (2,))
    # Ratios e^0.1 and e^0.5 (cut to 1.2). Values 0.55 (within 0.1 of 0.5) and 0.75 (0.5 above 0.25, so 0.35 is looked at too):
    # the larger error counts, (0.55 - 0.701)^2 and (0.35 - 1.05)^2.
    given: Any = SimpleNamespace(log_N=torch.tensor([-0.9, -1.0]), value_N=torch.tensor([0.55, 0.75]))
    policy = -(math.exp(0.1) * 0.201 + 1.2 * 0.8)
    critic = 0.25 * (0.151**2 + 0.7**2)
    assert mean(objective.loss(given, batch)) == pytest.approx((policy + critic) / 2, rel=1e-5)


def test_ppo_whitens_over_the_step_and_keeps_returns() -> None:
    model = tiny("llama")
    objective = PPO(grader=GRADER)
    head = objective.make_head(model, (), 0)
    real = Engine(model, {}, probe(model), head=head)
    groups = [group((5, 6, 7), 0), group((8, 9), 1)]
    values = objective.carried(real, groups)
    every = [
        number for pair in zip(groups, values, strict=True) for one, v in zip(*pair, strict=True) for number in v[: len(one.tokens)]
    ]
    assert sum(every) == pytest.approx(0, abs=1e-5)
    assert sum(number**2 for number in every) / len(every) == pytest.approx(1, rel=1e-4)
    assert all(number == 0 for group in values for one in group for number in one[-1:])  # the critic knows nothing yet


def test_the_kl_weight_steers_to_its_target() -> None:
    objective = PPO(grader=GRADER, kl_weight=0.1, kl_target=0.2)
    engine: Any = SimpleNamespace(first=SimpleNamespace(kept={KL_WEIGHT: torch.tensor(0.1)}))
    for kl, wanted in ((9.0, 0.102), (0.0, 0.102 * 0.98), (0.2, 0.102 * 0.98)):
        facts = {"kl": kl}
        objective.noticed(engine, facts)
        assert float(engine.first.kept[KL_WEIGHT]) == pytest.approx(wanted)
    assert facts["kl_weight"] == pytest.approx(0.102 * 0.98)


# ---- by the published formulas, padded -----------------------------------------------------------------------------------------


def padded_grpo(logs: Sequence[Tensor], advantage_B: Tensor, mask_BT: Tensor, asked: dict[str, Any]) -> Tensor:
    """GRPO's loss as TRL 1.16 defines it, on padded tensors: log p now, when they were drawn, and of the base."""
    log_BT, old_BT, base_BT = logs
    ratio_BT = torch.exp(log_BT - old_BT)
    cut_BT = torch.clamp(ratio_BT, 1 - asked["epsilon_low"], 1 + asked["epsilon_high"])
    cost_BT = -torch.min(ratio_BT * advantage_B[:, None], cut_BT * advantage_B[:, None])
    cost_BT = cost_BT + asked["beta"] * ratio_BT * (torch.exp(base_BT - log_BT) - (base_BT - log_BT) - 1)
    sums_B = (cost_BT * mask_BT).sum(1)
    if asked["loss_type"] == "grpo":
        return (sums_B / mask_BT.sum(1)).mean()
    return sums_B.sum() / (mask_BT.sum() if asked["loss_type"] == "dapo" else len(sums_B) * asked["max_new_tokens"])


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_is_the_padded_formula(loss_type: str, scale: str) -> None:
    asked = {"loss_type": loss_type, "beta": 0.1, "epsilon_low": 0.1, "epsilon_high": 0.3, "max_new_tokens": 6}
    objective = GRPO(grader=GRADER, scale_rewards=scale, updates=3, **asked)  # type: ignore[arg-type]
    groups = [group((1, 2), row, seed=row) for row in range(4)]
    answers = [one for own in groups for one in own]
    draw = torch.Generator().manual_seed(1)
    logs = [torch.tensor(one.old) + 0.3 * torch.randn(len(one.tokens), generator=draw) for one in answers]
    values = [one for own in objective.carried(None, groups) for one in own]  # type: ignore[arg-type]
    loss = objective.loss(*told(torch.cat(logs), values, [len(one.tokens) for one in answers]))

    def pad(parts: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor([[*part, *[0.0] * (5 - len(part))] for part in parts])

    rewards_GS = torch.tensor([[one.reward for one in own] for own in groups])
    scales = {"group": rewards_GS.std(1, keepdim=True) + 1e-4, "batch": rewards_GS.std() + 1e-4, "none": torch.tensor(1.0)}
    advantage_B = ((rewards_GS - rewards_GS.mean(1, keepdim=True)) / scales[scale]).flatten()
    mask_BT = pad([[1.0] * len(one.tokens) for one in answers])
    parts = [pad([log.tolist() for log in logs]), pad([one.old for one in answers]), pad([one.base for one in answers])]
    assert mean(loss) == pytest.approx(float(padded_grpo(parts, advantage_B, mask_BT, asked)), rel=1e-5, abs=1e-7)


# ---- through a network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_are_those_of_padded_transformers(temperature: float) -> None:
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(3))
    engine = Engine(model, tuning.parameters(), probe(model))
    objective = GRPO(
        grader=GRADER, beta=0.1, unbiased_kl=False, updates=2, epsilon_low=0.9, epsilon_high=50, temperature=temperature
    )
    groups = [group((5, 6, 7, 8), 0), group((9, 10), 1)]
    trees = [tree_of(*pair) for pair in zip(groups, objective.carried(engine, groups), strict=True)]
    parameters = list(engine.parameters.values())
    total, count = objective.loss(engine, engine.collate(trees))
    found = torch.autograd.grad(total / count, parameters)

    model.network.set_attn_implementation("eager")
    answers = [one for own in groups for one in own]
    width = max(len(one.prompt) + len(one.tokens) for one in answers)
    ids = torch.tensor([[*one.prompt, *one.tokens, *[0] * (width - len(one.prompt) - len(one.tokens))] for one in answers])
    mask = torch.tensor([[float(at < len(one.prompt) + len(one.tokens)) for at in range(width)] for one in answers])
    logs_BT = (model.network(input_ids=ids, attention_mask=mask).logits[:, :-1] / temperature).log_softmax(-1)
    logs_BT = logs_BT.gather(2, ids[:, 1:, None])[..., 0]
    costs = []
    for number, one in enumerate(answers):
        new = logs_BT[number, len(one.prompt) - 1 : len(one.prompt) - 1 + len(one.tokens)]
        rewards = [other.reward for other in groups[one.row]]
        advantage = (one.reward - sum(rewards) / 3) / (deviation(rewards) + 1e-4)
        ratio = (new - torch.tensor(one.old)).exp()
        apart = torch.tensor(one.base) - new
        costs.append(-torch.min(ratio * advantage, ratio.clamp(0.1, 51) * advantage) + 0.1 * (apart.exp() - apart - 1))
    wanted = torch.autograd.grad(torch.cat(costs).mean(), parameters)
    assert mean(Loss(total, count)) == pytest.approx(float(torch.cat(costs).mean().detach()), rel=1e-5)
    largest = max(float(one.abs().max()) for one in wanted)
    assert largest > 1e-3
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * max(1.0, largest)


def test_ppo_reads_the_body_once() -> None:
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, 0)
    objective = PPO(grader=GRADER)
    head = objective.make_head(model, (), 0)
    named = {f"head.{name}": one for name, one in head.named_parameters()}
    engine = Engine(model, tuning.parameters() | named, probe(model), head=head)
    groups = [group((5, 6, 7), 0)]
    batch = engine.collate([tree_of(groups[0], objective.carried(engine, groups)[0])])
    passes = []
    with model.body.register_forward_hook(lambda *_: passes.append(1)):
        objective.loss(engine, batch).total.backward()
    assert len(passes) == 1
    assert named["head.output.bias"].grad is not None


# ---- what may be got wrong ------------------------------------------------------------------------------------------------------


def test_rows_are_planted_as_prompts_with_the_longest_answers() -> None:
    model = tiny("llama")
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    planted = GRPO(grader=GRADER, group=3, max_new_tokens=5).plant(ROWS[:1], renderer)[0]
    assert not isinstance(planted, Refusal)
    assert planted.tree.segments[0].tokens == renderer.prompt(ROWS[0])
    assert [len(segment.tokens) for segment in planted.tree.segments[1:]] == [5, 5, 5]
    long = PromptRow(prompt="long " * 400, completion="x", where="r:9")
    assert GRPO(grader=GRADER, max_new_tokens=5).plant([long], renderer)[0] is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "grpo"}, "the key 'grader' is required"),
        ({"name": "grpo", "grader": {"name": "python"}}, r"grader\.file: the python grader has no code"),
        ({"name": "grpo", "grader": "number", "on_error": "skip"}, "on_error"),
        ({"name": "rloo", "grader": "number", "group": 1}, "two answers a prompt or more"),
        ({"name": "ppo", "grader": "number", "gae_lamda": 1}, "unknown key 'gae_lamda'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        room.make(settings)


@pytest.mark.parametrize(
    ("name", "kind"), [("grpo", "encoder"), ("rloo", "encoder"), ("ppo", "encoder"), ("ppo", "encoder_decoder")]
)
def test_bases_that_cannot_write_are_refused(name: str, kind: str) -> None:
    with pytest.raises(BaseModelError):
        room.make({"name": name, "grader": "number"}).decided(kind, ())


def test_a_grader_that_does_not_fit_the_rows_is_refused_at_once() -> None:
    objective = GRPO(grader={"name": "string_check", "reference": "{{ item.word }}"})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"grader\.reference: there is no 'item\.word'"):
        objective.decided("decoder", ROWS)
