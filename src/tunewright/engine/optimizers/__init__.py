"""Optimizers over named parameters, with a state that is saved as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import Parameter

from tunewright.engine.optimizers.adamw import FusedAdamW
from tunewright.engine.optimizers.adamw_8bit import AdamW8bit
from tunewright.engine.optimizers.groups import grouped
from tunewright.engine.settings import AdamW


class Optimizer:
    """AdamW on named parameters.

    Small parameters are moved into one buffer (see `flat.py`); they keep their identity and their values.

    Args:
        settings: the moments' decay, epsilon, weight decay, learning-rate ratio, and how moments are held.
        parameters: what is updated, by name; the order is part of the state.
        head: how many times faster a new head (`head.*`) learns than the others.

    Raises:
        ConfigurationError: a learning-rate ratio, and no B matrix that it would be for.
        MissingExtraError: 8-bit moments without torchao.
        ValueError: one parameter under two names.
    """

    def __init__(self, settings: AdamW, parameters: Mapping[str, Parameter], head: float = 1.0) -> None:
        self.parameters = dict(parameters)
        groups = grouped(settings, self.parameters, head)
        self._rule = (AdamW8bit if settings.name == "adamw_8bit" else FusedAdamW)(settings, groups)

    def gradients(self) -> list[Tensor]:
        """Every gradient there is, in as few tensors as possible; to be divided, measured and clipped in place, then `update`.

        `parameter.grad` stays, and shares its memory with what is returned.
        """
        return self._rule.gradients()

    def update(self, learning_rate: float) -> None:
        """One update from the gradients in place, then forget them. What got no gradient is left as it is, its state too."""
        self._rule.update(learning_rate)
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Every moment and counter as `kind/parameter name` (nothing for a parameter before its first update)."""
        return self._rule.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        self._rule.restore(state)
