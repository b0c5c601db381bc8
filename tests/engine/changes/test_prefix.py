"""What stands below the lowest trained block, beside changes of hidden states."""

from pathlib import Path

import pytest
import torch

from tunewright.engine.prefix.frozen import freeze
from tunewright.engine.settings import Cache
from tunewright.methods._reft import Positions
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.methods.loreft import LoReFT
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees


@pytest.mark.parametrize(
    "method", [LoReFT(rank=2, positions=Positions(first=1, last=2), blocks=(1,)), BottleneckAdapter(blocks=(-1,))]
)
def test_what_is_below_is_kept_and_the_gradients_are_the_same_bits(method, tmp_path: Path) -> None:
    model = tiny("llama")
    engine = toy_engine(model, method.attach(model, 0))

    def gradients() -> list[torch.Tensor]:
        engine.forget()
        engine.forward_backward([engine.collate(toy_trees(model))], toy_loss)
        return [parameter.grad.clone() for parameter in engine.parameters.values()]

    plain = gradients()
    engine.prefix = freeze(engine, Cache(folder=tmp_path))
    assert engine.prefix is not None
    assert engine.prefix.cut == 1
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(gradients(), plain, strict=True))
    assert engine.prefix.counts.read > 0


def test_a_frozen_intervention_below_runs_once_and_is_not_kept(tmp_path: Path) -> None:
    """What it gives depends on where prompts end, which the names of kept states do not say."""
    model = tiny("llama")
    method = LoReFT(rank=2, positions=Positions(first=1, last=2), blocks=(0,))
    for parameter in method.attach(model, 0).parameters().values():
        parameter.requires_grad_(False)
    upper = LoReFT(rank=2, positions=Positions(first=1, last=2), blocks=(1,))
    with model.lanes.joined(0):
        engine = toy_engine(model, upper.attach(model, 1))
    for parameter in engine.parameters.values():
        parameter.requires_grad_(True)
    batch = engine.collate(toy_trees(model))
    with engine.evaluating():
        wanted = engine.hidden(batch)
        engine.prefix = freeze(engine, Cache(folder=tmp_path))
        assert engine.prefix is not None
        assert "where their tokens stand in a prompt" in engine.prefix.reason
        for _ in range(2):
            assert torch.equal(engine.hidden(batch), wanted)
    assert engine.prefix.counts.read == 0
