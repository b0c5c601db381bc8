"""How layers of an unmodified network come to carry adapters, whose tokens each changes, and how they are plain again."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tunewright.engine.linear import LoRAAdapter, carrying, hand_over
from tunewright.engine.linear.carrying import Carrying
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.models import Model
from tunewright.models.lanes import Lane
from tunewright.testing.tiny import tiny

TOKENS = torch.arange(10, 34).view(2, 12)


def roughened(model: Model, method: LoRA, seed: int) -> LoRATuning:
    tuning = method.attach(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuning


def logits(model: Model, *runs: Lane) -> torch.Tensor:
    with model.lanes.during(runs):
        output = model.network(input_ids=TOKENS)
    return output.last_hidden_state if model.kind == "encoder" else output.logits


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_carrying_network_is_the_same_network(family: str):
    model = tiny(family)
    before = {path: type(module) for path, module in model.network.named_modules()}
    names, plain = set(model.network.state_dict()), logits(model)
    first, second = LoRA(rank=2).attach(model, 0), LoRA(rank=3, targets=("mlp.up",)).attach(model, 1)
    carriers = [module for module in model.network.modules() if isinstance(module, Carrying)]
    assert carriers
    assert all(isinstance(module, nn.Linear | Conv1D) for module in carriers)
    own = {name for name in model.network.state_dict() if ".lora_" not in name}
    assert own == names
    with first.disabled(), second.disabled():
        assert torch.equal(logits(model), plain)
    first.detach()
    assert any(isinstance(module, Carrying) for module in model.network.modules())
    second.detach()
    assert {path: type(module) for path, module in model.network.named_modules()} == before
    assert set(model.network.state_dict()) == names
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("narrow", [False, True], ids=["float32", "bfloat16"])
def test_outputs_with_gains_of_their_own_stand_beside_others(family: str, narrow: bool):
    """DoRA's rows between those of a plain LoRA and of nobody; sites of one block with different ranks and scales."""
    methods = (
        LoRA(rank=2, dora=True),
        LoRA(rank=3),
        LoRA(rank=4, dora=True, rank_pattern={"mlp.up": 2}, alpha_pattern={"mlp.up": 3}),
    )
    model = tiny(family)
    for index, method in enumerate(methods):
        roughened(model, method, index)
    ids = torch.arange(10, 46).view(3, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
        with model.lanes.during([Lane(2, 0, 12), Lane(1, 12, 24), Lane(0, 24, 36)]):
            found = model.network(input_ids=ids)[0]
        found.float().pow(2).mean().backward()
        for row, number in enumerate((2, 1, 0)):
            alone = tiny(family)
            tuning = roughened(alone, methods[number], number)
            wanted = alone.network(input_ids=ids)[0][row]
            close = 0.3 if narrow else 1e-4
            torch.testing.assert_close(found[row].float(), wanted.float(), rtol=close, atol=close)
            (alone.network(input_ids=ids[row][None])[0].float().pow(2).mean() / 3).backward()
            held = dict(model.network.named_parameters())
            for path, layer in tuning.layers.items() if not narrow else ():
                for name, parameter in layer.named_parameters():
                    grad = held[f"{path}.lora_{number}.{name}"].grad
                    assert float((grad - parameter.grad).norm() / parameter.grad.norm()) < 1e-3, (path, name)


METHODS = (LoRA(rank=2), LoRA(rank=5, alpha=3, targets=("attention.query", "mlp.up")), LoRA(rank=2, alpha=1))


def separate(family: str, index: int) -> tuple[Model, LoRATuning]:
    model = tiny(family)
    return model, roughened(model, METHODS[index], index)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize("owners", [(0, 1), (1, 0), (0, 2), (2, 1)], ids=str)
def test_each_tuning_changes_its_own_tokens_as_if_it_were_alone(family: str, owners: tuple[int, int]):
    """Two rows of two tunings; the third stands by."""
    model = tiny(family)
    bank = [roughened(model, method, index) for index, method in enumerate(METHODS)]
    found = logits(model, Lane(owners[0], 0, 12), Lane(owners[1], 12, 24))
    found.pow(2).sum().backward()
    for row, owner in enumerate(owners):
        alone, tuning = separate(family, owner)
        wanted = logits(alone)
        torch.testing.assert_close(found[row], wanted[row], rtol=1e-4, atol=1e-4)
        wanted[row].pow(2).sum().backward()
        for name, parameter in tuning.parameters().items():
            other = bank[owner].parameters()[name].grad
            assert float((parameter.grad - other).norm() / parameter.grad.norm()) < 1e-4, name
    (idle,) = set(range(3)) - set(owners)
    assert all(parameter.grad is None for parameter in bank[idle].parameters().values())


def test_a_tuning_that_is_disabled_or_not_a_number_touches_no_other():
    model = tiny("llama")
    one, other = roughened(model, METHODS[0], 0), roughened(model, METHODS[2], 2)
    runs = (Lane(0, 0, 12), Lane(1, 12, 24))
    both = logits(model, *runs)
    with one.disabled():
        alone = logits(model, *runs)
    torch.testing.assert_close(alone[1], both[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone[0], logits(tiny("llama"))[0], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for parameter in one.parameters().values():
            parameter.fill_(float("nan"))
    found = logits(model, *runs)
    assert not torch.isfinite(found[0]).any()
    torch.testing.assert_close(found[1], both[1], rtol=1e-5, atol=1e-5)
    found[1].sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in other.parameters().values())


def test_a_single_lane_is_everything_and_several_must_fit():
    model = tiny("llama")
    first = roughened(model, METHODS[0], 0)
    alone = logits(model)
    assert torch.equal(logits(model, Lane(0, 0, 5)), alone)
    second = roughened(model, METHODS[2], 2)
    assert torch.equal(logits(model, Lane(0, 0, 24)), alone)
    with pytest.raises(ValueError, match=r"tunings \[0, 1\] stand on one layer, and no lanes say whose tokens these are"):
        logits(model)
    with pytest.raises(ValueError, match="the lanes end at token 20 and a layer was given 24 tokens"):
        logits(model, Lane(0, 0, 12), Lane(1, 12, 20))
    with second.disabled():
        assert torch.equal(logits(model), alone)
    first.detach()
    assert logits(model).shape == alone.shape


@pytest.mark.parametrize("kind", ["dropout", "trained bias"])
def test_layers_that_the_fused_product_does_not_serve_compute_the_same(kind: str):
    """Dropout of probability near nothing, and a base whose biases are trained."""
    family = "bert"
    model, plain = tiny(family), tiny(family)
    for one in (model, plain):
        for index, method in enumerate(METHODS[:2]):
            roughened(one, method.model_copy(update={"dropout": 1e-12 if one is model and kind == "dropout" else 0.0}), index)
        one.network.train()
        for module in one.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    biases = [module.bias for module in model.network.modules() if isinstance(module, Carrying)]
    for bias in biases:
        bias.requires_grad_(kind == "trained bias")
    runs = (Lane(1, 0, 12), Lane(0, 12, 24))
    found, wanted = logits(model, *runs), logits(plain, *runs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    found.pow(2).mean().backward()
    wanted.pow(2).mean().backward()
    others = dict(plain.network.named_parameters())
    for name, parameter in model.network.named_parameters():
        if ".lora_" in name:
            torch.testing.assert_close(parameter.grad, others[name].grad, rtol=1e-3, atol=1e-6)
    assert all((bias.grad is not None) == (kind == "trained bias") for bias in biases)


def test_dropout_drops():
    model = tiny("llama")
    roughened(model, LoRA(rank=4, dropout=0.5), 0)
    model.network.train()
    assert not torch.equal(logits(model), logits(model))
    model.network.eval()
    assert torch.equal(logits(model), logits(model))


@pytest.mark.parametrize(
    ("ends", "narrow", "wanted"),
    [
        ((8, 16, 24), False, [(8, 8, 8)]),
        ((10, 16, 24), False, [(10,), (6,), (8,)]),
        ((10, 16, 24), True, [(10, 6, 8)]),
        ((150, 160, 310), True, [(150,), (10,), (150,)]),
        ((8, 24, 24), False, [(8,), (16,)]),
    ],
)
def test_lanes_are_one_product_where_that_is_quicker(
    ends: tuple[int, int, int], narrow: bool, wanted: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
):
    model = tiny("llama")
    for seed in range(3):
        LoRA(rank=2, targets=("mlp.down",)).attach(model, seed)
    layer, seen = model.network.get_submodule("model.layers.0.mlp.down_proj"), []
    project = carrying.project
    monkeypatch.setattr(carrying, "project", lambda *given: seen.append([cut.lengths for cut in given[2]]) or project(*given))
    runs = [Lane(slot, start, stop) for slot, (start, stop) in enumerate(zip((0, *ends[:2]), ends, strict=True))]
    with model.lanes.during(runs), torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
        layer(torch.randn(1, ends[-1], layer.in_features))
    assert seen == [wanted]


class Doubled(nn.Linear):
    """Stands in for a layer that is not held as an ordinary weight."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


def test_what_one_layer_carries_can_be_handed_to_another():
    model = tiny("llama")
    tuning = roughened(model, METHODS[0], 0)
    attention = model.network.get_submodule("model.layers.0.self_attn")
    old, new = attention.q_proj, Doubled(32, 32, bias=False).requires_grad_(False)
    new.weight = nn.Parameter(old.weight / 2, requires_grad=False)
    x = torch.randn(3, 32)
    wanted = old(x)
    hand_over(old, new)
    attention.q_proj = new
    assert type(old) is nn.Linear
    assert isinstance(new, Doubled)
    torch.testing.assert_close(new(x), wanted)
    hand_over(attention.o_proj.plain(3, 3), nn.Linear(3, 3))  # nothing is carried: nothing happens
    logits(model).sum().backward()
    assert all(parameter.grad is not None for parameter in tuning.parameters().values())
    tuning.detach()
    assert type(attention.q_proj) is Doubled


def test_a_copy_of_a_carrying_network_is_one_of_its_own():
    model = tiny("llama")
    tuning = roughened(model, METHODS[0], 0)
    twin = copy.deepcopy(model)
    before = logits(twin)
    assert torch.equal(before, logits(model))
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.zero_()
    assert torch.equal(logits(twin), before)
    assert not torch.equal(logits(model), before)


def test_masters_are_read_anew_at_each_step():
    model = tiny("llama")
    tuning = roughened(model, METHODS[0], 0)
    before = logits(model)
    moved = {name: parameter.data.clone() * 2 for name, parameter in tuning.parameters().items()}
    for name, parameter in tuning.parameters().items():
        parameter.data = moved[name]  # what a flat buffer does
    assert not torch.equal(logits(model), before)
    for parameter in tuning.parameters().values():
        parameter.data /= 2
    torch.testing.assert_close(logits(model), before)


def test_adapters_are_the_networks_own_parameters_and_go_with_it():
    layer = nn.Linear(4, 4)
    adapter = LoRAAdapter(layer, 2, 1.0, 0.0, 0)
    assert {name for name, _ in adapter.named_parameters()} == {"A_RI", "B_OR"}
    model = tiny("llama")
    LoRA(rank=2, targets=("mlp.up",)).attach(model, 0)
    held = dict(model.network.named_parameters())
    assert held["model.layers.1.mlp.up_proj.lora_0.A_RI"].requires_grad
    assert not held["model.layers.1.mlp.up_proj.weight"].requires_grad
