"""Packed weights give the same products, and the network is as before when they are gone."""

import pytest
import torch
from torch import nn

from tunewright.engine import packed
from tunewright.engine.engine import Engine
from tunewright.engine.packed import packed_linears
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_trees, train

FIRST = frozenset({0})
IDS = torch.arange(5, 30)[None]


def patched(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Linear) and "forward" in vars(module) for module in network.modules())


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        return model.network(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", ["llama", "phi", "gpt2"])
def test_the_same_numbers_from_packed_weights(family: str):
    model = tiny(family)
    engine = toy_engine(model, layout="padded")
    wanted = logits(model)
    before = [vars(module).keys() for module in model.network.modules()]
    with packed_linears(engine, FIRST):
        count = patched(model.network)
        found = logits(model)
    assert count == sum(type(module) is nn.Linear for module in model.network.modules()) > 0
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert [vars(module).keys() for module in model.network.modules()] == before
    assert torch.equal(logits(model), wanted)


def test_a_low_rank_change_is_packed_with_the_weights():
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, seed=0)
    engine = toy_engine(model, tuning, layout="padded")
    base = logits(model)
    train(engine, toy_trees(model), 3)
    wanted = logits(model)
    assert (wanted - base).abs().max() > 1e-2
    with packed_linears(engine, FIRST):
        assert patched(model.network) == sum(isinstance(module, nn.Linear) for module in model.network.modules())
        torch.testing.assert_close(logits(model), wanted, atol=1e-4, rtol=1e-4)
    with tuning.disabled(), packed_linears(engine, FIRST):
        torch.testing.assert_close(logits(model), base, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(model), wanted)


def test_rows_of_several_tunings_read_no_merged_weights():
    model = tiny("llama")
    LoRA(rank=4).attach(model, seed=0)
    engine = toy_engine(model, layout="padded")
    with packed_linears(engine, frozenset({0, 1})):
        assert patched(model.network) == 1  # the head, which carries nothing


def test_half_the_digits_are_packed_as_such():
    model = tiny("llama")
    wanted = logits(model)
    engine = Engine(model, probed=toy_engine(model, layout="padded").probed._replace(layout="padded"), precision="bfloat16")
    with engine.autocast():
        half = logits(model)
        with packed_linears(engine, FIRST):
            found = logits(model)
            assert patched(model.network) > 0
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).abs().max() <= 2 * (half.float() - wanted).abs().max()


def test_nothing_is_packed_without_room_or_where_the_product_is_wrong(monkeypatch: pytest.MonkeyPatch):
    engine = toy_engine(tiny("llama"), layout="padded")
    with monkeypatch.context() as patch:
        patch.setattr(packed, "SHARE", 0.0)
        with packed_linears(engine, FIRST):
            assert patched(engine.model.network) == 0
    pack = packed._packed
    for wrong in (lambda *given: lambda x: pack(*given)(x) + 1, lambda *given: lambda x: torch.ops.mkldnn.no_such_product(x)):
        with monkeypatch.context() as patch:
            patch.setattr(packed, "_packed", wrong)
            with packed_linears(engine, FIRST):
                assert patched(engine.model.network) == 0


def test_an_error_inside_leaves_nothing_behind():
    engine = toy_engine(tiny("llama"), layout="padded")
    with pytest.raises(KeyError), packed_linears(engine, FIRST):
        raise KeyError
    assert patched(engine.model.network) == 0
