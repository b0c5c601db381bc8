"""Several tunings trained side by side on one base: one forward and one backward pass a round, one optimizer step for each.

A search, folds, seeds, federated clients and tenants of a service are this and not seven mechanisms. What a tuning becomes does not
depend on who stands beside it: its gradients are those of training alone, to the order of summation. (Dropout is the exception:
its masks are drawn for the shared row, so with dropout a tuning's draws depend on its neighbours.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from tunewright.core.errors import DivergedError
from tunewright.core.seeds import derive
from tunewright.data.forest import Tree
from tunewright.data.packing import batches_for
from tunewright.engine.engine import Engine, LossFunction
from tunewright.engine.members import Member
from tunewright.methods import Tuning
from tunewright.training.loop import Pace, Plan, Step


@dataclass
class Trainee:
    """What one tuning of a bank is trained on, towards what, and how fast.

    Args:
        loss: the objective's loss of one batch.
        plan: which rows meet in which step; `pace`: the course of its learning rate, and its clip.
        done: optimizer steps made so far.
    """

    loss: LossFunction
    plan: Plan
    pace: Pace
    done: int = 0

    @property
    def finished(self) -> bool:
        """Whether its plan is carried out."""
        return self.done >= self.plan.total


class Bank:
    """The tunings that are being trained, and the rounds they make together.

    Args:
        engine: the base's engine.
        token_budget: tokens of one forward pass, all tunings together.
    """

    def __init__(self, engine: Engine, token_budget: int = 2048) -> None:
        self.engine, self.token_budget = engine, token_budget
        self.trainees: dict[int, Trainee] = {}
        self.failed: dict[int, DivergedError] = {}

    def join(self, slot: int, member: Member, trainee: Trainee, tuning: Tuning | None = None) -> None:
        """A tuning comes in; from the next round on it takes part.

        Args:
            slot: the number it was attached under (`tuning.slot`).
            tuning: the tuning itself, for methods that follow their training (AdaLoRA gives ranks away, LoReFT recentres).
        """
        if tuning is not None:
            tuning.follow(member)
            tuning.begin(trainee.plan.total)
        if slot not in self.engine.members or self.engine.members[slot] is not member:
            self.engine.join(slot, member)
        self.failed.pop(slot, None)
        self.trainees[slot] = trainee

    def leave(self, slot: int) -> Member:
        """A tuning goes out with what is its own, finished or not; the others are not disturbed."""
        self.trainees.pop(slot, None)
        return self.engine.leave(slot)

    def rounds(self) -> Iterator[dict[int, Step]]:
        """The step of every tuning that is not finished, round by round, until all are.

        Tunings may join and leave between rounds. One whose loss or gradients are not finite stops there: its parameters are those
        of the step before, the reason stands in `failed`, and the others go on.
        """
        while active := {slot: one for slot, one in self.trainees.items() if not one.finished and slot not in self.failed}:
            yield self._round(active)

    def _round(self, active: dict[int, Trainee]) -> dict[int, Step]:
        began = time.perf_counter()
        trees: list[Tree] = []
        for slot, one in active.items():
            trees += [tree.owned_by(slot) for tree in chain.from_iterable(one.plan.micro_batches(one.done))]
        batches = [self.engine.collate([trees[index] for index in chosen]) for chosen in batches_for(trees, self.token_budget)]
        seed = derive(min(one.plan.seed for one in active.values()), "round", sum(one.done for one in active.values()))
        self.engine.training()
        self.engine.forward_backward(batches, {slot: one.loss for slot, one in active.items()}, seed)
        made = {}
        for slot, one in active.items():
            rate = one.pace.rate(one.done, one.plan.total)
            try:
                sums = self.engine.step(rate, one.pace.clip, slot)
            except DivergedError as error:
                self.failed[slot] = DivergedError(error.problem, where=f"step {one.done + 1} of {one.plan.total} of tuning {slot}")
                continue
            made[slot] = one.plan.step_made(one.done, rate, sums, time.perf_counter() - began)
            one.done += 1
        return made
