"""The diagonal of the Fisher information of a base on rows that must not be forgotten; see `settings.EWC`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import Parameter

from tunewright.core.errors import ConfigurationError, DivergedError
from tunewright.data.forest import Tree
from tunewright.engine.engine import Engine
from tunewright.engine.linear import holds_numbers
from tunewright.methods import Tuning
from tunewright.training.aids.anchors import Held


def watched(held: Held) -> dict[str, Parameter]:
    """The base's weights that can move, by name: those that are trained, and those that a change stands beside.

    Raises:
        ConfigurationError: there are none, or one is not held in ordinary numbers.
    """
    where = "training.aids.ewc"
    beside = {name: change.host for name, change in held.changes.items()}
    rounded = next((name for name, host in beside.items() if not holds_numbers(host)), None)
    if rounded is not None:
        hint = "Leave out `training.base_precision`, or take `l2_to_base`, which needs no gradients of the base."
        raise ConfigurationError(f"'{rounded}' is held in few bits and has no gradients", where=where, hint=hint)
    own = {name: one for name, (one, _) in held.weights.items()} if held.of_base else {}
    found = own | {name: host.get_parameter("weight") for name, host in beside.items()}
    if not found or (held.weights and not held.of_base):
        hint = "Take `lora` or `full`, or `l2_to_base`, which holds what any method adds."
        problem = "`ewc` serves methods that train whole weights of the base or low-rank changes beside them, and nothing else"
        raise ConfigurationError(problem, where=where, hint=hint)
    return found


def measure(engine: Engine, tuning: Tuning, held: Held, trees: Sequence[Tree]) -> dict[str, Tensor]:
    """F of every weight that can move: the squared gradients of each row's log p under the base, summed, divided by its tokens.

    Args:
        engine: whose tuning has not been trained yet.
        trees: rows with targets.

    Raises:
        ConfigurationError: see `watched`.
        DivergedError: a gradient is not finite.
    """
    weights = watched(held)
    found = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in weights.items()}
    tokens = 0.0
    with tuning.disabled(), engine.evaluating(), torch.enable_grad(), _trained(list(weights.values())):
        for tree in trees:
            loss = engine.language_loss(engine.collate([tree]))
            tokens += float(loss.count)
            slopes = zip(weights, torch.autograd.grad(loss.total, list(weights.values()), allow_unused=True), strict=True)
            for name, slope in ((name, one.float()) for name, one in slopes if one is not None):
                found[name].addcmul_(slope, slope)
    for name, one in found.items():
        one.div_(tokens)
        if not torch.isfinite(one).all():
            raise DivergedError(f"the Fisher information of '{name}' is not finite", where="training.aids.ewc")
    return found


@contextmanager
def _trained(weights: Sequence[Parameter]) -> Iterator[None]:
    """Gradients reach these weights inside."""
    before = [one.requires_grad for one in weights]
    for one in weights:
        one.requires_grad_(True)
    try:
        yield
    finally:
        for one, asked in zip(weights, before, strict=True):
            one.requires_grad_(asked)
