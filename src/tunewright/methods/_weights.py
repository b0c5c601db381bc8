"""Tunings that change the base's own weights: what `full`, `selective` and `head` have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.methods import Tuning

if TYPE_CHECKING:
    from torch.nn import Parameter

    from tunewright.models import Model


class WeightsTuning(Tuning):
    """The trained part of a network's own weights, with the base's values kept to compare with.

    Args:
        model: the network whose weights change.
        chosen: the parameters that are trained, by name; everything else is frozen here.
    """

    def __init__(self, model: Model, chosen: dict[str, Parameter]) -> None:
        self.model, self.chosen = model, chosen
        for name, parameter in model.network.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.originals = {name: parameter.detach().clone() for name, parameter in chosen.items()}

    @property
    def folder_name(self) -> str:
        return "model"

    def parameters(self) -> dict[str, Parameter]:
        return dict(self.chosen)

    def moved(self, parameters: Mapping[str, Parameter]) -> None:
        self.chosen = {name: parameters[name] for name in self.chosen}
        self.originals = {name: parameter.detach().clone() for name, parameter in self.chosen.items()}

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """The base's values and the tuned ones change places. Values and not tensors: a weight may be divided over processes, and
        then others hold on to its memory."""
        for name, parameter in self.chosen.items():
            value, other = parameter.detach(), self.originals[name]
            tuned = value.clone()
            value.copy_(other)
            other.copy_(tuned)

    def merge(self) -> None:
        """Nothing to do: the change already is in the weights. The base's values are forgotten."""
        self.originals = {}

    def save(self, folder: Path) -> None:
        """A whole Hugging Face model folder: safetensors, configuration, tokenizer."""
        from tunewright.models.loading import quiet

        with quiet():
            self.model.network.save_pretrained(folder)
            self.model.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Read the folder as the network that it is: what files call a weight is the family's affair (Mixtral's experts)."""
        import torch

        from tunewright.models.loading import load_folder

        stored = dict(load_folder(folder).network.named_parameters())
        for name, parameter in self.chosen.items():
            if name not in stored or stored[name].shape != parameter.shape:
                raise BaseModelError(f"the trained weight '{name}' is missing or has another shape", where=str(folder))
        with torch.no_grad():
            for name, parameter in self.chosen.items():
                parameter.copy_(stored[name])


def block_indexes(model: Model) -> dict[str, int]:
    """For each parameter inside a transformer block, the number of the block."""
    owners = {id(parameter): index for index, block in enumerate(model.blocks) for parameter in block.parameters()}
    return {name: owners[id(parameter)] for name, parameter in model.network.named_parameters() if id(parameter) in owners}


def embedding_names(model: Model) -> set[str]:
    """The parameters of token and position embeddings and of what normalises them."""
    from torch import nn

    tables = {
        id(p) for module in model.network.modules() if isinstance(module, nn.Embedding) for p in module.parameters(recurse=False)
    }
    return {
        name
        for name, parameter in model.network.named_parameters()
        if id(parameter) in tables or any("embed" in part for part in name.split(".")[:-1])
    }


def require_some(chosen: dict[str, Parameter], hint: str) -> dict[str, Parameter]:
    """`chosen`, or an error when it is empty."""
    if not chosen:
        raise ConfigurationError("the selection is empty: no weight of the base would be trained", where="method", hint=hint)
    return chosen
