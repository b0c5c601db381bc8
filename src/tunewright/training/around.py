"""What goes around the loop: each wrapper takes steps and yields steps, so they compose like `itertools`.

steps = checkpointed(stop_early(validated(fit(...), ...), ...), ...)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tunewright.core.errors import DivergedError, Interrupted
from tunewright.engine.engine import Engine
from tunewright.training.loop import Step


def validated(steps: Iterator[Step], every: int, measure: Callable[[], dict[str, float]]) -> Iterator[Step]:
    """Fill `validation` after every `every` steps and after the last one.

    Raises:
        DivergedError: a value is not a finite number: the update before it left the range of floats.
    """
    for step in steps:
        if step.number % every == 0 or step.last:
            step.validation = measure()
            _require_finite(step)
        yield step


def _require_finite(step: Step) -> None:
    for name, value in step.validation.items():
        if not math.isfinite(value):
            hint = f"Lower the learning rate (it was {step.learning_rate:.3g}) and start again."
            raise DivergedError(f"the validation {name} is {value}", where=f"step {step.number}", hint=hint)


def watched(steps: Iterator[Step], see: Callable[[Step], None]) -> Iterator[Step]:
    """Show every step to `see` as it passes."""
    for step in steps:
        see(step)
        yield step


@dataclass
class Best:
    """The best validation so far, and the parameters that reached it; part of a run's state.

    Args:
        monitor: the name of the value that is watched.
        higher_is_better: its direction.
        value, step: the best seen; `waited`: validations since then.
        parameters: copies of the trained tensors at the best step.
    """

    monitor: str
    higher_is_better: bool
    value: float | None = None
    step: int = 0
    waited: int = 0
    parameters: dict[str, Tensor] = field(default_factory=dict)

    def see(self, step: Step, engine: Engine) -> None:
        """Take one validation into account."""
        new = step.validation[self.monitor]
        better = self.value is None or (new > self.value if self.higher_is_better else new < self.value)
        self.waited = 0 if better else self.waited + 1
        if better:
            self.value, self.step = new, step.number
            self.parameters = {name: parameter.detach().clone() for name, parameter in engine.parameters.items()}

    def facts(self) -> dict[str, Any]:
        """Everything but the tensors."""
        return {"monitor": self.monitor, "value": self.value, "step": self.step, "waited": self.waited}


def stop_early(steps: Iterator[Step], best: Best, engine: Engine, patience: int) -> Iterator[Step]:
    """Keep the best parameters and end after `patience` validations without improvement; the ending step is marked `last`."""
    for step in steps:
        if step.validation:
            best.see(step, engine)
            step.last = step.last or best.waited >= patience
        yield step
        if step.last:
            return


def checkpointed(
    steps: Iterator[Step], every: int | None, save: Callable[[Step], None], stop_asked: Callable[[], bool] = lambda: False
) -> Iterator[Step]:
    """Save every `every` steps (with each validation when None), at the end, and when a stop was asked for.

    Raises:
        Interrupted: a stop was asked for; the checkpoint of that very step was written before, or a warning says why it was not.
    """
    for step in steps:
        asked = stop_asked() and not step.last
        if asked or step.last or (step.number % every == 0 if every else bool(step.validation)):
            save(step)
        yield step
        if asked:
            raise Interrupted(f"stopped after step {step.number}, as asked", hint="Continue with `tunewright resume`.")
