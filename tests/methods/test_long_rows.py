"""Rows that are filled up to a length that recurs: whatever a method asks of its tokens, nobody reads what fills them up."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tunewright.data.forest import Tree, single
from tunewright.methods import room
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, toy_engine, toy_loss


def long_trees() -> list[Tree]:
    """388 tokens in all, so that the forest's row has 416."""
    draw = random.Random(0)
    tokens = [tuple(draw.randrange(5, 250) for _ in range(45 + row)) for row in range(8)]
    return [single(one, (0.0,) * 20 + (1.0,) * (len(one) - 20), row=row) for row, one in enumerate(tokens)]


@pytest.mark.parametrize(
    "spec",
    ["lora", "bottleneck_adapter", "loreft", "ia3", "prefix_tuning", {"name": "stack", "parts": ["prompt_tuning", "loreft"]}],
    ids=lambda spec: spec if isinstance(spec, str) else spec["name"],
)
def test_what_fills_a_row_up_is_read_by_no_method(spec: Any) -> None:
    found = {}
    for layout in ("padded", "forest"):
        model = tiny("llama")
        tuning = room.make(spec).attach(model, 0)
        engine = toy_engine(model, tuning, layout="padded" if layout == "padded" else None)
        assert engine.layout == layout
        with torch.no_grad():
            for parameter in tuning.parameters().values():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        batch = engine.collate(long_trees())
        engine.forward_backward([batch], toy_loss)
        gradients = {name: parameter.grad.clone() for name, parameter in tuning.parameters().items() if parameter.grad is not None}
        engine.forget()
        found[layout] = engine.score(long_trees())[0], gradients
    assert batch.tokens_BT.shape == (1, 416)
    assert difference(found["forest"][0], found["padded"][0]) < 1e-5
    for name, gradient in found["padded"][1].items():
        assert difference(found["forest"][1][name], gradient) < 1e-5, name
