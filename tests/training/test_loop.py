"""The loop: one sum whatever the cut, an order that depends on seed and epoch alone, a start at any step."""

from dataclasses import dataclass, replace

import pytest
import torch

from tunewright.core.errors import DivergedError
from tunewright.data.forest import Segment, Tree
from tunewright.engine.loss import Loss
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_loss, toy_trees
from tunewright.training.loop import Pace, Plan, fit

PACE = Pace(1e-2, "linear", 1)


def ready(family: str = "llama", count: int = 10, **plan):
    model = tiny(family)
    engine = toy_engine(model, LoRA(rank=4).attach(model, 0))
    trees = toy_trees(model, count)
    return engine, Plan(trees, **{"batch_size": 4, "token_budget": 64, "seed": 3, "total": 6, **plan})


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
@pytest.mark.parametrize("budget", [16, 24, 1000])
def test_the_cut_does_not_matter(family: str, budget: int):
    gradients = []
    for tokens in (64, budget):
        engine, plan = ready(family, token_budget=tokens)
        batches = [engine.collate(trees) for trees in plan.micro_batches(1)]
        engine.forward_backward(batches, toy_loss)
        engine.step(1e-2)  # B is no longer zero, so that A gets a gradient too
        engine.forward_backward([engine.collate(trees) for trees in plan.micro_batches(0)], toy_loss)
        largest = max(float(one.grad.abs().max()) for one in engine.parameters.values())
        gradients.append({name: one.grad / largest for name, one in engine.parameters.items()})
    for name in gradients[0]:
        assert float((gradients[0][name] - gradients[1][name]).abs().max()) < 1e-5
    assert len({budget for budget in (64, budget) if len(plan.micro_batches(0)) > 1}) <= 2


def test_a_first_step_is_the_same_within_one_in_a_million():
    """The very first step: equal weights on both sides, so only the order of the sum differs."""
    gradients = []
    for budget in (16, 40, 1000):
        engine, plan = ready(token_budget=budget)
        engine.forward_backward([engine.collate(trees) for trees in plan.micro_batches(0)], toy_loss)
        gradients.append(torch.cat([one.grad.flatten() for one in engine.parameters.values()]))
    assert difference(gradients[0], gradients[2]) < 1e-6
    assert difference(gradients[1], gradients[2]) < 1e-6


def test_every_epoch_reads_every_row_once_in_an_order_of_its_own():
    _, plan = ready(count=11, total=100)
    place = {id(tree): number for number, tree in enumerate(plan.trees)}

    def rows(step: int) -> list[int]:
        return [place[id(tree)] for batch in plan.micro_batches(step) for tree in batch]

    assert plan.per_epoch == 3
    epochs = [[row for step in range(3 * epoch, 3 * epoch + 3) for row in rows(step)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert [len(rows(step)) for step in range(3)] == [4, 4, 3]


def test_the_order_is_a_function_of_seed_and_epoch():
    _, one = ready(total=100)
    _, same = ready(total=7)
    _, other = ready(seed=4)
    later_first = [one.micro_batches(step) for step in (5, 0, 4, 2, 5)]
    assert later_first[0] == one.micro_batches(5) == same.micro_batches(5) == later_first[4]
    assert any(one.micro_batches(step) != other.micro_batches(step) for step in range(3))


def test_steps_say_what_happened():
    engine, plan = ready()
    steps = list(fit(engine, toy_loss, plan, PACE))
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.last for step in steps] == [False] * 5 + [True]
    assert [step.epoch for step in steps] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert [step.learning_rate for step in steps] == pytest.approx([0, 1e-2, 8e-3, 6e-3, 4e-3, 2e-3])
    assert sum(step.tokens for step in steps) == 2 * sum(tree.size for tree in plan.trees)
    assert sum(step.trained for step in steps) == 2 * sum(tree.trained for tree in plan.trees)
    assert steps[-1].loss < steps[0].loss
    assert steps[0].as_dict()["validation"] == {}


def test_starting_later_is_going_on():
    engine, plan = ready()
    whole = [step.loss for step in fit(engine, toy_loss, plan, PACE)]
    first, _ = ready()
    stopped = []
    for step in fit(first, toy_loss, plan, PACE):
        stopped.append(step.loss)
        if step.number == 2:
            break
    state = {name: value.clone() for name, value in first.optimizer.state().items()}
    second, _ = ready()
    second.put_back(first.parameters)
    second.optimizer.restore(state)
    torch.manual_seed(99)
    assert stopped + [step.loss for step in fit(second, toy_loss, plan, PACE, start=2)] == whole
    assert all(torch.equal(second.parameters[name], one) for name, one in engine.parameters.items())


@pytest.mark.parametrize("number", [1, 3])
def test_a_run_that_diverges_says_where_and_why(number: int):
    engine, plan = ready(count=4)
    calls = []

    def loss(engine, batch):
        calls.append(batch)
        total, count = toy_loss(engine, batch)
        return Loss(total * (float("inf") if len(calls) == number else 1.0), count)

    done = []
    with pytest.raises(DivergedError, match=rf"step {number} of 6: the loss is inf.*Lower the learning rate \(it was"):
        done.extend(fit(engine, loss, plan, PACE))
    engine.check_finite()


def test_one_row():
    engine, plan = ready(count=1, total=3)
    assert plan.per_epoch == 1
    assert len(list(fit(engine, toy_loss, plan, PACE))) == 3


def test_plans_are_cached_by_identity():
    _, one = ready()
    _, other = ready()
    assert hash(one) != hash(other)
    assert isinstance(one.micro_batches(0)[0][0], Tree)


def test_dropout_depends_on_the_place_in_the_step_and_not_on_what_was_computed_before():
    engine, plan = ready(token_budget=16)
    drawn = []

    def loss(engine, batch):
        drawn.append(float(torch.rand(())))
        return toy_loss(engine, batch)

    for _ in range(2):
        list(fit(engine, loss, plan, PACE, start=4))
        torch.rand(7)
    once = len(drawn) // 2
    assert once > 2
    assert drawn[:once] == drawn[once:]
    assert len(set(drawn)) == once


@dataclass(frozen=True)
class Drawn(Tree):
    """A tree whose first token is what it was drawn from."""

    @property
    def varies(self) -> bool:
        return True

    def redrawn(self, seed: int) -> Tree:
        (segment,) = self.segments
        return Tree((replace(segment, tokens=(seed, *segment.tokens[1:])),))


def test_what_is_drawn_depends_on_seed_epoch_and_tree_alone():
    trees = [Drawn((Segment((0, row), row=row),)) for row in range(7)]

    def draws(epoch: int, **changed) -> dict[int, int]:
        plan = Plan(trees, **{"batch_size": 3, "token_budget": 4, "seed": 1, "total": 9, **changed})
        steps = range(epoch * plan.per_epoch, (epoch + 1) * plan.per_epoch)
        found = [tree for step in steps for batch in plan.micro_batches(step) for tree in batch]
        return {tree.segments[0].row: tree.segments[0].tokens[0] for tree in found}

    first = draws(0)
    assert len(set(first.values())) == len(first) == 7
    assert draws(0, token_budget=64) == draws(0, batch_size=7) == first  # however steps are cut
    assert not set(first.values()) & (set(draws(1).values()) | set(draws(0, seed=2).values()))
    plain = toy_trees(tiny("llama"), 3)
    assert all(tree is plain[tree.segments[0].row] for batch in Plan(plain, 3, 99, 0, 1).micro_batches(0) for tree in batch)
