"""Linear layers on the faster product: the same network whichever serves, and a forward that comes and goes as it should."""

from __future__ import annotations

import copy
from types import MethodType

import pytest
import torch
from torch import Tensor, nn

from tunewright.engine import products
from tunewright.engine.fused import fuse, linears
from tunewright.engine.fused.linears import linear_forward, runs_ours
from tunewright.engine.int8 import Int8Linear, quantise
from tunewright.engine.linear.carrying import Carrying
from tunewright.engine.network import use_layout
from tunewright.engine.packed import packed_linears
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees, train

THERE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
LAYERS = {"llama": 14, "qwen3": 14, "bert": 12, "phi3": 8}  # in two blocks
IDS = torch.arange(5, 29).view(2, 12)


@pytest.fixture(
    params=[False, pytest.param(True, marks=pytest.mark.skipif(not THERE, reason="no oneDNN"))],
    ids=["mkl", "onednn"],
    autouse=True,
)
def serving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Each product serves once, also at the sizes of tiny networks."""
    monkeypatch.setattr(products, "SMALL", 0)
    monkeypatch.setattr(products, "onednn_serves", lambda _threads: request.param)
    return request.param


def fused(family: str) -> Model:
    model = tiny(family)
    use_layout(model, "padded")
    fuse(model.network)
    return model


def plain(family: str) -> Model:
    model = tiny(family)
    use_layout(model, "padded")
    return model


def block_linears(model: Model) -> dict[str, nn.Linear]:
    """The linear layers of the blocks, by path; the head is none of them."""
    inside = {id(module) for block in model.blocks for module in block.modules()}
    return {
        path: module for path, module in model.network.named_modules() if isinstance(module, nn.Linear) and id(module) in inside
    }


def output(model: Model) -> Tensor:
    given = model.network(input_ids=IDS, attention_mask=torch.ones_like(IDS))
    return given.last_hidden_state if model.kind == "encoder" else given.logits


def roughened(model: Model, method: LoRA = LoRA(rank=3)) -> LoRATuning:  # noqa: B008 - an immutable value
    tuning = method.attach(model, 0)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=drawn) * 0.1)
    return tuning


def taken(model: Model) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradient of every weight that has one."""
    found = output(model)
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    gradients = {name: value.grad for name, value in model.network.named_parameters() if value.grad is not None}
    return found.detach(), gradients


