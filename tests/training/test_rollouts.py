"""Rollouts: every draw is a function of (seed, rollout, row, sample); what is kept, measured, watched, and gone back to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.core.errors import BaseModelError, GraderError
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import PromptRow
from tunewright.engine.engine import Engine
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.placement import Placement
from tunewright.engine.probe import probe
from tunewright.engine.sampling import Prompt, sample_groups
from tunewright.engine.settings import AdamW, Sampling
from tunewright.methods.lora import LoRA
from tunewright.objectives._policy import Drawn, PolicyObjective
from tunewright.objectives.grpo import GRPO
from tunewright.objectives.ppo import KL_WEIGHT, PPO
from tunewright.testing.tiny import tiny
from tunewright.training.around import Best
from tunewright.training.loop import Pace, Plan, Step, fit
from tunewright.training.rollouts import Desk, Rollouts, alarmed, facts_of, heard, repeated, with_base

ROWS = [PromptRow(prompt=f"row {word}", completion="e", where=f"r:{word}") for word in ("one", "two", "three", "four", "five")]
HAS_E = {"name": "string_check", "operation": "contains"}


def bench(folder: Path | None = None, objective: PolicyObjective | None = None, **settings: Any) -> tuple[Rollouts, Engine]:
    """Rollouts of two prompts each on a tiny model, with a LoRA away from its start."""
    objective = objective or GRPO(**{"grader": HAS_E, "group": 3, "max_new_tokens": 6} | settings)
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(3))
    head = objective.make_head(model, (), 0)
    named = {f"head.{name}": one for name, one in head.named_parameters()} if head else {}
    engine = Engine(model, tuning.parameters() | named, probe(model), head=head)
    engine.optimizer = Optimizer(AdamW(), engine.parameters)
    tuning.follow(engine.first)
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    trees = [item.tree for item in objective.plant(ROWS, renderer) if not isinstance(item, Refusal)]
    plan = Plan(trees, 2, 256, 7, 3 * objective.updates)
    return Rollouts(plan, Desk(engine, objective, renderer, ROWS, Placement(), folder)), engine


def flat(rollouts: Rollouts, step: int) -> list[Any]:
    """The trees of a step, in the order of their rows."""
    return sorted((tree for trees in rollouts.micro_batches(step) for tree in trees), key=lambda tree: tree.segments[0].row)


def stirred(engine: Engine) -> None:
    """Other parameters than before."""
    with torch.no_grad():
        for parameter in engine.parameters.values():
            parameter.add_(0.3)


def test_the_same_step_draws_the_same_answers() -> None:
    one, other = bench()[0], bench()[0]
    assert flat(one, 1) == flat(other, 1)  # without having drawn step 0 twice: nothing depends on history
    assert flat(one, 0) != flat(one, 1)
    assert {tree.segments[0].row for step in range(3) for tree in flat(one, step)} == set(range(5))
    assert all(len(tree.segments) == 4 for tree in flat(one, 2))


def test_an_answer_does_not_depend_on_who_else_is_asked() -> None:
    _, engine = bench()
    prompts = [Prompt((5, 6, 7), number=3), Prompt((8, 9), number=4)]
    settings = Sampling(max_new_tokens=5, temperature=1.0, seed=1)
    both = sample_groups(engine, prompts, settings, ends=frozenset(), samples=2)
    alone = [sample_groups(engine, [prompt], settings, ends=frozenset(), samples=2)[0] for prompt in prompts]
    assert [[one.drawn for one in group] for group in both] == [[one.drawn for one in group] for group in alone]


def test_what_answers_carry_is_what_the_network_says() -> None:
    rollouts, engine = bench(temperature=0.8)
    (tree,) = flat(rollouts, 0)[:1]
    batch = engine.collate([tree])
    now = engine.token_scores(batch, temperature=0.8).log_probability_N.tolist()
    assert engine.first.disabled is not None
    with engine.first.disabled():
        base = engine.token_scores(batch, temperature=0.8).log_probability_N.tolist()
    old, of_base = [], []
    for segment in tree.segments[1:]:
        count = len(segment.tokens)
        old += segment.values[count : 2 * count]
        of_base += segment.values[2 * count :]
    assert old == pytest.approx(now, abs=1e-4)
    assert of_base == pytest.approx(base, abs=1e-4)
    assert max(abs(one - other) for one, other in zip(old, of_base, strict=True)) > 1e-3


def test_several_updates_learn_from_the_same_answers() -> None:
    rollouts, engine = bench(updates=2)
    first = flat(rollouts, 0)
    stirred(engine)
    assert flat(rollouts, 1) == first
    assert flat(rollouts, 2) != first
    assert rollouts.per_epoch == 6
    assert rollouts.total == 6


def test_a_run_stopped_between_updates_reads_its_answers_again(tmp_path: Path) -> None:
    rollouts, _ = bench(tmp_path, updates=2)
    first = flat(rollouts, 0)
    again, engine = bench(tmp_path, updates=2)
    stirred(engine)  # the policy that drew them is gone
    assert flat(again, 1) == first
    assert again.step_made(1, 0.1, (0.0, 0.0, engine.accumulated), 0.0).facts == rollouts._current.facts  # type: ignore[union-attr]
    for number in range(1, 3):
        flat(rollouts, 2 * number)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rollout-0000001.json", "rollout-0000002.json"]
    without, engine = bench(tmp_path, updates=2)
    assert flat(without, 1) == first  # the file is gone; from equal parameters the same answers are drawn


def test_ppo_keeps_its_values_for_later_updates(tmp_path: Path) -> None:
    objective = PPO(grader=HAS_E, group=2, max_new_tokens=4, updates=2)  # type: ignore[arg-type]
    rollouts, engine = bench(tmp_path, objective)
    first = flat(rollouts, 0)
    weight = float(engine.first.kept[KL_WEIGHT])
    stirred(engine)
    assert flat(rollouts, 1) == first
    assert float(engine.first.kept[KL_WEIGHT]) == weight != objective.kl_weight  # adapted once a rollout
    again, other = bench(tmp_path, objective)
    assert flat(again, 1) == first
    assert float(other.first.kept[KL_WEIGHT]) == objective.kl_weight  # what was adapted comes from the checkpoint


def answer(reward: float, text: str = "a b", apart: float = 0.0, tokens: int = 2) -> Drawn:
    return Drawn(0, (1,), (5,) * tokens, text, reward, (-1.0,) * tokens, (-1.0 - apart,) * tokens, finished=reward > 0)


def test_facts_by_hand() -> None:
    facts = facts_of([[answer(1.0), answer(1.0)], [answer(0.0, "a b c a b c", 0.5, 6), answer(1.0)]])
    assert facts["reward"] == 0.75
    assert facts["reward_deviation"] == pytest.approx(0.5)
    assert facts["constant_groups"] == 0.5
    assert facts["length"] == 3.0
    assert facts["finished"] == 0.75
    assert facts["kl"] == pytest.approx(6 * 0.5 / 12)
    assert facts["repetition"] == pytest.approx(0.25 / 4)


def test_repeated_words() -> None:
    assert repeated("one two") == repeated("a b c d") == 0.0
    assert repeated("no no no no no") == pytest.approx(2 / 3)


def test_steps_carry_facts_and_rewards_rise() -> None:
    rollouts, engine = bench(group=8, max_new_tokens=3, beta=0.0, kl_limit=None)
    rollouts.total = 12
    loss = rollouts._desk.objective.loss
    steps = list(fit(engine, loss, rollouts, Pace(3e-2, "constant")))
    rewards = [step.facts["reward"] for step in steps]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.5
    assert steps[0].facts["kl"] != 0.0  # the LoRA stands away from its start
    assert steps[2].epoch == 1.0


def test_a_grader_that_fails_stops_or_counts_zero() -> None:
    source = "def grade(sample, item):\n    return float('nan') if 'two' in item['prompt'] else 1\n"
    grader = {"name": "python", "source": source}
    rollouts, _ = bench(grader=grader)
    with pytest.raises(GraderError, match=r"^r:two: the grader 'python' gave nan"):
        [rollouts.micro_batches(step) for step in range(3)]
    rollouts, engine = bench(grader=grader, on_error="zero")
    found = []
    for step in range(3):
        rollouts.micro_batches(step)
        found.append(rollouts.step_made(step, 0.1, (0.0, 0.0, engine.accumulated), 0.0).facts.get("failed_grades", 0.0))
    assert sorted(found) == [0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"kl": 0.6}, r"0\.6 nats a token from the base \(kl_limit 0\.5\)"),
        ({"length": 9.0}, r"grown from 4\.0 to 9\.0 tokens \(length_limit 2 times\)"),
        ({"repetition": 0.4}, r"risen from 10% to 40% \(repetition_limit 0\.2\)"),
        ({}, ""),
    ],
)
def test_each_limit_raises_its_alarm(later: dict[str, float], said: str) -> None:
    rollouts, _ = bench(kl_limit=0.5, length_limit=2.0, repetition_limit=0.2)
    first = {"kl": 0.0, "length": 4.0, "repetition": 0.1}
    assert rollouts._alarm(first) == ""
    found = rollouts._alarm(first | later)
    assert re.search(said, found) if said else not found
    never, _ = bench(kl_limit=None, length_limit=None, repetition_limit=None)
    assert never._alarm(first) == never._alarm(first | later) == ""
    assert not any(name.startswith("policy.good.") for name in never._desk.engine.first.kept)


def steps_of(count: int) -> Iterator[Step]:
    for number in range(1, count + 1):
        yield Step(number, 0.0, 0.0, 0.0, 0.0, 1, 1, 0.0)


@pytest.mark.parametrize("best_step", [1, 3])
def test_an_alarm_ends_the_run_with_the_last_good_parameters(best_step: int) -> None:
    rollouts, engine = bench(kl_limit=50.0)
    flat(rollouts, 0)
    good = {name: one.detach().clone() for name, one in engine.parameters.items()}
    rollouts._note_good(2)
    stirred(engine)
    assert rollouts._current is not None
    rollouts._current.alarm = "the policy is far away"
    best, heard = Best("reward", True, 0.9, best_step, 0, dict(good)), []
    done = list(alarmed(steps_of(5), rollouts, best, heard.append))
    assert [step.number for step in done][:1] == [1]
    assert done[0].last
    assert all(torch.equal(one, good[name]) for name, one in engine.parameters.items())
    assert (best.value is None) == (best_step > 2)
    assert "Stopped at step 1: the policy is far away." in heard[0]
    assert "the parameters of step 2 were put back" in heard[0]


def test_nothing_happens_while_all_is_well() -> None:
    rollouts, _ = bench()
    flat(rollouts, 0)
    assert [step.last for step in alarmed(steps_of(2), rollouts, Best("reward", True), pytest.fail)] == [False, False]


def measured(count: int, constant: float, spread: float = 0.1) -> Iterator[Step]:
    """Steps whose groups were graded alike in so many cases."""
    for number in range(1, count + 1):
        facts = {"constant_groups": constant, "reward_deviation": spread, "reward": 0.02}
        yield Step(number, 0.0, 0.0, 0.0, 0.0, 0, 0, 0.0, last=number == count, facts=facts)


@pytest.mark.parametrize(("count", "at"), [(3, 3), (8, 8), (30, 8)])
def test_that_most_groups_teach_nothing_is_said_once(count: int, at: int) -> None:
    said: list[str] = []
    assert len(list(heard(measured(count, 0.75), True, said.append))) == count
    (sentence,) = said
    assert f"75% of the prompts had answers that were all graded alike (mean reward 0.02) by step {at}, and nothing" in sentence


@pytest.mark.parametrize(
    ("steps", "compares"),
    [
        (measured(30, 0.5), True),  # half of them are learned from
        (measured(30, 1.0), False),  # alike within a group, and not between prompts: a critic learns from that
        (steps_of(9), True),  # not drawn
    ],
)
def test_grades_that_differ_are_nothing_to_speak_of(steps: Iterator[Step], compares: bool) -> None:
    list(heard(steps, compares, pytest.fail))


def test_without_comparison_all_grades_of_a_step_must_be_alike() -> None:
    said: list[str] = []
    list(heard(measured(9, 1.0, spread=0.0), False, said.append))
    assert len(said) == 1
    assert "100% of the steps had answers that were all graded alike" in said[0]


def test_what_a_checkpoint_must_hold_stands_in_kept() -> None:
    rollouts, engine = bench()
    kept = engine.first.kept
    assert math.isnan(float(kept["policy.state"][0]))
    assert {name.removeprefix("policy.good.") for name in kept if name.startswith("policy.good.")} == set(engine.parameters)
    flat(rollouts, 0)
    assert float(kept["policy.state"][0]) == rollouts._current.facts["length"]  # type: ignore[union-attr]


def test_a_tuning_that_cannot_be_switched_off_has_no_base() -> None:
    _, engine = bench()
    engine.first.disabled = None
    with pytest.raises(BaseModelError, match="the base under this tuning cannot be had"):
        with_base(engine, [[answer(1.0)]], 1.0)
