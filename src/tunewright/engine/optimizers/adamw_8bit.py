"""AdamW with its moments in 8 bits, by torchao: 2 bytes a trained parameter in place of 8.

Source: Dettmers, Lewis, Shleifer and Zettlemoyer, "8-bit Optimizers via Block-wise Quantization", arXiv 2110.02861.
Tensors of fewer than 4096 numbers keep float32 moments, and nothing is moved into a buffer: blocks must not cross parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.nn import Parameter

from tunewright.core.errors import MissingExtraError
from tunewright.engine.optimizers.groups import Group
from tunewright.engine.settings import AdamW

HELD = ("codes", "scale")  # what differs from one 8-bit tensor to the next; the table of their values is a constant


class AdamW8bit:
    """torchao's AdamW8bit on groups of parameters.

    Args:
        settings: the constants; `groups`: what is updated.

    Raises:
        MissingExtraError: torchao is not installed.
    """

    def __init__(self, settings: AdamW, groups: Sequence[Group]) -> None:
        try:
            from torchao.optim import AdamW8bit as Theirs  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingExtraError(
                "8-bit moments need the package 'torchao', which is not installed",
                where="training.optimizer.name",
                hint="pip install 'tunewright[torchao]', or use `optimizer: {name: adamw}`.",
            ) from None
        self._rates = [group.rate for group in groups]
        self._parameters: dict[str, Parameter] = {name: one for group in groups for name, one in group.parameters.items()}
        # torchao reads the rate from a tensor, so that a new one does not compile the update anew
        given = [{"params": list(group.parameters.values()), "weight_decay": group.weight_decay} for group in groups]
        self._theirs: Any = Theirs(given, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)

    def gradients(self) -> list[Tensor]:
        """Every gradient there is."""
        return [parameter.grad for parameter in self._parameters.values() if parameter.grad is not None]

    def update(self, learning_rate: float) -> None:
        """One update of everything that has a gradient; the first one compiles it.

        Raises:
            MissingExtraError: it cannot be compiled for this device.
        """
        for group, rate in zip(self._theirs.param_groups, self._rates, strict=True):
            group["lr"].fill_(learning_rate * rate)
        try:
            self._theirs.step()
        except TorchDynamoException as error:
            raise MissingExtraError(
                f"8-bit moments are updated by compiled code, and torch.compile failed here: {str(error).splitlines()[0]}",
                where="training.optimizer.name",
                hint="Install a C++ compiler (CPU) or triton (GPU), or use `optimizer: {name: adamw}`.",
            ) from error

    def state(self) -> dict[str, Tensor]:
        """The moments and counters as plain tensors: codes and scales of the 8-bit ones, `exp_avg.codes/NAME`."""
        found: dict[str, Tensor] = {}
        for name, parameter in self._parameters.items():
            for kind, value in self._theirs.state.get(parameter, {}).items():
                inner = {f"{kind}.{part}/{name}": getattr(value, part) for part in HELD} if _in_8_bits(value) else {}
                found |= inner or {f"{kind}/{name}": value.detach()}
        return found

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy what `state` gave into new moments."""
        self._theirs.state.clear()
        for key, value in state.items():
            kind, name = key.split("/", 1)
            kind, _, part = kind.partition(".")
            parameter = self._parameters[name]
            own = self._theirs.state[parameter]
            if kind == "step":
                own[kind] = value.clone()
                continue
            if kind not in own:
                own[kind] = self._theirs._new_buffer(parameter, kind == "exp_avg")
            (getattr(own[kind], part) if part else own[kind]).copy_(value)


def _in_8_bits(value: Tensor) -> bool:
    return type(value) is not Tensor
