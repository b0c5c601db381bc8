"""AdaLoRA's layers, what is known about how important each of their ranks is, and when how many may stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tunewright.core.seeds import derive
from tunewright.engine.linear import Adapter

SPREAD = 0.02  # of the normal distribution that P and Q are drawn from, as in PEFT and the paper's code
NEVER_ZERO = 1e-5  # added to the rank that the scale is divided by, as there


class SVDAdapter(Adapter):
    """scale * P diag(E) Q dropout(x) beside a layer; P is `B_OR`, Q is `A_RI`, E stands as [R, 1]. E starts at zero.

    Args:
        rank: R, before anything is taken away.
        alpha: scale times rank.
    """

    names: ClassVar[dict[str, str]] = {"lora_A": "A_RI", "lora_B": "B_OR", "lora_E": "E_R1"}

    def __init__(self, host: nn.Module, rank: int, alpha: float, drop: float, seed: int) -> None:
        super().__init__(host, alpha / (rank + NEVER_ZERO), drop)
        self.rank = rank
        device = next(iter(host.parameters())).device
        generator = torch.Generator().manual_seed(derive(seed, "adalora"))
        self.A_RI = nn.Parameter(torch.empty(rank, self.inputs).normal_(0, SPREAD, generator=generator).to(device))
        self.E_R1 = nn.Parameter(torch.zeros(rank, 1, device=device))
        self.B_OR = nn.Parameter(torch.empty(self.outputs, rank).normal_(0, SPREAD, generator=generator).to(device))

    def pair(self) -> tuple[Tensor, Tensor]:
        """E * Q and P."""
        return self.E_R1 * self.A_RI, self.B_OR

    @torch.no_grad()
    def resize(self, factor: float) -> None:
        """Multiply E."""
        self.E_R1.mul_(factor)

    def triple(self) -> tuple[nn.Parameter, nn.Parameter, nn.Parameter]:
        """Q [R, I], P [O, R] and E [R, 1]."""
        return self.A_RI, self.B_OR, self.E_R1


@dataclass(frozen=True)
class Schedule:
    """How many ranks may stay after each optimizer update, over all layers together.

    The first `warmup` updates keep `initial`; then the number falls by a cubic to `target`, reached `final` updates before the end.

    Args:
        steps: updates of the whole run; `every`: updates from one decision to the next.
    """

    initial: int
    target: int
    warmup: int
    final: int
    steps: int
    every: int = 1

    @property
    def settled(self) -> int:
        """The update after which the ranks stay as they are."""
        return self.steps - self.final

    def decides(self, step: int) -> bool:
        """Whether ranks are chosen after update `step`, counted from 1."""
        return step == self.settled or (self.warmup < step < self.settled and step % self.every == 0)

    def budget(self, step: int) -> int:
        """The ranks that may stay after update `step`."""
        if step <= self.warmup:
            return self.initial
        if step >= self.settled:
            return self.target
        left = 1 - (step - self.warmup) / (self.settled - self.warmup)
        return int((self.initial - self.target) * left**3 + self.target)


class Importance:
    """Moving averages of |w * gradient| and of how much it wavers, for every weight; what a checkpoint must hold is in `kept`.

    Args:
        layers: by path.
        betas: how much of each average stays from one update to the next.
    """

    def __init__(self, layers: Mapping[str, SVDAdapter], betas: tuple[float, float]) -> None:
        self.layers, self._betas = dict(layers), betas
        self._weights = [one for layer in self.layers.values() for one in layer.triple()]
        self._sensitivity = [torch.zeros_like(one, requires_grad=False) for one in self._weights]
        self._uncertainty = [torch.zeros_like(one, requires_grad=False) for one in self._weights]
        self.masks = {path: torch.ones_like(layer.E_R1, dtype=torch.bool) for path, layer in self.layers.items()}
        self.step = torch.zeros((), dtype=torch.long)

    def kept(self) -> dict[str, Tensor]:
        """Every tensor that the next decision depends on, by name."""
        names = [f"{path}.{part}" for path in self.layers for part in "ABE"]
        found = {f"sensitivity/{name}": value for name, value in zip(names, self._sensitivity, strict=True)}
        found |= {f"uncertainty/{name}": value for name, value in zip(names, self._uncertainty, strict=True)}
        return found | {f"mask/{path}": mask for path, mask in self.masks.items()} | {"step": self.step}

    @torch.no_grad()
    def see(self, gradients: Mapping[int, Tensor]) -> None:
        """Take one update into account.

        Args:
            gradients: of this update, by the weight's id; a weight without one was not used and counts as unimportant.
        """
        first, second = self._betas
        felt = [(one * gradients[id(one)]).abs_() if id(one) in gradients else torch.zeros_like(one) for one in self._weights]
        torch._foreach_lerp_(self._sensitivity, felt, 1 - first)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_sub_(felt, self._sensitivity)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_abs_(felt)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_lerp_(self._uncertainty, felt, 1 - second)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def scores(self) -> list[Tensor]:
        """How important each rank of each layer is, [R]: its E, and the means over its row of Q and its column of P."""
        found = [sensed * wavers for sensed, wavers in zip(self._sensitivity, self._uncertainty, strict=True)]
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [one_E.view(-1) + (one_A.mean(1) + one_B.mean(0)) for one_A, one_B, one_E in triples]

    @torch.no_grad()
    def choose(self, budget: int) -> None:
        """Keep the `budget` most important ranks; of equally important ones all go."""
        scores = self.scores()
        whole = torch.cat(scores)
        if len(whole) <= budget:
            return
        limit = torch.kthvalue(whole, len(whole) - budget).values
        for mask, score in zip(self.masks.values(), scores, strict=True):
            mask.copy_((score > limit).view(-1, 1))

    @torch.no_grad()
    def silence(self) -> None:
        """Set the E of every rank that was taken away to zero."""
        for path, layer in self.layers.items():
            layer.E_R1.mul_(self.masks[path])


@torch.no_grad()
def straighten(layers: Mapping[str, SVDAdapter], weight: float) -> None:
    """Add the gradient of weight * mean of |Q Q^T - 1| and |P^T P - 1| (Frobenius) over all layers to the gradients there are."""
    share = weight / (2 * len(layers))
    for layer in layers.values():
        for parameter, rows in ((layer.A_RI, layer.A_RI), (layer.B_OR, layer.B_OR.T)):
            if parameter.grad is None:
                continue
            excess_RR = rows @ rows.T
            excess_RR.diagonal().sub_(1.0)
            slope = (excess_RR @ rows).mul_(2 * share / excess_RR.norm().clamp_min(1e-12))
            parameter.grad.add_(slope if rows is parameter else slope.T)
