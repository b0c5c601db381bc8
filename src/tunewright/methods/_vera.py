"""What VeRA's layers share and what each has of its own; imported when a tuning is attached."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from tunewright.engine.linear import Adapter


class Projection:
    """The frozen random A [R, I] and B [O, R] of all layers of a tuning, as wide as the widest of them.

    Args:
        A_RI, B_OR: on the CPU, float32.
    """

    def __init__(self, A_RI: Tensor, B_OR: Tensor) -> None:
        self.A_RI, self.B_OR = A_RI, B_OR
        self._there: dict[torch.device, tuple[Tensor, Tensor]] = {A_RI.device: (A_RI, B_OR)}

    @classmethod
    def drawn(cls, key: int, rank: int, inputs: int, outputs: int) -> Projection:
        """The projection of a key, with the numbers that PEFT draws; equal requests share one as long as anybody holds it."""
        asked = (key, rank, inputs, outputs)
        found = _drawn.get(asked)
        if found is None:
            generator = torch.Generator().manual_seed(key)
            A_RI = torch.empty(rank, inputs).uniform_(-_bound(inputs), _bound(inputs), generator=generator)
            B_OR = torch.empty(outputs, rank).uniform_(-_bound(rank), _bound(rank), generator=generator)
            found = _drawn[asked] = cls(A_RI, B_OR)
        return found

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """A and B on a device; copied there once for all layers."""
        if device not in self._there:
            self._there[device] = (self.A_RI.to(device), self.B_OR.to(device))
        return self._there[device]

    def digest(self) -> str:
        """A hash of both matrices' bytes, 64 hexadecimal digits."""
        found = hashlib.sha256()
        for matrix in (self.A_RI, self.B_OR):
            found.update(matrix.contiguous().numpy().tobytes())
        return found.hexdigest()


_drawn: WeakValueDictionary[tuple[int, int, int, int], Projection] = WeakValueDictionary()


def _bound(fan_in: int) -> float:
    return math.sqrt(6 / fan_in)  # Kaiming uniform for ReLU, which PEFT and the paper's code draw both from


class VeRAAdapter(Adapter):
    """diag(b) B diag(d) A dropout(x) beside a layer, with b [O] and d [R] trained and A, B cut from the shared projection.

    Args:
        initial: what d starts at; b starts at zero.
        projection: at least as wide as the layer.
    """

    names: ClassVar[dict[str, str]] = {"vera_lambda_b": "b_O", "vera_lambda_d": "d_R"}

    def __init__(self, host: nn.Module, projection: Projection, initial: float, drop: float) -> None:
        super().__init__(host, 1.0, drop)
        self.projection, self.rank = projection, len(projection.A_RI)
        device = next(iter(host.parameters()), projection.A_RI).device
        self.d_R = nn.Parameter(torch.full((self.rank,), initial, device=device))
        self.b_O = nn.Parameter(torch.zeros(self.outputs, device=device))

    def pair(self) -> tuple[Tensor, Tensor]:
        """d * A and b * B, as wide as the layer."""
        A_RI, B_OR = self.projection.on(self.d_R.device)
        return self.d_R[:, None] * A_RI[:, : self.inputs], self.b_O[:, None] * B_OR[: self.outputs]

    @torch.no_grad()
    def resize(self, factor: float) -> None:
        """Multiply b."""
        self.b_O.mul_(factor)


def widest(hosts: Iterable[nn.Module]) -> tuple[int, int]:
    """The most inputs and the most outputs of any of the layers."""
    sizes = [(one.inputs, one.outputs) for one in (Adapter(host, 1.0) for host in hosts)]
    return max(inputs for inputs, _ in sizes), max(outputs for _, outputs in sizes)
