"""The one training loop, for every objective and method: a generator of optimizer steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, Protocol

from tunewright.core.errors import DivergedError
from tunewright.core.seeds import derive
from tunewright.data.forest import Tree
from tunewright.data.packing import cost, deal
from tunewright.data.packing import steps as plan_steps
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss
from tunewright.engine.members import Accumulated
from tunewright.engine.placement import Placement
from tunewright.training.schedule import factor

ALONE = Placement()


@dataclass
class Step:
    """One optimizer update, and what wrappers learned right after it.

    `number` counts from 1; `validation` is filled where one took place; `last` marks the final step of the run; `facts` are what
    the source of the step measured on its own (rewards and KL of a rollout).
    """

    number: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    trained: float
    tokens: int
    seconds: float
    last: bool = False
    validation: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The step as `steps.jsonl` keeps it."""
        return asdict(self)


class Source(Protocol):
    """What `fit` asks for the trees of each step: a `Plan`, or rollouts that are drawn when they are needed."""

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        ...

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows."""
        ...

    def micro_batches(self, step: int) -> list[list[Tree]]:
        """The forward passes of optimizer step `step` (0-based)."""
        ...

    def step_made(self, number: int, rate: float, made: tuple[float, float, Accumulated], seconds: float) -> Step:
        """The account of optimizer step `number` (0-based), from what `Engine.step` returned."""
        ...


@dataclass(frozen=True)
class Plan:
    """Which trees meet in which step: a function of the seed and the step's number, never of history.

    Args:
        trees: the training rows, planted.
        batch_size: rows in an optimizer step; the last one of an epoch may be smaller.
        token_budget: tokens in a forward pass.
        total: optimizer steps of the whole run.
        order: gives the order of an epoch (0-based) as every tree's index once; drawn from seed and epoch when None.
    """

    trees: Sequence[Tree]
    batch_size: int
    token_budget: int
    seed: int
    total: int
    order: Callable[[int], Sequence[int]] | None = None

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows."""
        return math.ceil(len(self.trees) / self.batch_size)

    def micro_batches(self, step: int) -> list[list[Tree]]:
        """The forward passes of optimizer step `step` (0-based)."""
        epoch, place = divmod(step, self.per_epoch)
        chosen = _epoch(self, epoch)[place]
        return [[self._tree(index, epoch) for index in batch] for batch in chosen]

    def _tree(self, index: int, epoch: int) -> Tree:
        """A tree as an epoch learns it. What is drawn in it depends on seed, epoch and tree alone; its size is always the same."""
        tree = self.trees[index]
        return tree.redrawn(derive(self.seed, "corruption", epoch, index)) if tree.varies else tree

    def members(self, step: int) -> list[int]:
        """The trees of optimizer step `step` (0-based), as rising indexes."""
        epoch, place = divmod(step, self.per_epoch)
        return sorted(index for batch in _epoch(self, epoch)[place] for index in batch)

    def step_made(self, number: int, rate: float, made: tuple[float, float, Accumulated], seconds: float) -> Step:
        """The account of optimizer step `number` (0-based), from what `Engine.step` returned."""
        mean, norm, done = made
        return Step(
            number=number + 1,
            epoch=(number + 1) / self.per_epoch,
            loss=mean,
            learning_rate=rate,
            gradient_norm=norm,
            trained=done.count,
            tokens=done.tokens,
            seconds=seconds,
            last=number + 1 == self.total,
        )

    def __hash__(self) -> int:
        return id(self)


@lru_cache(maxsize=2)
def _epoch(plan: Plan, epoch: int) -> list[list[list[int]]]:
    sizes = {"batch_size": plan.batch_size, "token_budget": plan.token_budget}
    return plan_steps(plan.trees, **sizes, seed=plan.seed, epoch=epoch, order=None if plan.order is None else plan.order(epoch))


