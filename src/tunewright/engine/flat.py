"""Many small parameters as views of one buffer, so that what an optimizer does to them is one call and not one a tensor.

A LoRA on every linear layer has hundreds of matrices of a few thousand numbers: a call costs as much as its arithmetic. Gradients
are left to autograd (which hands over the tensor that it made) and are copied into their place when the step needs them. That is
cheaper than letting autograd add to views of a buffer of zeros, and a parameter that got no gradient is still seen to have none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.weak import WeakTensorKeyDictionary

# Numbers. Beyond it, copying a gradient takes as long as the calls that it saves: measured on a CPU, even at about 40,000.
LARGEST = 1 << 15
# Sizes are multiples of it, so that no vector instruction spans two parameters and updates have the same bits as alone.
LANES = 16

# Where each parameter was moved to: its storage is shared, but with nobody who would miss it.
_moved: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def fits(parameter: Parameter) -> bool:
    """Whether a parameter may be moved: small, float32, whole, and with a storage that nobody else sees a part of."""
    if type(parameter.data) is not Tensor or parameter.dtype != torch.float32 or not parameter.is_contiguous():
        return False
    storage = parameter.untyped_storage()
    alone = storage.nbytes() == parameter.numel() * parameter.element_size() or _moved.get(parameter) == storage.data_ptr()
    return alone and 0 < parameter.numel() <= LARGEST and parameter.numel() % LANES == 0


class Run(NamedTuple):
    """Parameters that stand side by side in the buffer: their names, and where."""

    names: tuple[str, ...]
    place: slice


class Flat:
    """Parameters of one device moved into one float32 buffer; they keep their identity, shape and values.

    Args:
        parameters: what is moved, by name, all of them `fits`; `parameter.data` becomes a view, so changing a parameter in place
            (`copy_`) goes on working, and giving it another `data` does not.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = dict(parameters)
        self.spans: dict[str, slice] = {}
        end = 0
        for name, parameter in self.parameters.items():
            self.spans[name] = slice(end, end + parameter.numel())
            end += parameter.numel()
        device = next(iter(self.parameters.values())).device if self.parameters else torch.device("cpu")
        self.values = torch.zeros(end, device=device)
        self.gradients = torch.zeros(end, device=device)
        for name, view in self.views(self.values).items():
            parameter = self.parameters[name]
            view.copy_(parameter.detach())
            parameter.data = view
            _moved[parameter] = self.values.untyped_storage().data_ptr()
        places = self.views(self.gradients)
        self._held = {name: (one, one.data_ptr(), places[name]) for name, one in self.parameters.items()}

    def buffer(self) -> Tensor:
        """Zeros laid out like the parameters, for moments."""
        return torch.zeros_like(self.values)

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """The parts of a buffer in the shapes of their parameters."""
        return {name: buffer[span].view(self.parameters[name].shape) for name, span in self.spans.items()}

    def gather(self) -> list[Tensor]:
        """Bring the gradients together; returns the stretches of the buffer that hold them.

        Until the gradients are dropped, `parameter.grad` is then a view of the buffer: what is done to one is done to the other.

        Raises:
            RuntimeError: a parameter was moved out of the buffer (by `network.to(...)`, say), so updates would not reach it.
        """
        came, went, owners = [], [], []
        for name, (parameter, address, place) in self._held.items():
            if parameter.data_ptr() != address:
                raise RuntimeError(f"'{name}' was given other storage after its optimizer was made: make the optimizer afterwards")
            if parameter.grad is not None and parameter.grad is not place:
                came.append(parameter.grad)
                went.append(place)
                owners.append(parameter)
        if came:
            torch._foreach_copy_(went, came)  # pyright: ignore[reportPrivateImportUsage]
        for parameter, place in zip(owners, went, strict=True):
            parameter.grad = place
        return [self.gradients[run.place] for run in self.runs(lambda name: None if self.parameters[name].grad is None else True)]

    def runs(self, kind: Callable[[str], Hashable]) -> Iterator[Run]:
        """The longest stretches of parameters of one kind; those of the kind None are left out."""
        names: list[str] = []
        last: Hashable = None
        for name in self.parameters:
            this = kind(name)
            if names and this != last:
                yield self._run(names)
                names = []
            last = this
            if this is not None:
                names.append(name)
        if names:
            yield self._run(names)

    def _run(self, names: list[str]) -> Run:
        return Run(tuple(names), slice(self.spans[names[0]].start, self.spans[names[-1]].stop))
