"""Tunings that change the base's own weights: what `full`, `selective`, `head` and `bitfit` have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright.core.errors import BaseModelError
from tunewright.methods import Method, Tuning
from tunewright.methods._arithmetic import between
from tunewright.methods._selection import own_parameters

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
        for name, parameter in own_parameters(model).items():
            parameter.requires_grad_(name in chosen)
        self.originals = {name: parameter.detach().clone() for name, parameter in chosen.items()}
        self._off = False

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
        if self._off:  # within itself it has nothing to do
            yield
            return
        self._exchange()
        self._off = True
        try:
            yield
        finally:
            self._exchange()
            self._off = False

    def _exchange(self) -> None:
        """The base's values and the tuned ones change places. Values and not tensors: a weight may be divided over processes, and
        then others hold on to its memory."""
        for name, parameter in self.chosen.items():
            value, other = parameter.detach(), self.originals[name]
            tuned = value.clone()
            value.copy_(other)
            other.copy_(tuned)

    def interpolate(self, factor: float) -> None:
        for name, parameter in self.chosen.items():
            parameter.detach().copy_(between(self.originals[name], parameter.detach(), factor))

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

        stored = dict(load_folder(folder, head=self.model.has_own_head).network.named_parameters())
        for name, parameter in self.chosen.items():
            if name not in stored or stored[name].shape != parameter.shape:
                raise BaseModelError(f"the trained weight '{name}' is missing or has another shape", where=str(folder))
        with torch.no_grad():
            for name, parameter in self.chosen.items():
                parameter.copy_(stored[name])


class PartTuning(WeightsTuning):
    """Whole weights that are so few that a file of their own is worth it; it is put on the base that it was made on.

    Args:
        method: whose settings say which weights they are.
    """

    def __init__(self, model: Model, chosen: dict[str, Parameter], method: Method) -> None:
        super().__init__(model, chosen)
        self.method = method

    @property
    def folder_name(self) -> str:
        return "adapter"

    def detach(self) -> None:
        """Give the weights the base's values back."""
        self.interpolate(0.0)
        for parameter in self.chosen.values():
            parameter.requires_grad_(False)
        self.chosen, self.originals = {}, {}

    def save(self, folder: Path) -> None:
        """`tuning.json` and `tuning.safetensors` (see `methods._saved`): the weights as trained, by the base's names for them."""
        from tunewright.methods._saved import write_own

        write_own(folder, self.method, self.model, dict(self.state()))

    def load(self, folder: Path) -> None:
        from tunewright.methods._saved import fill, read_tensors

        fill(self.parameters(), read_tensors(folder), folder)


def tuned_from(model: Model, base: Mapping[str, Parameter], where: str) -> WeightsTuning:
    """A network that was tuned elsewhere, as a tuning of the base's weights `base` (which are held on to, not copied).

    Raises:
        BaseModelError: they are not weights of the same network.
    """
    tuning = WeightsTuning(model, own_parameters(model))
    odd = sorted(set(base) ^ set(tuning.chosen))
    odd += [name for name, one in tuning.chosen.items() if name in base and base[name].shape != one.shape]
    if odd:
        raise BaseModelError(f"is no tuning of this base: '{odd[0]}' is not the same weight in both", where=where)
    tuning.originals = {name: one.detach() for name, one in base.items()}
    return tuning
