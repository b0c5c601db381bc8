"""Steps whose rows share a number that follows from all of them: computed before the first micro-batch, carried by the trees."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tunewright.data.forest import Tree
from tunewright.data.packing import cost, deal
from tunewright.engine.engine import Engine
from tunewright.engine.members import Accumulated
from tunewright.engine.placement import Placement
from tunewright.objectives._reference import Part, ReferredObjective
from tunewright.training.loop import ALONE, Plan, Step

POINT = "reference_point"


@dataclass
class Referring:
    """A plan whose trees carry the number of their step (a `Source` of `fit`).

    A function of the step's rows and of the parameters before it, so a resumed run finds the same. Several processes compute a
    share each; where weights are divided, all of them compute everything.

    Args:
        plan: which rows meet in which step.
        engine: what is trained.
        objective: whose number it is.
        placement: the processes that make the step together.
    """

    plan: Plan
    engine: Engine
    objective: ReferredObjective
    placement: Placement = ALONE
    points: dict[int, float] = field(default_factory=dict, repr=False)

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.plan.seed

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        return self.plan.total

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in one pass over the rows."""
        return self.plan.per_epoch

    def micro_batches(self, step: int) -> list[list[Tree]]:
        """The forward passes of optimizer step `step` (0-based), as the parameters stand."""
        micro = self.plan.micro_batches(step)
        point = self._point(micro)
        self.points = {step: point}
        return [self.objective.referred(trees, point) for trees in micro]

    def step_made(self, number: int, rate: float, made: tuple[float, float, Accumulated], seconds: float) -> Step:
        """The account of optimizer step `number` (0-based), with its number among the facts."""
        step = self.plan.step_made(number, rate, made, seconds)
        if number in self.points:
            step.facts[POINT] = self.points[number]
        return step

    def _point(self, micro: list[list[Tree]]) -> float:
        process, whole = self.placement.process, self.placement.in_step
        prices = [sum(cost(tree).price() for tree in trees) for trees in micro]
        own = range(len(micro)) if whole else deal(prices, process.world)[process.rank]
        with self.placement.readable(), self.engine.evaluating():
            parts = [self.objective.part_of(self.engine, micro[place]) for place in own]
        sums = [math.fsum(part.total for part in parts), sum(part.values for part in parts)]
        return self.objective.point(Part(*(sums if whole else self.placement.sum_numbers(sums))))
