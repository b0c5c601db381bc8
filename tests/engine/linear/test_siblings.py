"""Layers that read the same input are computed together, on unmodified networks, and nothing waits longer than it must."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tunewright.engine.linear import carrying
from tunewright.engine.linear.carrying import Carrying
from tunewright.engine.linear.siblings import Siblings
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.tiny import tiny

QKV, GATED = {"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}


def groups(model: Model) -> dict[str, set[str]]:
    """The parent of each group, and the names of its members."""
    paths = {id(module): path for path, module in model.network.named_modules()}
    found: dict[str, set[str]] = {}
    for module in model.network.modules():
        if isinstance(module, Carrying) and module.cargo.siblings is not None:
            members = [paths[id(member)] for member in module.cargo.siblings.members]
            found[members[0].rpartition(".")[0]] = {path.rpartition(".")[2] for path in members}
    return found


@pytest.mark.parametrize(
    ("family", "targets", "block", "wanted"),
    [
        ("llama", "linear", "model.layers.0", {"self_attn": QKV, "mlp": GATED}),
        ("mixtral", "linear", "model.layers.1", {"self_attn": QKV}),
        ("llama", r"re:.*\.(q|v)_proj", "model.layers.0", {"self_attn": {"q_proj", "v_proj"}}),
        ("llama", "attention.query", "model.layers.0", {}),
        ("bert", "linear", "encoder.layer.1", {"attention.self": {"query", "key", "value"}}),
        ("gpt2", "linear", "transformer.h.0", {}),
        ("phi3", "linear", "model.layers.0", {}),
        (
            "t5",
            "linear",
            "decoder.block.0",
            {
                "layer.0.SelfAttention": {"q", "k", "v"},
                "layer.1.EncDecAttention": {"k", "v"},
                "layer.2.DenseReluDense": {"wi_0", "wi_1"},
            },
        ),
        ("bart", "linear", "model.decoder.layers.0", {"self_attn": QKV, "encoder_attn": {"k_proj", "v_proj"}}),
    ],
)
def test_who_is_computed_together(family: str, targets: str, block: str, wanted: dict[str, set[str]]):
    model = tiny(family)
    LoRA(rank=2, targets=(targets,)).attach(model, 0)
    found = {path.removeprefix(block + "."): names for path, names in groups(model).items() if path.startswith(block + ".")}
    assert found == wanted


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of layers of every product from now on."""
    sizes: list[int] = []
    project = carrying.project

    def counting(x, layers, cuts, pairs):
        sizes.append(len(layers))
        return project(x, layers, cuts, pairs)

    monkeypatch.setattr(carrying, "project", counting)
    return sizes


@pytest.mark.parametrize("recomputed", [False, True])
def test_one_product_for_all_and_nothing_waits_afterwards(recomputed: bool, monkeypatch: pytest.MonkeyPatch):
    model, sizes = tiny("llama"), counted(monkeypatch)
    LoRA(rank=2).attach(model, 0)
    tokens = torch.arange(5, 15)[None]
    run = lambda tokens: model.network(input_ids=tokens, use_cache=False).logits  # noqa: E731
    (checkpoint(run, tokens, use_reentrant=False) if recomputed else run(tokens)).sum().backward()
    assert sizes == [3, 1, 2, 1] * (4 if recomputed else 2)
    assert not any(waiting(model))


def waiting(model: Model) -> list[int]:
    carriers = [module for module in model.network.modules() if isinstance(module, Carrying)]
    return [len(module.cargo.siblings._waiting) for module in carriers if module.cargo.siblings is not None]


def test_nothing_waits_after_a_forward_pass_that_was_broken_off():
    model = tiny("llama")
    LoRA(rank=2).attach(model, 0)

    def break_off(*_: object) -> None:
        raise RuntimeError("broken off")

    handle = model.network.get_submodule("model.layers.1.self_attn.k_proj").register_forward_pre_hook(break_off)
    with pytest.raises(RuntimeError, match="broken off"):
        model.network(input_ids=torch.arange(5, 15)[None])
    assert not any(waiting(model))
    handle.remove()
    model.network(input_ids=torch.arange(5, 15)[None])


def test_together_is_alone():
    together, apart = tiny("llama"), tiny("llama")
    for model in (together, apart):
        tuning = LoRA(rank=2).attach(model, 0)
        with torch.no_grad():
            for number, parameter in enumerate(tuning.parameters().values()):
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    for module in apart.network.modules():
        if isinstance(module, Carrying):
            module.cargo.siblings = None
    results = []
    for model in (together, apart):
        logits = model.network(input_ids=torch.arange(5, 25).view(2, 10)).logits
        logits.pow(2).mean().backward()
        results.append([logits.detach(), *(p.grad for p in model.network.parameters() if p.requires_grad)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class Parent(nn.Module):
    """Three layers, and which input each is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.calls: list[int] = []
        self.siblings = Siblings(self, list(self.layers), self.compute)

    def compute(self, layers, x):
        self.calls.append(len(layers))
        return tuple(layer(x) for layer in layers)

    def forward(self, *inputs):
        return [self.siblings.take(layer, x) for layer, x in zip(self.layers, inputs, strict=True)]


def test_layers_that_read_different_inputs_part_for_good():
    parent, x, other = Parent(), torch.randn(2, 3), torch.randn(2, 3)
    parent(x, x, x)
    assert parent.calls == [3]
    for _ in range(2):
        parent.calls.clear()
        found = parent(x, other, other)
        for layer, given, output in zip(parent.layers, (x, other, other), found, strict=True):
            assert torch.equal(output, layer(given))
    assert parent.calls == [1, 2]
    parent.calls.clear()
    parent(x, x, x)
    assert parent.calls == [1, 2]


def test_an_equal_tensor_is_not_the_same_one_and_a_changed_one_is_not_either():
    parent, x = Parent(), torch.randn(2, 3)
    first = parent.siblings.take(parent.layers[0], x)
    x.add_(1)
    assert torch.equal(parent.siblings.take(parent.layers[1], x), parent.layers[1](x))
    assert not torch.equal(parent.siblings.take(parent.layers[0], x), first)
    same = x.clone()
    assert torch.equal(parent.siblings.take(parent.layers[2], same), parent.layers[2](same))


def test_inference_mode():
    model = tiny("llama")
    LoRA(rank=2).attach(model, 0)
    tokens = torch.arange(5, 15)[None]
    with torch.no_grad():
        wanted = model.network(input_ids=tokens).logits
    with torch.inference_mode():
        assert torch.equal(model.network(input_ids=tokens).logits, wanted)


def test_a_block_whose_adapters_left_is_not_watched_any_more():
    model = tiny("llama")
    tuning = LoRA(rank=2).attach(model, 0)
    attention = model.network.get_submodule("model.layers.0.self_attn")
    assert attention._forward_hooks
    tuning.detach()
    assert not attention._forward_hooks
    assert not groups(model)
