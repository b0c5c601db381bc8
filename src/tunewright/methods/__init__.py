"""Floor 3: what may change.

An entry is a `Method`: a frozen configuration that attaches a `Tuning` to a model. The top of an entry's file imports no torch
at run time, so that a wrong setting is refused before anything heavy loads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tunewright.core.configuration import Strict
from tunewright.core.registry import Room

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from tunewright.models import Model


class Tuning(ABC):
    """The attached change: the only thing that training may touch.

    Contract (tested for every method): disabled = base exactly; only its own parameters change; saved and loaded = same logits;
    merged = attached, or merging is refused with the reason.
    """

    @abstractmethod
    def parameters(self) -> dict[str, Parameter]:
        """Every trainable parameter by a name that is stable across processes."""

    @abstractmethod
    def disabled(self) -> AbstractContextManager[None]:
        """Within the context the network computes what the base computes."""

    @abstractmethod
    def merge(self) -> None:
        """Put the change into the base's own weights for good; the network is then a plain one."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the change into an existing folder; see the method for the format."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read the change back from a folder that `save` wrote."""

    @property
    def folder_name(self) -> str:
        """Where a run keeps it: `adapter` beside a base, or `model` when it is a whole one."""
        return "adapter"

    def count(self) -> int:
        """How many numbers are trainable."""
        return sum(parameter.numel() for parameter in self.parameters().values())

    def moved(self, parameters: Mapping[str, Parameter]) -> None:
        """Take note that other tensors now stand where the trained ones stood: each process holds a part of every one.

        Args:
            parameters: the new ones, by the names of `parameters()`; others may be among them.

        Raises:
            ValueError: this tuning's parameters are never divided.
        """
        raise ValueError(f"{type(self).__name__} is not divided over processes")

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What a checkpoint keeps: the trainable values, by name."""
        for name, parameter in self.parameters().items():
            yield name, parameter.detach()


class Method(Strict, ABC):
    """What may change, as a configuration. Subclass = frozen configuration = itself."""

    default_learning_rate: ClassVar[float]
    """For a base of 100 million parameters; `training.settle` scales it."""

    def settled(self, rows: int) -> tuple[Method, dict[str, str]]:
        """The method with what was left open decided for this many training rows, and the reason of each decision."""
        return self, {}

    @abstractmethod
    def attach(self, model: Model, seed: int) -> Tuning:
        """Put the trainable parts on `model`, initialised from `seed`, and freeze everything else."""

    def attach_under_new_head(self, model: Model, seed: int) -> Tuning:
        """`attach` for an objective that reads the body through a new head, so that the base's own head answers nothing."""
        return self.attach(model, seed)


room: Room[Method] = Room("tunewright.methods", Method, "method")  # type: ignore[type-abstract]
