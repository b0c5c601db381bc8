"""Weights held near the base's: added to the gradients of a step, once, when they are divided and not yet clipped.

With d = w - w_base of a weight and F its Fisher information:  penalty = l2 / 2 * sum d^2 + ewc / 2 * sum F d^2.
Where a weight is trained itself, its gradient gets (l2 + ewc F) d. Where a low-rank change stands beside it, d = scale * B A is the
change, and A and B get what follows from that; |B A|^2 = sum((B^T B) * (A A^T)) needs no [O, I]. What a method adds to a base
elsewhere has no weight of the base to be near to: l2 then holds it to where it started.

The penalty is no part of the loss that is logged: it stands beside it among the step's facts.

Source: Li et al., "Explicit inductive bias for transfer learning with convolutional networks" (L2-SP), arXiv 1802.01483;
Kirkpatrick et al. (EWC), arXiv 1612.00796.

Shape suffixes: R rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from tunewright.engine.linear import Change
from tunewright.engine.members import Member
from tunewright.methods import Tuning
from tunewright.methods._weights import WeightsTuning
from tunewright.models import Model

L2, EWC = "l2_to_base", "ewc"


@dataclass(frozen=True)
class Held:
    """What may move of a base, and from where.

    Args:
        weights: trained tensors with the values that they are held to, by name.
        changes: low-rank changes, by the name of the base's weight that each stands beside.
        of_base: whether `weights` are the base's own, and not what a method has added to it.
    """

    weights: Mapping[str, tuple[Parameter, Tensor]]
    changes: Mapping[str, Change]
    of_base: bool


def held_of(model: Model, tuning: Tuning, trained: Mapping[str, Parameter]) -> Held:
    """What a tuning moves of its base, which it has not moved yet.

    Changes with magnitudes of their own (DoRA) are no product of A and B, and count as tensors that were added.

    Args:
        trained: the tensors that are trained by now (each process may hold a part), by the names of `tuning.parameters()`.
    """
    parameters = {name: trained[name] for name in tuning.parameters()}
    if isinstance(tuning, WeightsTuning):
        return Held({name: (one, tuning.originals[name]) for name, one in parameters.items()}, {}, of_base=True)
    own = {id(one) for one in parameters.values()}
    changes = {
        f"{path.rpartition('.')[0]}.weight": module
        for path, module in model.network.named_modules()
        if isinstance(module, Change) and not module.gained and module.mergeable and _all_in(module, own)
    }
    inside = {id(one) for change in changes.values() for one in change.parameters()}
    loose = {name: (one, one.detach().clone()) for name, one in parameters.items() if id(one) not in inside}
    return Held(loose, changes, of_base=False)


def _all_in(module: Change, trained: set[int]) -> bool:
    own = [id(one) for one in module.parameters()]
    return bool(own) and set(own) <= trained


@dataclass
class Anchors:
    """What pulls the weights of one tuning to the base's.

    Args:
        held: what may move.
        l2: beta.
        ewc: lambda; fisher: F by the names of `held`, divided over processes as the weights are.

    Attributes:
        penalties: of the last step, before its update, by the name of the aid.
    """

    held: Held
    l2: float = 0.0
    ewc: float = 0.0
    fisher: Mapping[str, Tensor] = field(default_factory=dict)
    penalties: dict[str, float] = field(default_factory=dict)

    def join(self, member: Member) -> None:
        """Pull before each update of a member from now on; what its method adds to the gradients comes after."""
        before: Callable[[], None] | None = member.arriving

        def both() -> None:
            self.pull()
            if before is not None:
                before()

        member.arriving = both

    def pull(self) -> None:
        """Add the penalty's gradients to those that stand."""
        found = [self._pull_weight(name, *one) for name, one in self.held.weights.items()]
        found += [self._pull_change(name, one) for name, one in self.held.changes.items()]
        sums = torch.stack([torch.stack(one) for one in found if one is not None] or [torch.zeros(2)]).double().sum(0)
        both = dict(zip((L2, EWC), sums.tolist(), strict=True))
        wanted = {L2: self.l2 > 0, EWC: self.ewc > 0}
        self.penalties = {name: value for name, value in both.items() if wanted[name]}

    @torch.no_grad()
    def _pull_weight(self, name: str, parameter: Parameter, start: Tensor) -> tuple[Tensor, Tensor] | None:
        """Both penalties of a trained weight; None where the whole step did not touch it, so that it is not updated either."""
        if parameter.grad is None:
            return None
        apart, fisher = parameter.detach() - start, self.fisher.get(name)
        squares = apart.square()
        l2 = _whole(squares.sum()) * (self.l2 / 2)
        ewc = torch.zeros_like(l2) if fisher is None else _whole((squares * fisher).sum()) * (self.ewc / 2)
        if self.l2:
            parameter.grad.add_(apart, alpha=self.l2)
        if fisher is not None:
            parameter.grad.addcmul_(apart, fisher, value=self.ewc)
        return l2, ewc

    @torch.enable_grad()
    def _pull_change(self, name: str, change: Change) -> tuple[Tensor, Tensor] | None:
        """Both penalties of a low-rank change, whose gradients reach whatever A and B are made of."""
        own = [one for one in change.parameters() if one.grad is not None]
        if not own:
            return None
        A_RI, B_OR = change.pair()
        l2 = ((B_OR.T @ B_OR) * (A_RI @ A_RI.T)).sum() * (change.scale**2 * self.l2 / 2)
        fisher = self.fisher.get(name)
        ewc = torch.zeros_like(l2)
        if fisher is not None:
            ewc = ((B_OR @ A_RI).square() * change.laid(fisher)).sum() * (change.scale**2 * self.ewc / 2)
        for one, slope in zip(own, torch.autograd.grad(l2 + ewc, own, allow_unused=True), strict=True):
            if slope is not None:
                assert one.grad is not None
                one.grad.add_(slope)
        return l2.detach(), ewc.detach()


def _whole(value: Tensor) -> Tensor:
    """The sum over all processes where each holds a part of a weight."""
    return value.full_tensor() if isinstance(value, DTensor) else value
