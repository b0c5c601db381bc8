"""Arithmetic on weights: what a tuning changed is a direction, which can be shortened, added to others and subtracted.

With theta_0 the base's weights and theta_i those of tuning i:
    interpolation (WiSE-FT)     theta_0 + a (theta_1 - theta_0),  0 <= a <= 1
    task arithmetic             theta_0 + sum_i w_i (theta_i - theta_0);  w_i < 0 takes a task away

Source: Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv 2109.01903; Ilharco et al., "Editing Models with Task
Arithmetic", arXiv 2212.04089. Both are sums in float32, whatever the weights are held in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunewright.core.errors import BaseModelError

if TYPE_CHECKING:
    from torch import Tensor


def between(start: Tensor, end: Tensor, factor: float) -> Tensor:
    """start + factor (end - start), of the shape and precision of `start`; exactly `start` at 0 and exactly `end` at 1."""
    import torch

    return torch.lerp(start.float(), end.float(), factor).to(start.dtype)


class Sum:
    """A weighted sum of what tunings changed, added up one tuning at a time: base, sum and one tuning are all that is held.

    Args:
        base: the base's weights by name; they are copied.
    """

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        self.base = {name: value.detach().clone() for name, value in base.items()}
        self._changes: dict[str, Tensor] = {}

    def add(self, tuned: Mapping[str, Tensor], weight: float, where: str = "") -> None:
        """Add `weight` times what `tuned` changed.

        Raises:
            BaseModelError: it has other weights than the base, or of other shapes.
        """
        import torch

        odd = sorted(set(tuned) ^ set(self.base))
        odd += [name for name, value in tuned.items() if name in self.base and value.shape != self.base[name].shape]
        if odd:
            problem = f"is no tuning of this base: '{odd[0]}' is not the same weight in both"
            raise BaseModelError(problem, where=where, hint="Only tunings of one base can be added.")
        for name, value in tuned.items():
            if torch.equal(value, self.base[name]):
                continue
            change = (value.detach().float() - self.base[name].float()).mul_(weight)
            self._changes[name] = self._changes[name].add_(change) if name in self._changes else change

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Write base plus sum into `weights`; what no tuning changed gets exactly the base's values."""
        for name, value in self.base.items():
            total = value if name not in self._changes else (value.float() + self._changes[name]).to(value.dtype)
            weights[name].detach().copy_(total)

    def changed(self) -> int:
        """How many weights (tensors) differ from the base's."""
        return len(self._changes)
