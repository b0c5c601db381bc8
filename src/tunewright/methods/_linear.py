"""Changes beside linear layers: which layers a method's targets name, and what their tunings have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunewright.core.errors import ConfigurationError
from tunewright.methods._lora_tuning import LowRankTuning

if TYPE_CHECKING:
    from torch.nn import Module

    from tunewright.engine.linear import Adapter
    from tunewright.models import Model


def linear_hosts(model: Model, targets: Sequence[str], noun: str) -> dict[str, Module]:
    """The layers that `targets` mean, by path.

    Args:
        noun: what is to stand on them, for the message ("a VeRA").

    Raises:
        ConfigurationError: a target means nothing here, or something that is no linear layer.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    hosts = model.sites(*targets)
    odd = next((path for path, host in hosts.items() if not isinstance(host, nn.Linear | Conv1D)), None)
    if odd is not None:
        raise ConfigurationError(
            f"'{odd}' is a {type(hosts[odd]).__name__}, and {noun} stands on linear layers only",
            where="method.targets",
            hint="Name linear layers: `linear` is all of them, `attention.query` or `mlp.up` some.",
        )
    return hosts


class LinearTuning(LowRankTuning):
    """One tuning's adapters beside linear layers, which they join when it is made; the base is frozen.

    Args:
        layers: by the path of the layer that each stands beside.
    """

    def __init__(self, model: Model, layers: Mapping[str, Adapter]) -> None:
        from tunewright.engine.linear import load_on
        from tunewright.models.attached import freeze_base

        freeze_base(model.network)
        super().__init__(model, model.lanes.open(), layers)
        load_on(model.network, model.lanes, self.slot, layers)
