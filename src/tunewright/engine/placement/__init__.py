"""Where the processes of a run meet: what each one computes, what is summed over all, and who decides.

`Placement` is the case of one process, in which everything is here and nothing has to be said. `Replicated` keeps the whole network
on every process and sums gradients; `Sharded` keeps a part of it on each (FSDP2). Everything above asks these methods and never
`torch.distributed`, so that one process runs the same code as many.

The rule for whoever calls: a method marked *together* must be called by every process, in the same order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tunewright.core.errors import WorkError
from tunewright.core.surroundings import Process

if TYPE_CHECKING:
    from torch.nn import Parameter

    from tunewright.engine.engine import Engine
    from tunewright.engine.loss import Loss

LossOf = Callable[["Engine", Any], "Loss"]


class ProcessLostError(WorkError):
    """Another process of the run has ended or does not answer; what it said about itself is the reason."""


class Placement:
    """One process.

    Args:
        process: who this is among how many.
    """

    name = "alone"
    in_step = False
    """Whether every process must make equally many forward passes, because weights are gathered in each."""

    def __init__(self, process: Process = Process()) -> None:  # noqa: B008 - an immutable value
        self.process = process

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, speaks and decides."""
        return self.process.rank == 0

    # ---- agreement --------------------------------------------------------------------------------------------------------

    def tell(self, value: Any) -> Any:
        """Together: the value that the first process gives, as plain JSON values; those of the others are not looked at."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Together: the plain JSON values of all processes, in order, on each."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Together: whether it holds on any process."""
        return flag

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Raise `ProcessLostError` where another process went away in the middle of something that is done together."""
        yield

    # ---- one optimizer step -----------------------------------------------------------------------------------------------

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Together: each number summed over the processes, in float64; not finite where any is not."""
        return [float(number) for number in numbers]

    def sum_gradients(self, parameters: Mapping[str, Parameter]) -> None:
        """Together: every gradient becomes the sum of those of all processes; one that no process has stays None."""

    def within(self, loss: LossOf) -> LossOf:
        """`loss` as it has to be called while weights are divided; the same where they are not."""
        return loss

    # ---- whole tensors ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        """Together: inside, without gradients, every part of the network may be called by itself."""
        yield

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Together: the tensors undivided; empty on every process but the first, which alone writes."""
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def given(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Together: the tensors of the first process on each, divided as those of the same name in `like` are.

        Args:
            tensors: whole; those of the other processes are not looked at.
            like: by the part of a name behind the first `/`, as optimizer states have it, or by the name itself.
        """
        return dict(tensors)

    @contextlib.contextmanager
    def written(self, *modules: nn.Module) -> Iterator[None]:
        """Together: inside, the modules of the first process hold whole tensors, so that they can be saved as always."""
        yield
