"""A bank: what becomes of a tuning does not depend on who stands beside it."""

import pytest
import torch

from tunewright.data.forest import Tree
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss
from tunewright.engine.members import Member
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.methods.adalora import AdaLoRA, AdaLoRATuning
from tunewright.methods.lora import LoRA
from tunewright.methods.loreft import LoReFT
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_loss, toy_trees
from tunewright.training.bank import Bank, Trainee
from tunewright.training.loop import Pace, Plan, fit

# Everything that may differ: rank, places, scale, rate, seed, rows, batch size, number of steps.
KINDS = [
    (LoRA(rank=4), 1e-2, 0, 6, 2, 5),
    (LoRA(rank=2, alpha=3, targets=("attention.query", "mlp.down")), 3e-2, 1, 4, 4, 3),
    (LoRA(rank=8, rank_stabilized=True, targets=("attention.value",)), 1e-3, 2, 5, 3, 4),
]


def trainee(model, kind) -> Trainee:
    _, rate, seed, rows, batch, total = kind
    trees: list[Tree] = toy_trees(model, rows, seed)
    return Trainee(toy_loss, Plan(trees, batch, 24, seed, total), Pace(rate, "linear", 1, 1.0))


def alone(kind, family: str = "llama") -> tuple[list[float], dict[str, torch.Tensor]]:
    model = tiny(family)
    tuning = kind[0].attach(model, kind[2])
    engine = Engine(model, tuning.parameters(), probe(model))
    engine.optimizer = Optimizer(AdamW(), engine.parameters)
    one = trainee(model, kind)
    tuning.follow(engine.first)
    tuning.begin(one.plan.total)
    losses = [step.loss for step in fit(engine, toy_loss, one.plan, one.pace)]
    return losses, {name: value.detach().clone() for name, value in tuning.parameters().items()}


def bank_of(kinds, family: str = "llama"):
    model = tiny(family)
    found = probe(model)
    bank = Bank(Engine(model, probed=found), token_budget=64)
    tunings = []
    for kind in kinds:
        tuning = kind[0].attach(model, kind[2])
        tunings.append(tuning)
        member = Member(tuning.parameters(), Optimizer(AdamW(), tuning.parameters()))
        bank.join(tuning.slot, member, trainee(model, kind), tuning)
    return bank, tunings


def same(tuning, weights: dict[str, torch.Tensor]) -> None:
    for name, value in tuning.parameters().items():
        torch.testing.assert_close(value.detach(), weights[name], atol=2e-5, rtol=2e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_side_by_side_is_one_after_the_other(family: str):
    bank, tunings = bank_of(KINDS, family)
    losses: dict[int, list[float]] = {tuning.slot: [] for tuning in tunings}
    for made in bank.rounds():
        for slot, step in made.items():
            losses[slot].append(step.loss)
    for kind, tuning in zip(KINDS, tunings, strict=True):
        expected, weights = alone(kind, family)
        assert losses[tuning.slot] == pytest.approx(expected, rel=1e-4)
        same(tuning, weights)


def test_a_bank_of_one_is_training_alone():
    bank, (tuning,) = bank_of(KINDS[:1])
    losses = [made[tuning.slot].loss for made in bank.rounds()]
    expected, weights = alone(KINDS[0])
    assert losses == pytest.approx(expected, rel=1e-5)
    same(tuning, weights)


def test_tunings_join_and_leave_while_others_go_on():
    bank, (first,) = bank_of(KINDS[:1])
    model = bank.engine.model
    rounds = bank.rounds()
    next(rounds)
    second = KINDS[1][0].attach(model, KINDS[1][2])
    bank.join(second.slot, Member(second.parameters(), Optimizer(AdamW(), second.parameters())), trainee(model, KINDS[1]))
    assert set(next(rounds)) == {first.slot, second.slot}
    bank.leave(second.slot)
    left = {name: value.detach().clone() for name, value in second.parameters().items()}
    second.detach()
    assert all(set(made) == {first.slot} for made in rounds)
    same(first, alone(KINDS[0])[1])
    assert all(torch.equal(value, left[name]) for name, value in second.parameters().items())


def test_one_that_diverges_stops_and_the_others_go_on():
    bank, (first, second) = bank_of(KINDS[:2])

    def broken(engine: Engine, batch) -> Loss:
        total, count = toy_loss(engine, batch)
        return Loss(total * float("nan"), count)

    before = {name: value.detach().clone() for name, value in second.parameters().items()}
    bank.trainees[second.slot].loss = broken
    made = list(bank.rounds())
    assert len(made) == KINDS[0][5]
    assert "not a finite number" in bank.failed[second.slot].problem
    assert "of tuning 1" in str(bank.failed[second.slot].where)
    assert all(torch.equal(value, before[name]) for name, value in second.parameters().items())
    same(first, alone(KINDS[0])[1])


def test_a_place_in_the_bank_is_taken_once():
    bank, (tuning,) = bank_of(KINDS[:1])
    with pytest.raises(ValueError, match="stands already"):
        bank.join(tuning.slot, Member(tuning.parameters()), bank.trainees[tuning.slot])


def test_methods_that_follow_their_training_do_so_in_a_bank() -> None:
    """AdaLoRA takes ranks away after updates, LoReFT recentres its rotation."""
    kinds = [(AdaLoRA(rank=2, initial_rank=4), 1e-2, 0, 6, 2, 6), (LoReFT(rank=2), 1e-2, 1, 4, 2, 4), KINDS[0]]
    bank, tunings = bank_of(kinds)
    for _ in bank.rounds():
        pass
    for tuning, kind in zip(tunings, kinds, strict=True):
        same(tuning, alone(kind)[1])
    adapted = tunings[0]
    assert isinstance(adapted, AdaLoRATuning)
    assert sum(adapted.ranks().values()) <= 2 * len(adapted.ranks())