def assert_same(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert (one[0] - other[0]).abs().max() <= 2e-5 * other[0].abs().max()
    assert one[1].keys() == other[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in other[1].values())
    for name, gradient in one[1].items():  # a key's bias has a gradient of zero, of which only noise is left
        scale = max(float(other[1][name].abs().max()), 1e-2 * largest)
        assert (gradient - other[1][name]).abs().max() <= 3e-5 * scale, name


@pytest.mark.parametrize("family", LAYERS)
def test_every_linear_layer_of_the_blocks_runs_ours_and_trains_as_before(family: str, monkeypatch: pytest.MonkeyPatch):
    model, calls = fused(family), []
    ours = linears.linear
    monkeypatch.setattr(linears, "linear", lambda *given: calls.append(1) or ours(*given))
    layers = block_linears(model)
    assert len(layers) == LAYERS[family]
    assert all(runs_ours(layer) for layer in layers.values())
    found = taken(model)
    assert len(calls) == LAYERS[family]
    assert set(found[1]) == {name for name, _ in model.network.named_parameters()}  # full training
    assert_same(found, taken(plain(family)))


def test_the_head_and_other_kinds_of_layers_are_left_alone():
    model = fused("llama")
    assert not runs_ours(model.network.get_submodule("lm_head"))
    assert not any("forward" in vars(module) for module in fused("gpt2").network.modules() if type(module).__name__ == "Conv1D")

    class Own(nn.Linear):
        pass

    assert linear_forward(Own(2, 2)) is None
    assert linear_forward(nn.Identity()) is None
    layer = nn.Linear(2, 2)
    assert not runs_ours(layer)
    layer.forward = layer.forward  # somebody else's
    assert not runs_ours(layer)


@pytest.mark.parametrize("family", ["llama", "qwen3", "bert"])
def test_a_lora_takes_the_forward_away_and_gives_it_back(family: str):
    model = fused(family)
    before = {path: vars(layer)["forward"] for path, layer in block_linears(model).items()}
    unchanged = output(model)
    tuning = roughened(model)
    for path, layer in block_linears(model).items():
        assert isinstance(layer, Carrying)
        assert "forward" not in vars(layer)
        assert layer.cargo.forward is before[path]
    other = plain(family)
    roughened(other)
    assert_same(taken(model), taken(other))
    tuning.detach()
    assert {path: vars(layer)["forward"] for path, layer in block_linears(model).items()} == before
    assert all(type(layer) is nn.Linear for layer in block_linears(model).values())
    assert torch.equal(output(model), unchanged)


def test_a_second_lora_and_one_that_leaves_first():
    model = fused("llama")
    first, second = roughened(model, LoRA(rank=2, targets=("mlp.up",))), roughened(model, LoRA(rank=2))
    first.detach()
    assert not any(runs_ours(layer) for layer in block_linears(model).values())
    second.detach()
    assert all(runs_ours(layer) for layer in block_linears(model).values())


def test_layers_beside_the_carrying_ones_go_on_running_ours():
    model, other = fused("llama"), plain("llama")
    for one in (model, other):
        roughened(one, LoRA(rank=2, targets=("attention.query",)))
    assert sum(runs_ours(layer) for layer in block_linears(model).values()) == 12
    assert_same(taken(model), taken(other))


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_disabled_lora_is_the_base_through_the_same_product(family: str):
    model = fused(family)
    unchanged = output(model)
    tuning = roughened(model)
    assert not torch.equal(output(model), unchanged)
    with tuning.disabled():
        assert torch.equal(output(model), unchanged)
        with torch.no_grad():
            assert torch.equal(output(model), unchanged)


@pytest.mark.parametrize("adapted", [False, True])
def test_packed_weights_serve_and_the_forward_is_put_back(adapted: bool):
    model = fused("llama")
    tuning = roughened(model) if adapted else None
    engine = toy_engine(model, layout="padded")
    before = {path: vars(module).get("forward") for path, module in model.network.named_modules()}
    with torch.no_grad():
        wanted = output(model)
        with packed_linears(engine, frozenset({0})):
            layers = block_linears(model)
            assert all("forward" in vars(layer) and not runs_ours(layer) for layer in layers.values())
            torch.testing.assert_close(output(model), wanted, atol=1e-4, rtol=1e-4)
        assert {path: vars(module).get("forward") for path, module in model.network.named_modules()} == before
        assert torch.equal(output(model), wanted)
    if tuning is not None:
        tuning.detach()
    assert all(runs_ours(layer) for layer in block_linears(model).values())


@pytest.mark.parametrize("adapted", [False, True])
def test_a_copy_is_a_network_of_its_own(adapted: bool):
    model = fused("llama")
    if adapted:
        roughened(model)
    twin = copy.deepcopy(model)
    before = output(model).detach()
    assert torch.equal(output(twin), before)
    for layer in block_linears(twin).values():
        forward = layer.cargo.forward if isinstance(layer, Carrying) else vars(layer)["forward"]
        assert isinstance(forward, MethodType)
        assert forward.__self__ is layer
    with torch.no_grad():
        for layer in block_linears(twin).values():
            layer.weight.mul_(1.5)
    assert torch.equal(output(model), before)
    assert not torch.equal(output(twin), before)
    output(twin).sum().backward()
    assert all(parameter.grad is None for parameter in model.network.parameters())


@pytest.mark.parametrize("targets", ["linear", "attention.query"])
def test_bytes_take_the_place_of_fused_layers(targets: str):
    """Whether the layers carry something or not: what stood on the old instance does not hide the new one."""
    model = fused("llama")
    tuning = LoRA(rank=4, targets=(targets,)).attach(model, 0)
    engine = toy_engine(model, tuning)
    done = quantise(engine, toy_loss, engine.collate(toy_trees(model, 6)), smallest=1)
    layers = block_linears(model)
    assert done.layers == len(layers) == LAYERS["llama"]
    assert 0.99 < done.cosine < 1.0
    assert all(isinstance(layer, Int8Linear) and "forward" not in vars(layer) for layer in layers.values())
    losses = train(engine, toy_trees(model), 6)
    assert losses[-1] < losses[0]
    tuning.detach()
    assert all(type(layer) is Int8Linear and "forward" not in vars(layer) for layer in block_linears(model).values())
    use_layout(model, "padded")
    assert torch.isfinite(output(model)).all()


def test_what_a_layer_gives_may_be_written_to():
    model = fused("llama")
    layer = block_linears(model)["model.layers.0.mlp.up_proj"]
    tuning = LoRA(rank=2).attach(model, 0)
    x = torch.ones(2, 3, layer.in_features, requires_grad=True)
    for _ in range(2):  # carrying, and as it was
        y = layer(x)
        y.mul_(2)
        (found,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(found, 2 * layer.weight.detach().sum(0).expand(2, 3, -1))
        tuning.detach()
    assert runs_ours(layer)


def test_removed_while_a_lora_stands_it_stays_removed():
    model = plain("llama")
    changed = fuse(model.network)
    tuning = roughened(model)
    changed.remove()
    tuning.detach()
    assert not any("forward" in vars(module) for module in model.network.modules())
