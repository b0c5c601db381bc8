"""The tunings of a bank: parameters, optimizer, head and sums belong to each one; the base and its forward pass are shared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright.core.errors import DivergedError
from tunewright.engine.optimizers import Optimizer
from tunewright.models.heads import Head


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
        head: the task head that its objective reads, if any.
        accumulated: the sums of the step that is being added up.
        failure: why the step at hand cannot be made, found while others went on.
        arriving: called before each update with the gradients divided and not yet clipped, for a method that adds to them.
        updated: called after each optimizer update, for a method that keeps something in step with its parameters.
        restored: called after the parameters were set from outside (the best ones, those of a checkpoint).
        kept: what a checkpoint must hold besides parameters and optimizer, by name; the tensors are written to in place.
        disabled: a context in which the network computes what it does without this tuning: the reference of a preference; None
            where there is no such thing any more (a tuning that was merged).
        of_base: what objectives have computed in it, by the tokens that it is a constant of.
    """

    parameters: dict[str, Parameter]
    optimizer: Optimizer | None = None
    head: Head | None = None
    accumulated: Accumulated = field(default_factory=Accumulated)
    failure: DivergedError | None = None
    arriving: Callable[[], None] | None = None
    updated: Callable[[], None] | None = None
    restored: Callable[[], None] | None = None
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    disabled: Callable[[], AbstractContextManager[None]] | None = None
    of_base: dict[Hashable, tuple[float, ...]] = field(default_factory=dict)

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
        if self.arriving is not None:
            self.arriving()
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not norm < float("inf"):  # NaN included
            self.forget()
            raise DivergedError(f"the gradient norm is {norm}, not a finite number")
        if clip is not None and norm > clip:
            torch._foreach_mul_(gradients, clip / (norm + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
        self.optimizer.update(learning_rate)
        if self.updated is not None:
            self.updated()
        return done.total / done.count, norm, done
