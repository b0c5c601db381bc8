"""An int8 base: close to the exact one forward and backward, a quarter of its memory, refused where it is not close enough."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D

from tunewright.core.errors import ConfigurationError
from tunewright.engine import int8
from tunewright.engine.engine import Engine
from tunewright.engine.int8 import Int8Linear, agreement, gradients, quantise, refuse_where_slow
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.models import Model
from tunewright.testing.tiny import FAMILIES, tiny
from tunewright.testing.toy import difference, toy_engine, toy_loss, toy_trees, train

CPU = torch.device("cpu")


def host(transposed: bool, bias: bool = True) -> nn.Linear | Conv1D:
    torch.manual_seed(0)
    if transposed:
        layer = Conv1D(48, 32)
        nn.init.normal_(layer.bias)
    else:
        layer = nn.Linear(32, 48, bias=bias)
    layer.weight.requires_grad_(False)
    return layer


def tuned(family: str) -> tuple[Model, Engine]:
    model = tiny(family)
    return model, toy_engine(model, LoRA(rank=4).attach(model, 0))


@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_is_close_both_ways(transposed: bool):
    exact = host(transposed)
    layer = Int8Linear(exact)
    x_BTI, slope_BTO = torch.randn(2, 7, 32, requires_grad=True), torch.randn(2, 7, 48)
    y_BTO = exact(x_BTI)
    (wanted,) = torch.autograd.grad(y_BTO, x_BTI, slope_BTO)
    (found,) = torch.autograd.grad(layer(x_BTI), x_BTI, slope_BTO)
    assert difference(layer(x_BTI), y_BTO) < 0.02
    assert difference(found, wanted) < 0.02
    assert layer.weight.shape == exact.weight.shape
    assert difference(layer.weight, exact.weight) < 0.01


def test_integers_are_exact():
    """Numbers that bytes can hold lose nothing: what remains is the arithmetic of the formula."""
    exact = nn.Linear(32, 48, bias=False).requires_grad_(False)
    exact.weight.copy_(torch.randint(-126, 127, (48, 32)).index_fill_(1, torch.tensor([0]), 127))
    x_TI = torch.randint(-126, 127, (5, 32)).index_fill_(1, torch.tensor([3]), 127).float()
    assert torch.equal(Int8Linear(exact)(x_TI), linear(x_TI, exact.weight))


def test_the_gradient_is_that_of_the_weight_which_was_used():
    layer = Int8Linear(host(False))
    x_TI = torch.randn(3, 32, requires_grad=True)
    slope_TO = torch.zeros(3, 48)
    slope_TO[:, 5] = 1.0  # one output: quantising the slope loses nothing
    (found,) = torch.autograd.grad(layer(x_TI), x_TI, slope_TO)
    assert torch.allclose(found, layer.weight[5].expand(3, -1), rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_stays_in_its_row(value: float):
    x_TI = torch.randn(3, 32)
    x_TI[1, 4] = value
    y_TO = Int8Linear(host(False))(x_TI)
    assert not y_TO[1].isfinite().any()
    assert y_TO[[0, 2]].isfinite().all()


def test_rows_of_zeros_and_no_rows_at_all():
    layer = Int8Linear(host(False))
    assert torch.equal(layer(torch.zeros(2, 32)), layer.bias.expand(2, -1))
    assert layer(torch.zeros(0, 32)).shape == (0, 48)


def test_a_trained_bias_beside_a_frozen_weight_goes_on_learning():
    exact = host(False)
    layer = Int8Linear(exact)
    assert layer.bias is exact.bias
    layer(torch.randn(3, 32)).sum().backward()
    assert torch.equal(exact.bias.grad, torch.full((48,), 3.0))
    assert Int8Linear(host(False, bias=False)).bias is None


def test_under_autocast_it_gives_what_a_linear_layer_gives():
    layer, x_TI = Int8Linear(host(False)), torch.randn(4, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_TO = layer(x_TI)
    assert y_TO.dtype == torch.bfloat16
    y_TO.sum().backward()
    assert x_TI.grad is not None
    assert x_TI.grad.dtype == torch.float32
    scale = layer.scale_O.clone()
    assert torch.equal(layer.to(torch.bfloat16).scale_O, scale)  # rounded scales would be an error of their own
    assert dict(layer.named_buffers()).keys() == {"quantised_OI", "scale_O", "column_I"}  # seen by whoever hashes a network


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_every_family_agree(family: str):
    model, engine = tuned(family)
    done = quantise(engine, toy_loss, engine.collate(toy_trees(model, 6)), smallest=1)
    assert done.layers == done.considered == sum(isinstance(module, Int8Linear) for module in model.network.modules()) > 0
    assert 0.99 < done.cosine < 1.0
    assert f"cosine {done.cosine:.4f}" in done.sentence()
    assert all(parameter.grad is None for parameter in engine.parameters.values())
    losses = train(engine, toy_trees(model), 8)
    assert losses[-1] < losses[0]


def with_outliers(factor: float) -> tuple[Model, Engine]:
    """The same function as ever, with one column of what enters each attention `factor` times larger."""
    model = tiny("llama")
    with torch.no_grad():
        for block in model.blocks:
            block.get_submodule("input_layernorm").weight[3] *= factor
            for name in ("q_proj", "k_proj", "v_proj"):
                block.get_submodule(f"self_attn.{name}").weight[:, 3] /= factor
    return model, toy_engine(model, LoRA(rank=4).attach(model, 0))


def test_columns_of_outliers_are_evened_out(monkeypatch: pytest.MonkeyPatch):
    model, engine = with_outliers(100)
    batch = engine.collate(toy_trees(model, 6))
    assert quantise(engine, toy_loss, batch, smallest=1).cosine > 0.995
    monkeypatch.setattr(int8, "_columns", lambda reach_I, weight_OI: torch.ones(len(reach_I)))
    model, engine = with_outliers(100)
    with pytest.raises(ConfigurationError, match=r"cosine .* is 0\.[0-9]{4}, and at least 0.99 is needed") as caught:
        quantise(engine, toy_loss, batch, smallest=1)
    assert caught.value.where == "training.base_precision"


def test_a_column_without_values_counts_as_the_others():
    exact = host(False)
    reach_I = torch.full((32,), 2.0)
    reach_I[5] = 0
    layer = Int8Linear(exact, reach_I)
    assert layer.column_I.isfinite().all()
    assert (layer.column_I > 0).all()
    assert difference(layer.weight, exact.weight) < 0.02
    assert torch.equal(Int8Linear(exact, torch.zeros(32)).column_I, torch.ones(32))


def test_only_what_is_frozen_large_and_in_the_blocks_is_touched():
    model = tiny("llama")
    tuning = Selective(last_blocks=1).attach(model, 0)
    engine = toy_engine(model, tuning)
    trained = {name: value.clone() for name, value in tuning.parameters().items()}
    before = sum(parameter.numel() for parameter in model.network.parameters())
    # The lower block sees no gradient of its own, and the trained one hardly any noise.
    done = quantise(engine, toy_loss, engine.collate(toy_trees(model)), smallest=1024)
    kinds = {path: type(module) for path, module in model.network.named_modules()}
    assert kinds["model.layers.0.mlp.up_proj"] is Int8Linear
    assert kinds["model.layers.0.self_attn.k_proj"] is nn.Linear  # 16 x 32: too small to pay
    assert kinds["model.layers.1.mlp.up_proj"] is nn.Linear  # trained
    assert kinds["lm_head"] is nn.Linear
    assert (done.layers, done.considered) == (5, 7)
    assert int8.quantised_numbers(model.network) == before - sum(item.numel() for item in model.network.parameters())
    assert done.freed > 2.5 * int8.quantised_numbers(model.network)
    assert all(torch.equal(value, trained[name]) for name, value in tuning.parameters().items())


def test_a_method_disabled_is_the_quantised_base():
    model = tiny("llama")
    tuning = LoRA(rank=4).attach(model, 0)
    engine = toy_engine(model, tuning)
    batch = engine.collate(toy_trees(model))
    quantise(engine, toy_loss, batch, smallest=1)
    before = toy_loss(engine, batch).total.item()
    train(engine, toy_trees(model), 2)
    assert toy_loss(engine, batch).total.item() != before
    with tuning.disabled():
        assert toy_loss(engine, batch).total.item() == before


def test_where_it_would_do_nothing_it_is_refused():
    model = tiny("llama")
    engine = toy_engine(model, Full().attach(model, 0))
    batch = engine.collate(toy_trees(model))
    with pytest.raises(ConfigurationError, match="none of the 0 frozen linear layers"):
        quantise(engine, toy_loss, batch, smallest=1)
    model, engine = tuned("llama")
    with pytest.raises(ConfigurationError, match="wider than 128"):
        quantise(engine, toy_loss, batch)
    assert not any(isinstance(module, Int8Linear) for module in model.network.modules())


def test_where_it_would_be_slow_it_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(int8, "has_vnni", lambda: True)
    refuse_where_slow(CPU)
    with pytest.raises(ConfigurationError, match="this run is on cuda"):
        refuse_where_slow(torch.device("cuda"))
    monkeypatch.setattr(int8, "has_vnni", lambda: False)
    with pytest.raises(ConfigurationError, match="no VNNI") as caught:
        refuse_where_slow(CPU)
    assert caught.value.allowed == ("auto",)


def test_the_cosine_of_gradients():
    one = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    assert agreement(one, one) == pytest.approx(1)
    assert agreement(one, {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0])}) == pytest.approx(0.6)
    assert agreement(one, {name: -value for name, value in one.items()}) == pytest.approx(-1)
    assert agreement(one, {"a": torch.zeros(2), "b": torch.zeros(1)}) == 0
    assert agreement(one, {"a": torch.full((2,), float("nan")), "b": torch.zeros(1)}) == 0


def test_a_new_head_does_not_hide_the_rest():
    model, engine = tuned("bert")
    found = gradients(engine, toy_loss, engine.collate(toy_trees(model)))
    assert found
    assert not any(name.startswith("head.") for name in found)


@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
def test_a_layer_in_bytes_carries_in_one_product_what_it_carries_step_by_step(transposed: bool, narrow: bool, monkeypatch):
    from tunewright.engine.linear import LoRAAdapter, carrying, load_on
    from tunewright.models.lanes import Lane, Lanes

    monkeypatch.setattr(carrying, "families", lambda *_: ())
    torch.manual_seed(0)
    net, lanes = nn.Module(), Lanes()
    net.layer = Int8Linear(Conv1D(24, 40) if transposed else nn.Linear(40, 24))
    net.layer.bias.requires_grad_(False)
    for slot, rank in enumerate((2, 5)):
        adapter = LoRAAdapter(net.layer, rank, 1.5, 0.0, slot)
        nn.init.normal_(adapter.B_OR, std=0.1, generator=torch.Generator().manual_seed(slot))
        load_on(net, lanes, slot, {"layer": adapter})
    x, weight = torch.randn(2, 9, 40), torch.randn(2, 9, 24)
    found, calls = [], []
    project = carrying.project
    monkeypatch.setattr(carrying, "project", lambda *given: calls.append(1) or project(*given))
    for fusable in (carrying._fusable, lambda _layer: False):
        monkeypatch.setattr(carrying, "_fusable", fusable)
        x.grad = None
        x.requires_grad_(True)
        net.zero_grad()
        with lanes.during([Lane(1, 0, 10), Lane(0, 10, 18)]), torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            y = net.layer(x)
        (y.float() * weight).sum().backward()
        found.append([y.float(), x.grad, *(parameter.grad for parameter in net.parameters() if parameter.requires_grad)])
    assert len(calls) == 1
    assert len(found[0]) == 6
    for one, other in zip(*found, strict=True):
        assert float((one - other).detach().norm() / other.detach().norm()) < (2e-2 if narrow else 1e-5)
