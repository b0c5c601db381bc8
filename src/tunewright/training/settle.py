"""What the user left open is decided here, from the method, the base and the data; every decision comes with its reason."""

from __future__ import annotations

import math
from typing import NamedTuple

from tunewright.core.errors import ConfigurationError
from tunewright.core.units import count_text
from tunewright.methods import Method
from tunewright.methods.head import Head
from tunewright.training.settings import Training


class Settled(NamedTuple):
    """Settings without gaps, and why each gap was filled as it was (by key path)."""

    training: Training
    method: Method
    reasons: dict[str, str]


def settle(training: Training, method: Method, *, rows: int, parameters: int, new_head: bool = False, pace: float = 1.0) -> Settled:
    """Fill in learning rates, rank, batch, epochs.

    Args:
        rows: training rows; `parameters`: of the base; new_head: whether a head is trained that the base does not have.
        pace: what the objective multiplies the method's rate by.

    The learning rate is the method's rate at 100 million parameters times (1e8 / parameters)^(1/3), within a factor of 4: smaller
    networks take larger steps. Below that size methods of `steep_rate` want larger ones still, by the power 2/3 and within a factor
    of 16. Under a new head it is the method's `rate_under_new_head` times as large.
    A new head has the rate of the method `head`, whatever else is trained: it starts from nothing, and at a rate that is right for
    weights that know something already it would hardly move. docs/methods.md has the measurements.
    Batches and epochs aim at a few hundred optimizer steps; early stopping ends what is too long.

    Raises:
        ConfigurationError: a learning rate for a new head, and there is none.
    """
    method, reasons = method.settled(rows)
    chosen: dict[str, float | int] = {}
    size = f"on {count_text(parameters)} parameters"
    if training.learning_rate is None:
        beside = method.rate_under_new_head if new_head else 1.0
        chosen["learning_rate"] = rate = _two_digits(
            _scaled(method.default_learning_rate * pace * beside, parameters, steep=method.steep_rate)
        )
        slower = ("" if pace == 1 else f", times {pace:g} for the objective") + (
            "" if beside == 1 else f", times {beside:g} under a new head"
        )
        reasons["training.learning_rate"] = f"{rate:.2g}: {type(method).__name__} {size}{slower}"
    if training.head_learning_rate is not None and not new_head:
        raise ConfigurationError(
            "there is no new head whose learning rate this could be",
            where="training.head_learning_rate",
            hint="Leave it out; `training.learning_rate` is for everything that is trained here.",
        )
    if new_head and training.head_learning_rate is None:
        given = training.learning_rate if isinstance(method, Head) else None  # nothing but the head is trained: it is meant
        rate = _two_digits(_scaled(Head.default_learning_rate, parameters)) if given is None else given
        chosen["head_learning_rate"] = rate
        reasons["training.head_learning_rate"] = f"{rate:.2g}: a new head {size}"
    if training.batch_size is None:
        batch = 8 if rows < 200 else 16 if rows < 5_000 else 32
        chosen["batch_size"] = batch
        reasons["training.batch_size"] = f"{batch}: {rows} training rows"
    if training.epochs is None and training.max_steps is None:
        epochs = 10 if rows < 200 else 6 if rows < 1_000 else 4 if rows < 5_000 else 2 if rows < 20_000 else 1
        chosen["epochs"] = float(epochs)
        reasons["training.epochs"] = f"{epochs}: {rows} training rows; early stopping ends it sooner"
    return Settled(training.model_copy(update=chosen), method, reasons)


def _scaled(rate: float, parameters: int, steep: bool = False) -> float:
    """A rate at 100 million parameters as one at `parameters`."""
    smaller = min(64.0, max(1 / 64, 1e8 / max(1, parameters)))
    return rate * smaller ** (2 / 3 if steep and smaller > 1 else 1 / 3)


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")


def total_steps(training: Training, rows: int, updates: int = 1) -> int:
    """Optimizer steps of the whole run, `updates` of them on each batch."""
    per_epoch = math.ceil(rows / (training.batch_size or 16)) * updates
    asked = math.ceil(per_epoch * training.epochs) if training.epochs is not None else None
    return min(count for count in (asked, training.max_steps) if count is not None)
