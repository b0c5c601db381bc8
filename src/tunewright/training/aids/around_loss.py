"""An objective's loss with the aids that stand around it."""

from __future__ import annotations

from dataclasses import dataclass

from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine, LossFunction
from tunewright.engine.loss import Loss
from tunewright.engine.noise import EmbeddingNoise
from tunewright.models import Model
from tunewright.training.aids.r_drop import RDrop
from tunewright.training.aids.settings import Aids


@dataclass(frozen=True)
class Noisy:
    """A loss whose passes read noisy embeddings; see `engine.noise`."""

    loss: LossFunction
    noise: EmbeddingNoise

    def __call__(self, engine: Engine, batch: Batch) -> Loss:
        with self.noise.during(batch):
            return self.loss(engine, batch)


def loss_with(aids: Aids, loss: LossFunction, model: Model, *, by_row: bool = False) -> LossFunction:
    """An objective's loss as it is trained on; the same where no aid changes it.

    Args:
        aids: the settings.
        loss: the objective's.
        model: with everything attached that will be.
        by_row: the loss is a sum over rows and not over tokens (preferences).
    """
    if aids.r_drop:
        loss = RDrop(loss, aids.r_drop, by_row)
    if aids.neftune:
        loss = Noisy(loss, EmbeddingNoise(model, aids.neftune))
    return loss
