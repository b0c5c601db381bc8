"""One change of hidden states by one tuning: what every kind of them is. The arithmetic is each kind's own.

Shape suffixes: T tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Self

from torch import Tensor

from tunewright.models.attached import Attached
from tunewright.models.lanes import Places


class Tokens(NamedTuple):
    """Which tokens a change is given.

    Args:
        start, stop: where they stand among all that the layer computes.
        places: where each of all these stands in its prompt; None where the network runs without the engine, and everything is
            prompt.
        width: tokens of a row, of which there may be several; it matters where `places` is None.
    """

    start: int
    stop: int
    places: Places | None
    width: int


class HiddenChange(Attached, ABC):
    """Maps the hidden states of its tuning's tokens at one place of a network.

    Attributes:
        enabled: whether it changes anything now.
        reads_places: whether it depends on where tokens stand in their prompts.
    """

    names: ClassVar[dict[str, str]] = {}
    """What the parameters are called in files, to the attributes that they are here."""
    reads_places: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    @abstractmethod
    def forward(self, hidden_TD: Tensor, tokens: Tokens, read_TD: Tensor) -> Tensor:
        """What takes the place of `hidden_TD`, of the same shape and dtype.

        Args:
            hidden_TD: what the network computed.
            read_TD: what the change is computed from: `hidden_TD` itself, or the input of a stretch of which that is the output.
        """

    @abstractmethod
    def resize(self, factor: float) -> None:
        """The change becomes `factor` times as large; called without gradients."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to another device, but not to fewer digits: parameters are the masters that training adds to."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(fn(parameter.data).device)
        return self
