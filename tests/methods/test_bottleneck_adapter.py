from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.engine.network import use_layout
from tunewright.methods._saved import method_of
from tunewright.methods.bottleneck_adapter import BottleneckAdapter
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5", "mixtral")


class TestBottleneckAdapter(MethodContract):
    method = BottleneckAdapter(width=4)
    families = FAMILIES
    misspelt = (BottleneckAdapter(blocks=(5,)), BottleneckAdapter(blocks=(0, -3)))
    merges = False

    def expected_count(self, model: Model) -> int:
        return 2 * len(model.blocks) * (2 * 4 * model.width + 4 + model.width)


class TestParallelAdapter(TestBottleneckAdapter):
    method = BottleneckAdapter(width=4, kind="parallel", activation="tanh", layer_norm=True)
    families = ("llama", "gpt2", "t5")
    everywhere = ("mixtral", "gpt_neox", "bert", "bart")

    def expected_count(self, model: Model) -> int:
        return super().expected_count(model) + 2 * len(model.blocks) * 2 * model.width


ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu, "swish": F.silu, "tanh": torch.tanh}


def roughened(model: Model, method: BottleneckAdapter):
    tuning = method.attach(model, 0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return tuning


def adapter(own: dict[str, Tensor], place: str, x: Tensor, activation: str) -> Tensor:
    """By the formula of the docstring, from the parameters of the tuning."""
    if f"{place}.norm.weight" in own:
        x = F.layer_norm(x, x.shape[-1:], own[f"{place}.norm.weight"], own[f"{place}.norm.bias"])
    inner = ACTIVATIONS[activation](x @ own[f"{place}.down.weight"].T + own[f"{place}.down.bias"])
    return inner @ own[f"{place}.up.weight"].T + own[f"{place}.up.bias"]


def llama_by_hand(model: Model, own: dict[str, Tensor], method: BottleneckAdapter, ids: Tensor) -> Tensor:
    """A Llama with adapters written out from transformers' own parts."""
    body = model.body
    hidden = body.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    rotary = body.rotary_emb(hidden, positions)
    mask = torch.full((ids.shape[1],) * 2, float("-inf")).triu(1)[None, None]
    scale = method.scale
    for number, block in enumerate(body.layers):
        for place, norm, layer in (
            ("attention", block.input_layernorm, lambda x, block=block: block.self_attn(x, rotary, mask)[0]),
            ("mlp", block.post_attention_layernorm, lambda x, block=block: block.mlp(x)),
        ):
            x = norm(hidden)
            y = layer(x)
            if place in method.where:
                read = x if method.kind == "parallel" else y
                y = y + scale * adapter(own, f"model.layers.{number}.{place}_adapter", read, method.activation)
            hidden = hidden + y
    return model.network.lm_head(body.norm(hidden))


@pytest.mark.parametrize(
    "method",
    [
        BottleneckAdapter(width=4),
        BottleneckAdapter(width=3, where=("mlp",), activation="gelu", scale=0.5),
        BottleneckAdapter(width=5, where=("attention",), activation="swish", layer_norm=True),
        BottleneckAdapter(reduction=8, kind="parallel", activation="tanh"),
    ],
    ids=str,
)
def test_logits_and_gradients_are_those_of_the_published_formula(method: BottleneckAdapter) -> None:
    model, plain = tiny("llama"), tiny("llama")
    tuning, ids = roughened(model, method), torch.arange(10, 24)[None]
    use_layout(plain, "padded")
    plain.network.set_attn_implementation("eager")
    logits = model.network(input_ids=ids).logits
    own = {name: value.detach().clone().requires_grad_() for name, value in tuning.parameters().items()}
    wanted = llama_by_hand(plain, own, method, ids)
    assert difference(logits, wanted) < 1e-5
    for found in (logits, wanted):
        found.pow(2).mean().backward()
    for name, value in tuning.parameters().items():
        assert value.grad is not None
        assert difference(value.grad, own[name].grad) < 2e-5, name


@pytest.mark.parametrize(
    ("family", "settings", "places"),
    [
        ("llama", {"where": ("mlp",)}, {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}),
        ("gpt2", {"blocks": (-1,), "where": ("attention",)}, {"transformer.h.1.attn.c_proj"}),
        ("bert", {"blocks": (0,)}, {"encoder.layer.0.attention.output.dense", "encoder.layer.0.output.dense"}),
        ("t5", {"halves": ("decoder",), "blocks": (0,), "where": ("attention",)}, {"decoder.block.0.layer.0.SelfAttention.o"}),
        ("bart", {"halves": ("encoder",), "where": ("mlp",), "blocks": (1,)}, {"model.encoder.layers.1.fc2"}),
        ("mixtral", {"where": ("mlp",), "blocks": (0,)}, {"model.layers.0.mlp"}),
    ],
)
def test_where_they_stand(family: str, settings: dict, places: set[str]) -> None:
    tuning = BottleneckAdapter(width=2, **settings).attach(tiny(family), 0)
    assert {spot.path for spot in tuning.spots.values()} == places


def test_what_a_parallel_one_reads() -> None:
    tuning = BottleneckAdapter(width=2, kind="parallel", blocks=(0,)).attach(tiny("t5"), 0)
    assert [spot.source for spot in tuning.spots.values()] == [
        *("encoder.block.0.layer.0.SelfAttention.q", "encoder.block.0.layer.1.DenseReluDense.wi_0"),
        *("decoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.2.DenseReluDense.wi_0"),
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"blocks": (2,)}, "there is no block 2: this base has 2"), ({"halves": ("encoder",)}, "this base has no encoder")],
)
def test_what_the_base_does_not_have_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BottleneckAdapter(**settings).attach(tiny("llama"), 0)


def test_one_width_only() -> None:
    with pytest.raises(ConfigurationError, match="give one"):
        build(BottleneckAdapter, {"width": 3, "reduction": 4})
    assert BottleneckAdapter().inner(256) == 16
    assert BottleneckAdapter(reduction=300).inner(32) == 1


def test_an_adapter_of_another_width_is_not_read(tmp_path: Path) -> None:
    BottleneckAdapter(width=4).attach(tiny("llama"), 0).save(tmp_path)
    assert method_of(tmp_path) == BottleneckAdapter(width=4)
    with pytest.raises(BaseModelError, match=r"attention_adapter.down.weight' is \(4, 32\) in the adapter and \(3, 32\) here"):
        BottleneckAdapter(width=3).attach(tiny("llama"), 0).load(tmp_path)
