"""The optimizer: fused AdamW over named parameters, with a state that is saved as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright.engine.settings import AdamW


class Optimizer:
    """AdamW on named parameters.

    Args:
        settings: the moments' decay, epsilon and weight decay.
        parameters: what is updated, by name; the order is part of the state.
    """

    def __init__(self, settings: AdamW, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = dict(parameters)
        matrices = [parameter for parameter in self.parameters.values() if parameter.ndim > 1]
        vectors = [parameter for parameter in self.parameters.values() if parameter.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=0.0,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,
        )

    def update(self, learning_rate: float) -> None:
        """One update from the gradients in place, then forget them."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every moment and counter as `kind/parameter name` (empty before the first update)."""
        return {
            f"{kind}/{name}": value.detach()
            for name, parameter in self.parameters.items()
            for kind, value in self._adamw.state.get(parameter, {}).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self._adamw.state.clear()
        for key, value in state.items():
            kind, name = key.split("/", 1)
            parameter = self.parameters[name]
            place = "cpu" if kind == "step" and parameter.device.type == "cpu" else parameter.device
            self._adamw.state[parameter][kind] = value.to(place).clone()
