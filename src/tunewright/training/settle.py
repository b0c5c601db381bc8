"""What the user left open is decided here, from the method, the base and the data; every decision comes with its reason."""

from __future__ import annotations

import math
from typing import NamedTuple

from tunewright.core.units import count_text
from tunewright.methods import Method
from tunewright.training.settings import Training


class Settled(NamedTuple):
    """Settings without gaps, and why each gap was filled as it was (by key path)."""

    training: Training
    method: Method
    reasons: dict[str, str]


def settle(training: Training, method: Method, *, rows: int, parameters: int) -> Settled:
    """Fill in learning rate, rank, batch, epochs.

    Args:
        rows: training rows; `parameters`: of the base.

    The learning rate is the method's rate at 100 million parameters times (1e8 / parameters)^(1/3), within a factor of 4: smaller
    networks take larger steps. Batches and epochs aim at a few hundred optimizer steps; early stopping ends what is too long.
    """
    method, reasons = method.settled(rows)
    chosen: dict[str, float | int] = {}
    if training.learning_rate is None:
        rate = method.default_learning_rate * min(4.0, max(0.25, (1e8 / max(1, parameters)) ** (1 / 3)))
        chosen["learning_rate"] = float(f"{rate:.2g}")
        reasons["training.learning_rate"] = f"{rate:.2g}: {type(method).__name__} on {count_text(parameters)} parameters"
    if training.batch_size is None:
        batch = 8 if rows < 200 else 16 if rows < 5_000 else 32
        chosen["batch_size"] = batch
        reasons["training.batch_size"] = f"{batch}: {rows} training rows"
    if training.epochs is None and training.max_steps is None:
        epochs = 10 if rows < 200 else 6 if rows < 1_000 else 4 if rows < 5_000 else 2 if rows < 20_000 else 1
        chosen["epochs"] = float(epochs)
        reasons["training.epochs"] = f"{epochs}: {rows} training rows; early stopping ends it sooner"
    return Settled(training.model_copy(update=chosen), method, reasons)


def total_steps(training: Training, rows: int, updates: int = 1) -> int:
    """Optimizer steps of the whole run, `updates` of them on each batch."""
    per_epoch = math.ceil(rows / (training.batch_size or 16)) * updates
    asked = math.ceil(per_epoch * training.epochs) if training.epochs is not None else None
    return min(count for count in (asked, training.max_steps) if count is not None)
