"""Layers of one block that read the same input (query, key and value; gate and up) and are computed together.

The network stays as it is and calls one layer after the other. The first that is called computes all; the others are handed what
waits for them if they are given the very same tensor. Nothing waits longer than the parent module's forward call, however that
ends. Layers that turn out to read different inputs part for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from tunewright.models.sites import reads_another, roles

_TOGETHER = (("attention.query", "attention.key", "attention.value"), ("mlp.gate", "mlp.up"))

Layer = TypeVar("Layer", bound=nn.Module)


class Siblings(Generic[Layer]):
    """The layers of one parent that are computed together.

    Args:
        parent: the module whose forward call calls all of them.
        members: the layers, in any order.
        compute: the outputs of some of them for one x, in their order.
    """

    def __init__(
        self, parent: nn.Module, members: Sequence[Layer], compute: Callable[[Sequence[Layer], Tensor], tuple[Tensor, ...]]
    ) -> None:
        self.members, self._compute = tuple(members), compute
        self._parts = [self.members]
        self._x: Tensor | None = None
        self._version = 0
        self._waiting: dict[Layer, Tensor] = {}
        # Without it, what waits would outlive a forward pass that was broken off, and the graph below with it.
        self._hook = parent.register_forward_hook(self._forget, always_call=True)

    def take(self, layer: Layer, x: Tensor) -> Tensor:
        """The output of `layer`, one of the members, for x."""
        if layer in self._waiting:
            if self._x is x and self._version == _version(x):
                output = self._waiting.pop(layer)
                if not self._waiting:
                    self._x = None
                return output
            if self._x is not x:
                self._part(list(self._waiting))
        part = next(part for part in self._parts if layer in part)
        outputs = dict(zip(part, self._compute(part, x), strict=True))
        output = outputs.pop(layer)
        self._waiting, self._x, self._version = outputs, x if outputs else None, _version(x)
        return output

    def close(self) -> None:
        """The members are on their own again."""
        self._forget()
        self._hook.remove()

    def _part(self, waiting: list[Layer]) -> None:
        """`waiting` were to be given the same x as the others, and one of them was not."""
        split = [[layer for layer in part if (layer in waiting) == side] for part in self._parts for side in (False, True)]
        self._parts = [tuple(part) for part in split if part]

    def _forget(self, *_: object) -> None:
        self._waiting, self._x = {}, None


def _version(x: Tensor) -> int:
    """Changes when x is written to."""
    return 0 if x.is_inference() else x._version


def families(network: PreTrainedModel, layers: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The path of a parent and the paths of those of `layers` below it that read the same input; two or more of them each."""
    known, found = roles(network), {}
    for path in layers:
        parent, _, _ = path.rpartition(".")
        for number, names in enumerate(_TOGETHER):
            # In cross-attention, query reads the decoder, key and value read the encoder.
            apart = known.get(path) == ("attention.query",) and reads_another(parent)
            if len(known.get(path, ())) == 1 and known[path][0] in names and not apart:
                found.setdefault((parent, number), []).append(path)
    return ((parent, paths) for (parent, _), paths in found.items() if len(paths) > 1)
