"""Floor 3: what is minimised.

An entry is an `Objective`: a frozen configuration that turns rows into trees (`plant`) and a batch into a loss. The top of an
entry's file imports no torch at run time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from tunewright.core.configuration import Strict
from tunewright.core.registry import Room
from tunewright.data.rows import Row

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer
    from tunewright.engine.batch import Batch
    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss
    from tunewright.models import Model
    from tunewright.models.heads import ClassificationHead


class Objective(Strict, ABC):
    """What is minimised, as a configuration. Subclass = frozen configuration = itself.

    Contract (tested for every entry): the loss is a sum and a count, so cutting a step into other micro-batches changes nothing
    but rounding; every planted tree with a target contributes; a row that cannot be used is refused with its reason.
    """

    rows: ClassVar[tuple[type[Row], ...]]
    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def plant(self, rows: Sequence[Row], renderer: Renderer) -> list[Rendered | Refusal]:
        """Each row as a tree to train on, or the reason why it cannot be one; in order."""

    @abstractmethod
    def loss(self, engine: Engine, batch: Batch) -> Loss:
        """The loss of one batch as (total, count)."""

    def make_head(self, model: Model, labels: Sequence[str], seed: int) -> ClassificationHead | None:
        """A new head for the model, or None when the base's own is used."""
        return None


room: Room[Objective] = Room("tunewright.objectives", Objective, "objective")  # type: ignore[type-abstract]
