"""The tunings of a bank: parameters, optimizer, head and sums belong to each one; the base and its forward pass are shared."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import Parameter

from tunewright.core.errors import DivergedError
from tunewright.engine.optimizers import Optimizer
from tunewright.models.heads import ClassificationHead


@dataclass
class Accumulated:
    """What the micro-batches of one optimizer step have added up to so far."""

    total: float = 0.0
    count: float = 0.0
    tokens: int = 0


@dataclass
class Member:
    """One tuning of the bank.

    Args:
        parameters: what it trains, by stable name; empty for evaluation only.
        optimizer: its own, with its own state; None for evaluation only.
        head: the classification head that its objective reads, if any.
        accumulated: the sums of the step that is being added up.
        failure: why the step at hand cannot be made, found while others went on.
    """

    parameters: dict[str, Parameter]
    optimizer: Optimizer | None = None
    head: ClassificationHead | None = None
    accumulated: Accumulated = field(default_factory=Accumulated)
    failure: DivergedError | None = None

    def forget(self) -> None:
        """Drop what has been added up for a step that will not be made."""
        self.accumulated, self.failure = Accumulated(), None
        for parameter in self.parameters.values():
            parameter.grad = None

    def update(self, learning_rate: float, clip: float | None) -> tuple[float, float, Accumulated]:
        """Divide the gradients by the count, clip their norm, update; returns (mean loss, norm before clipping, sums).

        Raises:
            DivergedError: the loss or the gradients are not finite, or there was no target; the parameters are as before.
        """
        if self.optimizer is None:
            raise ValueError("this engine was made for evaluation: it has no optimizer")
        failure, done = self.failure, self.accumulated
        gradients = self.optimizer.gradients()
        if failure is None and (not gradients or done.count <= 0):
            failure = DivergedError("no trainable parameter received a gradient: there was no target in the whole step")
        if failure is not None:
            self.forget()
            raise failure
        self.accumulated = Accumulated()
        torch._foreach_div_(gradients, done.count)  # pyright: ignore[reportPrivateImportUsage]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not norm < float("inf"):  # NaN included
            self.forget()
            raise DivergedError(f"the gradient norm is {norm}, not a finite number")
        if clip is not None and norm > clip:
            torch._foreach_mul_(gradients, clip / (norm + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
        self.optimizer.update(learning_rate)
        return done.total / done.count, norm, done
