"""Full fine-tuning: every weight of the base may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunewright.methods import Method
from tunewright.methods._selection import own_parameters
from tunewright.methods._weights import WeightsTuning

if TYPE_CHECKING:
    from tunewright.models import Model


class Full(Method):
    """Trains every weight of the base.

    Source: the standard practice since Howard and Ruder, "ULMFiT", arXiv 1801.06146.
    Cost: all parameters; three float32 numbers for each (gradient and two moments) and a copy to compare with the base.
    Use when: the task is far from what the base knows, the base is small, or quality matters more than size. Avoid when: memory is
    short, many tunings share a base, or forgetting must stay small.
    Raises: nothing of its own.
    """

    default_learning_rate: ClassVar[float] = 5e-5
    steep_rate: ClassVar[bool] = True
    rate_under_new_head: ClassVar[float] = 0.5

    def attach(self, model: Model, seed: int) -> WeightsTuning:
        """Mark every weight as trained."""
        return WeightsTuning(model, own_parameters(model))
