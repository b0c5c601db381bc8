"""Floor 3: what may change.

An entry is a `Method`: a frozen configuration that attaches a `Tuning` to a model. The top of an entry's file imports no torch
at run time, so that a wrong setting is refused before anything heavy loads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError
from tunewright.core.registry import Room

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from tunewright.engine.members import Member
    from tunewright.models import Model

Gradients = Callable[[int, bool], Iterator[None]]
"""`gradients(rows, one_by_one)` makes the objective's backward pass on the first so many training rows and yields after each pass,
which is of one row, or of a micro-batch. What is in `.grad` by then is the caller's to read and to clear."""


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

    def detach(self) -> None:
        """Leave the base, which then is what it was; a second call does nothing.

        Raises:
            ValueError: the change cannot be taken off, since it is in the base's own weights.
        """
        raise ValueError(f"{type(self).__name__} is in the base's own weights and cannot leave")

    def begin(self, steps: int) -> None:
        """Training is about to start, or to go on, and will be `steps` optimizer updates long in all."""
        return

    def before_update(self) -> None:
        """What precedes each optimizer update: gradients are summed and divided, and may be added to in place; clipping follows."""
        return

    def after_update(self) -> None:
        """What follows each optimizer update of this tuning, for those that keep something in step with their parameters."""
        return

    def after_restore(self) -> None:
        """What follows when the parameters were set from outside: the best ones, those of a checkpoint."""
        return

    def kept(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides the parameters, so that a resumed run goes on exactly; always the same tensors."""
        return {}

    def follow(self, member: Member) -> None:
        """Be told of every update of the member of an engine that trains this tuning."""
        member.arriving, member.updated, member.kept = self.before_update, self.after_update, self.kept()
        member.restored, member.disabled = self.after_restore, self.disabled

    @property
    def wants_gradients(self) -> bool:
        """Whether what is trained is still to be chosen from gradients; until `choose` or `take` there are no `parameters()`."""
        return False

    def choose(self, gradients: Gradients) -> None:
        """Choose what is trained, from gradients of the objective on the base; called once, before the optimizer is made.

        Raises:
            DivergedError: the gradients are not finite.
        """
        return

    def chosen_places(self) -> dict[str, Tensor]:
        """What was chosen, by name; a run keeps it, so that going on with it chooses nothing again. Empty where nothing was."""
        return {}

    def take(self, places: Mapping[str, Tensor]) -> None:
        """Train what `places` say, as `chosen_places` gave them, in place of choosing.

        Raises:
            BaseModelError: they are none of this base's.
        """
        return

    def interpolate(self, factor: float) -> None:
        """Make the change `factor` times as large: at 0 the network is the base, at 1 nothing happens.

        Raises:
            ConfigurationError: the change is none whose size can be set (a soft prompt).
        """
        raise ConfigurationError(f"{type(self).__name__} is no change whose size can be set", where="interpolate")

    @property
    def merges(self) -> bool:
        """Whether `merge` is possible as far as the method alone decides it; a base may still refuse."""
        return True

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
    steep_rate: ClassVar[bool] = False
    """Whether the rate grows faster where a base is small, as it does for what moves its weights or scales what is there."""
    rate_under_new_head: ClassVar[float] = 1.0
    """What the rate is multiplied by where a new head does most of the learning, and pulls at the body while it is random."""
    starts_at_base: ClassVar[bool] = True
    """Whether an untrained tuning computes what the base computes."""
    layouts: ClassVar[tuple[str, ...]] = ("forest", "padded", "sequence_to_sequence")
    """How trees may become tensors under this method; a base that the probe finds fit for more is held to these."""
    peft_type: ClassVar[str | None] = None
    """What PEFT calls it in `adapter_config.json`; None where PEFT has no such method, or another entry reads it."""

    def settled(self, rows: int) -> tuple[Method, dict[str, str]]:
        """The method with what was left open decided for this many training rows, and the reason of each decision."""
        return self, {}

    @abstractmethod
    def attach(self, model: Model, seed: int) -> Tuning:
        """Put the trainable parts on `model`, initialised from `seed`, and freeze everything else."""

    def text_room(self, context: int | None) -> int | None:
        """How many of the `context` tokens of a base are left for a text; None where the base has no limit.

        Raises:
            ConfigurationError: none is left.
        """
        return context

    @classmethod
    def from_folder(cls, folder: Path) -> Method:
        """The method with the settings that a saved tuning's folder describes (`methods._saved.method_of` asks the right one).

        Raises:
            BaseModelError: the folder is damaged, or uses an option that is not computed here; it is named.
        """
        from tunewright.methods._saved import read_own

        return read_own(folder)

    def attach_under_new_head(self, model: Model, seed: int) -> Tuning:
        """`attach` for an objective that reads the body through a new head, so that the base's own head answers nothing."""
        return self.attach(model, seed)


room: Room[Method] = Room("tunewright.methods", Method, "method")  # type: ignore[type-abstract]
