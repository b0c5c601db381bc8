"""Which parameters share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch.nn import Parameter

from tunewright.core.errors import ConfigurationError
from tunewright.engine.settings import AdamW

UP = ".lora_B.weight"  # how the names of LoRA's B matrices end, ours and PEFT's
HEAD = "head."  # how the names of a new head's parameters begin


class Group(NamedTuple):
    """Parameters of one device that are updated alike.

    Args:
        parameters: by name, in the order in which they were given.
        rate: what the learning rate is multiplied by.
        weight_decay: 0 for vectors.
    """

    parameters: dict[str, Parameter]
    rate: float
    weight_decay: float


def grouped(settings: AdamW, parameters: Mapping[str, Parameter], head: float = 1.0) -> list[Group]:
    """The parameters by device, learning rate and weight decay.

    Args:
        head: how many times faster a new head (`head.*`) learns than what is below it.

    Raises:
        ConfigurationError: a learning-rate ratio, and no B matrix that it would be for.
        ValueError: one parameter under two names.
    """
    if len({id(parameter) for parameter in parameters.values()}) < len(parameters):
        raise ValueError("a parameter stands under two names; it would be updated twice")
    if settings.learning_rate_ratio != 1.0 and not any(name.endswith(UP) for name in parameters):
        raise ConfigurationError(
            f"a ratio of {settings.learning_rate_ratio:g} is for the B matrices of LoRA, and nothing here has any",
            where="training.optimizer.learning_rate_ratio",
            hint="Leave it out, or use `method: lora`.",
        )
    found: dict[tuple[torch.device, float, float], dict[str, Parameter]] = {}
    for name, parameter in parameters.items():
        rate = settings.learning_rate_ratio if name.endswith(UP) else head if name.startswith(HEAD) else 1.0
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        found.setdefault((parameter.device, rate, decay), {})[name] = parameter
    return [Group(members, rate, decay) for (_, rate, decay), members in found.items()]
