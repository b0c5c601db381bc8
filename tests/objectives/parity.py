"""Gradients of an objective beside those of transformers' own models."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tunewright.data.forest import Tree
from tunewright.engine.engine import Engine
from tunewright.objectives import Objective
from tunewright.testing.tiny import tiny


def body_of(family: str, **settings: Any) -> Any:
    """The configuration of the tiny model of a family, with a task's settings on it."""
    config = type(tiny(family).network.config).from_dict(tiny(family).network.config.to_dict())
    for name, value in settings.items():
        setattr(config, name, value)
    config._attn_implementation = "eager"
    return config


def own_gradients(engine: Engine, objective: Objective, trees: Sequence[Tree]) -> float:
    """The mean loss of all trees in one forest, with its gradients left in body and head."""
    engine.model.network.eval()
    total, count = objective.loss(engine, engine.collate(trees))
    (total / count).backward()
    return float(total.detach() / count)


def assert_same_gradients(pairs: Mapping[str, tuple[nn.Module, nn.Module]], fewest: int) -> None:
    """Every gradient that both have is the same to 1e-5 of the largest; at least `fewest` are compared."""
    compared = 0
    for name, (own, theirs) in pairs.items():
        other = dict(theirs.named_parameters())
        for key, parameter in own.named_parameters():
            if parameter.grad is None or other.get(key) is None or other[key].grad is None:
                continue
            difference = float((parameter.grad - other[key].grad).abs().max())
            assert difference <= 1e-5 * max(1.0, float(other[key].grad.abs().max())), f"{name}.{key}: {difference}"
            compared += bool(torch.any(parameter.grad != 0))
    assert compared >= fewest
