"""The order of an epoch's rows from easy to hard: a function of seed and epoch, so that a run goes on at any step."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.core.errors import ConfigurationError
from tunewright.core.seeds import derive, shuffled
from tunewright.data.forest import Tree
from tunewright.data.packing import batches_for
from tunewright.engine.engine import Engine
from tunewright.training.aids.settings import Order

BUDGET = 4096  # tokens of one forward pass without gradients


@dataclass(frozen=True)
class Curriculum:
    """The order of each epoch's rows; see `settings.Order`.

    Args:
        order: the settings, of an order that is not shuffled.
        difficulty: of each tree.
        seed: of the run.
    """

    order: Order
    difficulty: tuple[float, ...]
    seed: int

    def __call__(self, epoch: int) -> list[int]:
        """Every tree's index once, in the order of epoch `epoch` (0-based)."""
        count = len(self.difficulty)
        drawn = shuffled(count, self.seed, "order", epoch)
        if self.order.epochs is not None and epoch >= self.order.epochs:
            return drawn
        waiting = sorted(drawn, key=lambda index: self.difficulty[index])  # what is equally hard comes as it was drawn
        draw = random.Random(derive(self.seed, "curriculum", epoch))
        opened: list[int] = []
        order: list[int] = []
        for place in range(count):
            most = max(place + 1, math.ceil(opening(self.order, place / count) * count))
            opened += waiting[len(opened) + place : most]
            chosen = draw.randrange(len(opened))
            opened[chosen], opened[-1] = opened[-1], opened[chosen]
            order.append(opened.pop())
        return order


def opening(order: Order, done: float) -> float:
    """The share of the rows, the easiest ones, that can be drawn after a share `done` of the epoch; never less than that."""
    if order.pace == "stages":
        return max(order.start, (math.floor(done * order.stages) + 1) / order.stages)
    return order.start + (1 - order.start) * (done if order.pace == "linear" else math.sqrt(done))


def difficulty(order: Order, engine: Engine, trees: Sequence[Tree]) -> list[float]:
    """How hard each tree is: its tokens, or the base's mean -log p of its targets.

    Raises:
        ConfigurationError: the base says nothing about these rows, since no token of them is learned.
    """
    if order.by == "length":
        return [float(tree.size) for tree in trees]
    disabled = engine.first.disabled
    if engine.head is not None or disabled is None or not all(tree.trained for tree in trees):
        problem = "the base has no loss of its own for these rows: they are learned by a new head"
        raise ConfigurationError(problem, where="training.aids.order.by", allowed=["length"], given=order.by)
    found = [0.0] * len(trees)
    with disabled(), engine.evaluating():
        for chosen in batches_for(trees, BUDGET):
            scores_N, batch = engine.score([trees[index] for index in chosen])
            bounds = [0]
            for index in chosen:
                bounds.append(bounds[-1] + trees[index].trained)
            costs_N = (-scores_N * batch.weights_N).tolist()
            weights_N = batch.weights_N.tolist()
            for index, start, stop in zip(chosen, bounds, bounds[1:], strict=False):
                found[index] = math.fsum(costs_N[start:stop]) / math.fsum(weights_N[start:stop])
    return found
