"""A fused network gives the logits and gradients of the unfused one, and is the unfused one again afterwards."""

from __future__ import annotations

import copy

import pytest
import torch

from tunewright.data.forest import Segment, Tree
from tunewright.engine import batch as layouts
from tunewright.engine.fused import fuse
from tunewright.engine.linear import LoRAAdapter, load_on
from tunewright.engine.network import use_layout
from tunewright.engine.recompute import Recomputing
from tunewright.models import Model
from tunewright.models.sites import canonical, linear_layers
from tunewright.testing.tiny import tiny

# What stands in two blocks: norms (the last one included), gated MLPs, rotary attentions.
PARTS = {
    "llama": (5, 2, 2),
    "qwen2": (5, 2, 2),
    "qwen3": (9, 2, 2),
    "mistral": (5, 2, 2),
    "mixtral": (5, 0, 2),
    "gemma": (5, 2, 2),
    "gemma2": (9, 2, 2),
    "gemma3_text": (13, 2, 2),
    "phi": (0, 0, 2),
    "phi3": (5, 2, 2),
    "olmo2": (9, 2, 2),
    "gpt2": (0, 0, 0),
    "gpt_neox": (0, 0, 2),
    "bert": (0, 0, 0),
    "modernbert": (0, 2, 2),
}


def trees() -> list[Tree]:
    shared = Tree((Segment((5, 6, 7, 8)), Segment((9, 10, 11), 0), Segment((12, 13), 0)))
    return [shared, *(Tree((Segment(tuple(range(20, 20 + count))),)) for count in (7, 12))]


def hidden_of(model: Model, layout: str) -> torch.Tensor:
    quiet = {} if model.kind == "encoder" else {"use_cache": False}
    if layout == "forest":
        batch = layouts.forest(trees())
        output = model.body(input_ids=batch.tokens_BT, position_ids=batch.positions_BT, forest=batch.layout, **quiet)
    else:
        batch = layouts.padded(trees(), 0)
        output = model.body(input_ids=batch.tokens_BT, attention_mask=batch.mask_BT, **quiet)
    hidden_TD = output.last_hidden_state.flatten(0, 1)
    return hidden_TD if batch.mask_BT is None else hidden_TD[batch.mask_BT.flatten().bool()]


def passed(model: Model, layout: str = "padded") -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.network.zero_grad()
    hidden = hidden_of(model, layout).float()
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden)).sum().backward()
    return hidden.detach(), {name: p.grad.clone() for name, p in model.network.named_parameters() if p.grad is not None}


def assert_same(one, other, tolerance: float = 2e-5) -> None:
    assert (one[0] - other[0]).abs().max() <= tolerance * other[0].abs().max()
    assert one[1].keys() == other[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in other[1].values())
    for name, gradient in one[1].items():  # a key's bias has a gradient of zero, of which only noise is left
        assert (gradient - other[1][name]).abs().max() <= tolerance * max(float(other[1][name].abs().max()), 1e-2 * largest), name


@pytest.mark.parametrize("layout", ["forest", "padded"])
@pytest.mark.parametrize("family", [family for family, parts in PARTS.items() if any(parts)])
def test_hidden_states_and_gradients_are_those_of_the_network_as_it_was(family: str, layout: str):
    model = tiny(family)
    use_layout(model, layout)  # type: ignore[arg-type]
    plain = passed(model, layout)
    fuse(model.network, sparing=True)
    assert_same(passed(model, layout), plain)


@pytest.mark.parametrize("family", PARTS)
def test_what_is_recognised(family: str):
    fused = fuse(tiny(family).network, sparing=True)
    assert tuple(len(fused.parts[kind]) for kind in ("norm", "gated", "rotary")) == PARTS[family]


def test_gated_mlps_stay_unless_memory_is_to_be_spared():
    assert fuse(tiny("llama").network).parts["gated"] == []


