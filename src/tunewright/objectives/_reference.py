"""Objectives whose loss has a number in it that all rows of an optimizer step share, and that follows from all of them.

Such a number would make the loss of a row depend on who stands beside it in a micro-batch. So it is computed once a step, without
gradients and over the whole step, before its first micro-batch, and then travels in the trees (`training/referring.py`): a step can
be cut in any way, and several processes are one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunewright.objectives import Objective

if TYPE_CHECKING:
    from tunewright.data.forest import Tree
    from tunewright.engine.engine import Engine


class Part(NamedTuple):
    """What some trees add to the number that their step shares: a sum, and of how many values."""

    total: float
    values: float


class ReferredObjective(Objective):
    """The abstract objective with a number for each step; its readings, too, depend on all rows that are read."""

    @abstractmethod
    def part_of(self, engine: Engine, trees: Sequence[Tree]) -> Part:
        """What these trees add, as the network stands; called in evaluation mode, without gradients."""

    @abstractmethod
    def point(self, whole: Part) -> float:
        """The number, from the parts of all trees of a step."""

    @abstractmethod
    def referred(self, trees: Sequence[Tree], point: float) -> list[Tree]:
        """The trees as the step learns from them, carrying its number."""