@dataclass(frozen=True)
class Pace:
    """The learning rate over the run, and the clip."""

    learning_rate: float
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 0
    clip: float | None = 1.0

    def rate(self, step: int, total: int) -> float:
        """The learning rate of optimizer step `step` (0-based) of `total`."""
        return self.learning_rate * factor(step, total, self.schedule, self.warmup_steps)


def fit(
    engine: Engine,
    loss: Callable[[Engine, Batch], Loss],
    plan: Source,
    pace: Pace,
    start: int = 0,
    placement: Placement = ALONE,
) -> Iterator[Step]:
    """Train from optimizer step `start` to the end of the plan, yielding after each update.

    Args:
        engine: has the parameters and the optimizer.
        loss: the objective's loss of one batch.
        plan: which rows meet in which step.
        pace: the learning rate's course.
        start: optimizer steps already done (a resumed run); nothing is replayed.
        placement: the processes among which the micro-batches of each step are dealt; all of them yield the same steps.

    Raises:
        DivergedError: the loss or the gradients are not finite; the parameters are those of the step before.
        ProcessLostError: another process of the run has ended.
    """
    engine.training()
    for number in range(start, plan.total):
        began = time.perf_counter()
        rate = pace.rate(number, plan.total)
        try:
            with placement.guarded():
                _add_up(engine, loss, plan, number, placement)
                made = engine.step(rate, pace.clip)
        except DivergedError as error:
            raise DivergedError(
                error.problem,
                where=f"step {number + 1} of {plan.total}",
                hint=f"Lower the learning rate (it was {rate:.3g}) and start again.",
            ) from None
        yield plan.step_made(number, rate, made, time.perf_counter() - began)


def _add_up(engine: Engine, loss: Callable[[Engine, Batch], Loss], plan: Source, number: int, placement: Placement) -> None:
    """Sum loss, count, tokens and gradients of step `number` (0-based) over its micro-batches and over the processes.

    Dropout depends on the step and on the micro-batch's place in it, never on who computes it.

    Raises:
        DivergedError: a loss is not finite, on every process alike.
    """
    micro = plan.micro_batches(number)
    hands = deal([sum(cost(tree).price() for tree in trees) for trees in micro], placement.process.world)
    own = hands[placement.process.rank]
    computed = placement.within(loss)
    failed = False
    for place in own:
        try:
            engine.forward_backward([engine.collate(micro[place])], computed, derive(plan.seed, "step", number, place))
        except DivergedError:
            if placement.process.world == 1:
                raise
            failed = True
            break
    for _ in range(max(map(len, hands)) - len(own) if placement.in_step else 0):
        # Weights are gathered in every pass, so whoever has fewer micro-batches takes part with one that counts for nothing.
        idle = engine.collate(min(micro, key=lambda trees: sum(tree.size for tree in trees)))
        engine.forward_backward([idle], _nothing(computed), 0)
        engine.accumulated.tokens -= idle.tokens
    done = engine.accumulated
    total, count, tokens = placement.sum_numbers([math.nan if failed else done.total, done.count, done.tokens])
    if not math.isfinite(total):
        engine.forget()
        raise DivergedError(f"the loss is {total}, not a finite number")
    placement.sum_gradients(engine.parameters)
    done.total, done.count, done.tokens = total, count, int(tokens)


def _nothing(loss: Callable[[Engine, Batch], Loss]) -> Callable[[Engine, Batch], Loss]:
    """`loss` times zero: the same work, no gradient."""

    def zero(engine: Engine, batch: Batch) -> Loss:
        total, count = loss(engine, batch)
        return Loss(total * 0.0, count * 0.0)

    return zero


def require_finite(engine: Engine, placement: Placement = ALONE) -> None:
    """Raise `DivergedError` on every process when a trained tensor holds a number that is not finite on any of them."""
    failure = None
    try:
        engine.check_finite()
    except DivergedError as error:  # of divided tensors each process sees its own part
        failure = error
    if placement.any(failure is not None):
        raise failure or DivergedError("a trained tensor holds numbers that are not finite")
