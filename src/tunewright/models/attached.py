"""What a method puts on a network, told apart from what the network is made of."""

from __future__ import annotations

from torch import nn


class Attached(nn.Module):
    """A part that a method has put on a network: none of the network's own places, and no weight of the base."""


def freeze_base(network: nn.Module) -> None:
    """No weight of the base asks for gradients any more; what methods have put on it is left as it is."""
    for module in network.modules():
        if not isinstance(module, Attached):
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
