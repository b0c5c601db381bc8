"""The order of rows: each once an epoch, the easy ones first, a function of seed and epoch alone."""

import math

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import shuffled
from tunewright.data.forest import Segment, Tree, single
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_trees
from tunewright.training.aids.curriculum import Curriculum, difficulty, opening
from tunewright.training.aids.settings import Order
from tunewright.training.loop import Plan

HARD = tuple(float(index % 50) for index in range(200))


def easy_first(**settings) -> Order:
    return Order(kind="easy_first", **settings)


@pytest.mark.parametrize("pace", ["linear", "root", "stages"])
@pytest.mark.parametrize("start", [0.01, 0.3, 1.0])
def test_each_row_once_and_never_before_it_is_open(pace: str, start: float):
    order = easy_first(pace=pace, start=start, epochs=None)
    ranked = sorted(HARD)
    for epoch in range(3):
        found = Curriculum(order, HARD, 7)(epoch)
        assert sorted(found) == list(range(200))
        for place, index in enumerate(found):
            most = max(place + 1, math.ceil(opening(order, place / 200) * 200))
            assert HARD[index] <= ranked[min(most, 200) - 1]


def test_seed_and_epoch_alone_decide():
    one = Curriculum(easy_first(epochs=None), HARD, 7)
    assert [one(epoch) for epoch in (2, 0, 2, 1)] == [Curriculum(easy_first(epochs=None), HARD, 7)(epoch) for epoch in (2, 0, 2, 1)]
    assert len({tuple(one(epoch)) for epoch in range(3)} | {tuple(Curriculum(easy_first(), HARD, 8)(0))}) == 4


def test_easy_rows_come_first_and_then_shuffled_epochs():
    found = Curriculum(easy_first(start=0.05), HARD, 1)
    means = [sum(HARD[index] for index in found(0)[part * 50 : part * 50 + 50]) / 50 for part in range(4)]
    assert means == sorted(means)
    assert means[0] < 12 < 35 < means[3]
    assert found(1) == shuffled(200, 1, "order", 1)
    whole = Curriculum(easy_first(start=1.0), HARD, 1)(0)
    assert abs(sum(HARD[index] for index in whole[:100]) / 100 - 24.5) < 4  # everything is open: a shuffled epoch


def test_how_the_rows_open_up():
    for pace, shares in {
        "linear": (0.2, 0.4, 0.6, 0.8),
        "root": (0.2, 0.6, 0.7657, 0.8928),
        "stages": (0.25, 0.5, 0.75, 1.0),
    }.items():
        order = easy_first(pace=pace, start=0.2, stages=4)
        assert [opening(order, done) for done in (0.0, 0.25, 0.5, 0.75)] == pytest.approx(shares, abs=1e-4)
    stages = Curriculum(easy_first(pace="stages", stages=4, start=0.01), HARD, 0)(0)
    for part in range(4):  # a stage is drawn to its end before the next one opens
        assert sorted(HARD[index] for index in stages[part * 50 : part * 50 + 50]) == sorted(HARD)[part * 50 : part * 50 + 50]


def test_rows_that_are_equally_hard_are_drawn():
    found = Curriculum(easy_first(start=0.01), (1.0,) * 50, 0)(0)
    assert found != sorted(found)
    assert Curriculum(easy_first(), (), 0)(0) == []


def test_a_plan_keeps_to_it():
    trees = [single(tuple(range(5, 5 + 2 + index % 17)), (0.0,) + (1.0,) * (1 + index % 17)) for index in range(40)]
    hard = difficulty(easy_first(), toy_engine(tiny("llama")), trees)
    assert hard == [float(tree.size) for tree in trees]
    plan = Plan(trees, 8, 64, 3, 10, Curriculum(easy_first(start=0.01), tuple(hard), 3))
    epochs = [[plan.members(step) for step in range(start, start + 5)] for start in (0, 5)]
    assert all(sorted(index for step in epoch for index in step) == list(range(40)) for epoch in epochs)
    sizes = [sum(trees[index].size for index in step) for step in epochs[0]]
    assert sizes == sorted(sizes)
    later_first = Plan(trees, 8, 64, 3, 10, Curriculum(easy_first(start=0.01), tuple(hard), 3))
    assert [later_first.members(step) for step in (7, 2)] == [plan.members(7), plan.members(2)]
    assert [plan.members(step) for step in range(5, 10)] == [Plan(trees, 8, 64, 3, 10).members(step) for step in range(5, 10)]


@pytest.mark.parametrize(("family", "layout"), [("llama", "forest"), ("llama", "padded"), ("t5", None)])
def test_by_the_loss_of_the_base(family: str, layout: str | None):
    """The weighted mean of -log p of each tree's targets, tuning switched off."""
    model = tiny(family)
    tuning = LoRA(rank=2).attach(model, 0)
    engine = toy_engine(model, tuning, layout)
    trees = toy_trees(model, 5)
    if family == "llama":
        answers = (Segment((7, 8), 0, (0.5, 1.0)), Segment((9,), 0, (1.0,)))
        trees.append(Tree((Segment((5, 6)), *answers)))
    with tuning.disabled(), torch.no_grad():
        losses = [engine.language_loss(engine.collate([tree])) for tree in trees]
    wanted = [float(loss.total / loss.count) for loss in losses]
    with torch.no_grad():
        for one in engine.parameters.values():
            one.add_(0.3)
    assert difficulty(easy_first(by="loss"), engine, trees) == pytest.approx(wanted, rel=1e-5)


def test_a_new_head_has_no_loss_of_the_base():
    model = tiny("bert")
    engine = toy_engine(model, LoRA(rank=2).attach(model, 0))
    with pytest.raises(ConfigurationError, match=r"training.aids.order.by: the base has no loss of its own.*new head"):
        difficulty(easy_first(by="loss"), engine, toy_trees(model, 2))
    engine = toy_engine(tiny("llama"))
    with pytest.raises(ConfigurationError, match="the base has no loss of its own"):
        difficulty(easy_first(by="loss"), engine, toy_trees(engine.model, 2))
