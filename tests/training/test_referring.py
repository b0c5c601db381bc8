"""A step whose rows share a number: however it is cut, and on however many processes, it is the same step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tunewright.core.surroundings import Process
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import JudgedRow, Message
from tunewright.engine.engine import Engine
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.placement import Placement
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.methods.lora import LoRA
from tunewright.objectives.kto import KTO
from tunewright.testing.tiny import tiny
from tunewright.training.loop import Pace, Plan, Step, fit
from tunewright.training.referring import POINT, Referring

OBJECTIVE = KTO(beta=0.3)


def planted() -> tuple[Engine, Plan]:
    """An engine with a LoRA far enough from its start that the reference point is above zero, and ten judged answers."""
    rows = [
        JudgedRow(messages=(Message(role="user", content=f"ask {n}?"),), completion="ab" * (1 + n % 4) + str(n), label=n % 3 > 0)
        for n in range(10)
    ]
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    engine = Engine(model, tuning.parameters(), probe(model))
    engine.optimizer = Optimizer(AdamW(), engine.parameters)
    tuning.follow(engine.first)
    found = OBJECTIVE.plant(rows, Renderer(model.tokenizer, model.kind, model.context))
    trees = OBJECTIVE.prepare(engine, [item.tree for item in found if not isinstance(item, Refusal)])
    return engine, Plan(trees, batch_size=5, token_budget=10_000, seed=0, total=4)


def trained(token_budget: int, start: int = 0) -> list[Step]:
    engine, plan = planted()
    source = Referring(replace(plan, token_budget=token_budget), engine, OBJECTIVE)
    return list(fit(engine, OBJECTIVE.loss, source, Pace(1e-3), start))


def test_how_a_step_is_cut_changes_nothing() -> None:
    whole, one_by_one = trained(10_000), trained(1)
    for step, other in zip(whole, one_by_one, strict=True):
        assert step.loss == pytest.approx(other.loss, rel=1e-5)
        assert step.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)
        assert step.facts[POINT] == pytest.approx(other.facts[POINT], rel=1e-4)
    assert whole[0].facts[POINT] > 0.5
    assert len({step.facts[POINT] for step in whole}) == len(whole)  # it follows the parameters


def test_without_it_a_cut_would_change_the_loss() -> None:
    """The test above can fail: measured from their own mismatched answers, micro-batches give another sum."""
    engine, plan = planted()
    losses = []
    for budget in (10_000, 1):
        micro = replace(plan, token_budget=budget).micro_batches(0)
        with torch.no_grad():
            losses.append(sum(float(OBJECTIVE.loss(engine, engine.collate(trees)).total) for trees in micro))
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_the_pass_leaves_no_gradient_and_trains_on_no_mismatched_answer() -> None:
    engine, plan = planted()
    micro = Referring(plan, engine, OBJECTIVE).micro_batches(0)
    assert all(parameter.grad is None for parameter in engine.parameters.values())
    assert {len(tree.segments) for trees in micro for tree in trees} == {2}
    assert {len(tree.segments) for tree in plan.trees} == {3}
    assert len({tree.segments[1].values[2] for trees in micro for tree in trees}) == 1


class Seat(Placement):
    """One of two processes whose sums are added up by the test."""

    def __init__(self, rank: int, told: list[list[float]], others: list[float], whole: bool = False) -> None:
        super().__init__(Process(rank, 2, rank, 2))
        self.told, self.others, self.in_step = told, others, whole

    def sum_numbers(self, numbers):
        self.told.append(list(numbers))
        return [own + other for own, other in zip(numbers, self.others, strict=True)]


def test_two_processes_share_the_work_and_find_the_same() -> None:
    engine, plan = planted()
    plan = replace(plan, token_budget=60)
    alone = Referring(plan, engine, OBJECTIVE)
    alone.micro_batches(1)
    told: list[list[float]] = []
    Referring(plan, engine, OBJECTIVE, Seat(0, told, [0.0, 0.0])).micro_batches(1)
    second = Referring(plan, engine, OBJECTIVE, Seat(1, told, told[0]))
    second.micro_batches(1)
    assert [count for _, count in told] != [5, 5]
    assert told[0][1] + told[1][1] == 5
    assert second.points[1] == pytest.approx(alone.points[1], rel=1e-5)
    divided = Referring(plan, engine, OBJECTIVE, Seat(1, told, [99.0, 0.0], whole=True))
    divided.micro_batches(1)
    assert divided.points[1] == pytest.approx(alone.points[1], rel=1e-5)


def test_it_is_a_source_as_its_plan_is() -> None:
    engine, plan = planted()
    source = Referring(plan, engine, OBJECTIVE)
    assert (source.seed, source.total, source.per_epoch) == (plan.seed, plan.total, plan.per_epoch)
