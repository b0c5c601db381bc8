"""One member's step: divided once, clipped by its norm, refused whole, and nothing left over."""

from __future__ import annotations

import pytest
import torch
from torch.nn import Parameter

from tunewright.core.errors import DivergedError
from tunewright.engine.members import Accumulated, Member
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.settings import AdamW


class Noting(Optimizer):
    """Notes the gradients that an update is made from, and makes none."""

    seen: list[torch.Tensor]

    def update(self, learning_rate: float) -> None:
        self.seen = [parameter.grad.clone() for parameter in self.parameters.values() if parameter.grad is not None]
        self.rate = learning_rate
        for parameter in self.parameters.values():
            parameter.grad = None


def ready(*gradients: tuple[float, ...], count: float = 2.0) -> tuple[Member, Noting]:
    """A member whose parameters are ones, with a loss of 6 and these gradients added up."""
    parameters = {f"p{number}": Parameter(torch.ones(len(values))) for number, values in enumerate(gradients)}
    optimizer = Noting(AdamW(), parameters)
    for parameter, values in zip(parameters.values(), gradients, strict=True):
        parameter.grad = torch.tensor(values)
    return Member(parameters, optimizer, accumulated=Accumulated(6.0, count, 9)), optimizer


def assert_forgotten(member: Member) -> None:
    assert member.accumulated == Accumulated()
    assert member.failure is None
    assert all(parameter.grad is None for parameter in member.parameters.values())
    assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in member.parameters.values())


@pytest.mark.parametrize(("clip", "share"), [(None, 1.0), (6.5, 1.0), (7.0, 1.0), (1.3, 0.2)])
def test_the_sum_is_divided_and_the_norm_of_all_is_clipped(clip: float | None, share: float):
    member, optimizer = ready((6.0, 0.0), (8.0, -7.7459666924))  # of norm 12.6491 together, half of it after the division
    mean, norm, done = member.update(0.25, clip)
    assert (mean, done, optimizer.rate) == (3.0, Accumulated(6.0, 2.0, 9), 0.25)
    assert norm == pytest.approx(160**0.5 / 2)
    wanted = torch.tensor([3.0, 0.0, 4.0, -3.8729833]) * (share if share == 1.0 else 1.3 / norm)
    torch.testing.assert_close(torch.cat(optimizer.seen), wanted, rtol=1e-5, atol=1e-6)
    assert_forgotten(member)


def test_a_real_optimizer_moves_against_the_gradient():
    member, _ = ready((4.0, -4.0))
    member.optimizer = Optimizer(AdamW(weight_decay=0.0), member.parameters)
    member.update(0.1, 1.0)
    torch.testing.assert_close(member.parameters["p0"].detach(), torch.tensor([0.9, 1.1]))
    assert member.parameters["p0"].grad is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_norm_that_is_not_finite_changes_nothing(value: float):
    member, optimizer = ready((1.0, 2.0), (3.0, value))
    with pytest.raises(DivergedError, match=f"the gradient norm is {value}, not a finite number"):
        member.update(0.1, 1.0)
    assert not hasattr(optimizer, "seen")
    assert_forgotten(member)


def test_a_failure_that_was_noted_is_raised_at_the_step_and_then_over():
    member, optimizer = ready((1.0, 2.0))
    member.failure = failure = DivergedError("the loss is nan, not a finite number")
    with pytest.raises(DivergedError) as caught:
        member.update(0.1, 1.0)
    assert caught.value is failure
    assert not hasattr(optimizer, "seen")
    assert_forgotten(member)
    member.parameters["p0"].grad = torch.ones(2)
    member.accumulated = Accumulated(1.0, 1.0, 1)
    assert member.update(0.1, None)[0] == 1.0  # the next step is made


def test_a_step_without_a_target_is_refused():
    for member, _ in (ready((1.0,), count=0.0), ready()):
        with pytest.raises(DivergedError, match="there was no target in the whole step"):
            member.update(0.1, 1.0)
        assert_forgotten(member)


def test_a_member_for_evaluation_makes_no_step():
    with pytest.raises(ValueError, match="it has no optimizer"):
        Member({}).update(0.1, 1.0)


def test_members_add_up_apart():
    one, other = Member({}), Member({})
    one.accumulated.count += 1
    assert other.accumulated.count == 0


def test_who_follows_a_member_adds_to_divided_gradients_before_they_are_clipped():
    member, optimizer = ready((6.0, 8.0))
    heard: list[object] = []

    def arriving() -> None:
        gradient = member.parameters["p0"].grad
        assert gradient is not None
        heard.append(gradient.tolist())
        gradient.add_(torch.tensor([3.0, 4.0]))

    member.arriving, member.updated = arriving, lambda: heard.append(optimizer.seen[0].tolist())
    _, norm, _ = member.update(0.1, 1.0)
    assert norm == pytest.approx(10.0)
    assert heard[0] == [3.0, 4.0]
    assert heard[1] == pytest.approx([0.6, 0.8], rel=1e-5)
    member, _ = ready((float("nan"),))
    member.updated = lambda: heard.append("an update that was not made")
    with pytest.raises(DivergedError):
        member.update(0.1, 1.0)
    assert len(heard) == 2
