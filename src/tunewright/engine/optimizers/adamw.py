"""torch's fused AdamW, with small parameters in one buffer: the same bits as on separate tensors, in a fraction of the calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from tunewright.engine.flat import Flat, fits
from tunewright.engine.optimizers.groups import Group
from tunewright.engine.settings import AdamW

KINDS = ("exp_avg", "exp_avg_sq")  # the two moments, by the names that torch gives them


class _Part(NamedTuple):
    """What one call of the kernel updates as one tensor: a stretch of the buffer, or a parameter of its own."""

    names: tuple[str, ...]
    values: Tensor
    gradient: Tensor
    moments: Sequence[Tensor]


class _Updated:
    """A group, the small parameters of which stand in one buffer, with moments laid out alike."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.flat = Flat({name: parameter for name, parameter in group.parameters.items() if fits(parameter)})
        self.loose = {name: parameter for name, parameter in group.parameters.items() if name not in self.flat.parameters}
        self._buffers = [self.flat.buffer() for _ in KINDS]
        views = [self.flat.views(buffer) for buffer in self._buffers]
        self._views = {name: [view[name] for view in views] for name in self.flat.parameters}
        self._own: dict[str, list[Tensor]] = {}

    def gradients(self) -> list[Tensor]:
        """The gradients there are: stretches of the buffer, then those of large parameters."""
        return [*self.flat.gather(), *(parameter.grad for parameter in self.loose.values() if parameter.grad is not None)]

    def moments(self, name: str) -> list[Tensor]:
        """A parameter's two moments; those of a large one are made when they are first asked for."""
        if name in self._views:
            return self._views[name]
        if name not in self._own:
            self._own[name] = [torch.zeros_like(self.loose[name], memory_format=torch.preserve_format) for _ in KINDS]
        return self._own[name]

    def parts(self, steps: Mapping[str, int]) -> Iterator[_Part]:
        """Whatever has a gradient; neighbours that were updated equally often are one part."""
        found = self.flat.parameters
        for names, place in self.flat.runs(lambda name: None if found[name].grad is None else steps.get(name, 0)):
            yield _Part(names, self.flat.values[place], self.flat.gradients[place], [buffer[place] for buffer in self._buffers])
        for name, parameter in self.loose.items():
            if parameter.grad is not None:
                yield _Part((name,), parameter, parameter.grad, self.moments(name))

    def reset(self) -> None:
        """Forget the moments."""
        for buffer in self._buffers:
            buffer.zero_()
        self._own.clear()


class FusedAdamW:
    """AdamW by torch's fused kernel.

    Args:
        settings: the constants; `groups`: what is updated.
    """

    def __init__(self, settings: AdamW, groups: Sequence[Group]) -> None:
        self._settings = settings
        self._groups = [_Updated(group) for group in groups]
        self._steps: dict[str, int] = {}  # updates of each parameter so far; none before the first

    def gradients(self) -> list[Tensor]:
        """Every gradient there is, brought together."""
        return [gradient for group in self._groups for gradient in group.gradients()]

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        """One update of everything that has a gradient."""
        settings = self._settings
        for group in self._groups:
            group.flat.gather()
            parts = list(group.parts(self._steps))
            adamw(
                [part.values for part in parts],
                [part.gradient for part in parts],
                [part.moments[0] for part in parts],
                [part.moments[1] for part in parts],
                [],
                [self._counter(part) for part in parts],
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=settings.beta1,
                beta2=settings.beta2,
                eps=settings.epsilon,
                lr=learning_rate * group.group.rate,
                weight_decay=group.group.weight_decay,
            )
            for part in parts:
                self._steps |= {name: self._steps.get(name, 0) + 1 for name in part.names}

    def _counter(self, part: _Part) -> Tensor:
        # A plain scalar even where the parameter is spread over devices.
        return torch.full((), self._steps.get(part.names[0], 0), dtype=torch.float32, device=part.values.device)

    def state(self) -> dict[str, Tensor]:
        """The moments and counters of everything that has been updated."""
        found: dict[str, Tensor] = {}
        for group in self._groups:
            for name in group.group.parameters:
                if name in self._steps:
                    found[f"step/{name}"] = torch.tensor(float(self._steps[name]))
                    found |= {f"{kind}/{name}": moment for kind, moment in zip(KINDS, group.moments(name), strict=True)}
        return found

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Copy what `state` gave back to its places."""
        places = {name: group for group in self._groups for name in group.group.parameters}
        for group in self._groups:
            group.reset()
        self._steps = {}
        for key, value in state.items():
            kind, name = key.split("/", 1)
            if kind == "step":
                self._steps[name] = int(value)
            else:
                places[name].moments(name)[KINDS.index(kind)].copy_(value)