def test_names_parameters_and_types_stay_and_all_comes_off_again():
    model = tiny("qwen3")
    network = model.network
    before = (list(network.state_dict()), [(path, type(module)) for path, module in network.named_modules()], canonical(network))
    parameters = [id(parameter) for parameter in network.parameters()]
    fused = fuse(network, sparing=True)
    assert before == (list(network.state_dict()), [(path, type(m)) for path, m in network.named_modules()], canonical(network))
    assert parameters == [id(parameter) for parameter in network.parameters()]
    assert repr(fused) == "Fused(9 norm, 2 gated, 2 rotary, 14 linear)"
    assert not fuse(network, sparing=True).modules  # what is fused is not fused again
    fused.remove()
    fused.remove()
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_module_that_somebody_has_set_a_forward_on_is_left_alone():
    model = tiny("llama")
    norm = model.network.get_submodule("model.norm")
    norm.forward = stood = norm.forward
    fused = fuse(model.network, sparing=True)
    assert "model.norm" not in fused.modules
    assert vars(norm)["forward"] is stood


def test_a_copy_is_fused_on_its_own():
    model = tiny("llama")
    fused = fuse(model.network, sparing=True)
    other = copy.copy(model)
    other.network = copy.deepcopy(model.network)
    fused.remove()
    norm = other.network.get_submodule("model.norm")
    assert vars(norm)["forward"].__self__ is norm
    plain = passed(model)
    assert_same(passed(other), plain)
    torch.nn.init.zeros_(norm.get_parameter("weight"))
    assert not passed(other)[0].any()  # it reads its own parameters


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_adapters_are_put_on_later(family: str):
    results = []
    for fusing in (False, True):
        model = tiny(family)
        if fusing:
            fuse(model.network, sparing=True)
        model.network.requires_grad_(False)
        adapters = {}
        for path, layer in linear_layers(model.network).items():
            adapters[path] = LoRAAdapter(layer, 2, 1.5, 0.0, 0)
            torch.nn.init.normal_(adapters[path].B_OR, std=0.1, generator=torch.Generator().manual_seed(1))
        load_on(model.network, model.lanes, model.lanes.open(), adapters)
        results.append(passed(model))
    assert len(results[0][1]) == 2 * len(adapters)
    assert_same(*results)


@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_activations_can_be_computed_again(family: str):
    model = tiny(family)
    plain = passed(model)
    fuse(model.network, sparing=True)
    Recomputing(model)
    assert_same(passed(model), plain)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3"])
def test_greedy_answers_with_a_cache_are_the_same(family: str):
    model = tiny(family)
    use_layout(model, "padded")
    tokens = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]])
    mask = (tokens != 0).long()

    def written() -> torch.Tensor:
        answer = model.network.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=12, do_sample=False)  # type: ignore[operator]
        assert isinstance(answer, torch.Tensor)
        return answer

    plain = written()
    fuse(model.network, sparing=True)
    assert torch.equal(written(), plain)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_under_autocast_it_strays_no_further_from_float32(family: str):
    """bfloat16 rounds differently, but not worse, than the network as it was."""
    model = tiny(family)
    exact = passed(model)
    strayed = []
    for fusing in (False, True):
        if fusing:
            fuse(model.network, sparing=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden, gradients = passed(model)
        errors = [(gradients[name] - exact[1][name]).norm() / exact[1][name].norm() for name in gradients]
        strayed.append((float((hidden - exact[0]).norm() / exact[0].norm()), float(torch.stack(errors).mean())))
    assert strayed[1][0] <= 1.3 * strayed[0][0]
    assert strayed[1][1] <= 1.3 * strayed[0][1]


def test_under_autocast_norms_hand_out_what_products_read():
    model = tiny("llama")
    fuse(model.network, sparing=True)
    x = torch.randn(1, 3, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.network.get_submodule("model.layers.0.input_layernorm")(x).dtype is torch.bfloat16
        assert model.network.get_submodule("model.norm")(x).dtype is torch.float32
    assert model.network.get_submodule("model.layers.0.input_layernorm")(x).dtype is torch.float32
