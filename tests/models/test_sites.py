import pytest
from torch import nn

from tunewright.core.errors import ConfigurationError
from tunewright.models.attached import Attached
from tunewright.models.sites import LINEAR_SITES, blocks_of, canonical, find, linear_layers, roles
from tunewright.testing.tiny import FAMILIES, tiny

# The layers of one block for each canonical name, as the family's own code calls them.
PLAIN = {
    **{
        f"attention.{name}": f"self_attn.{letter}_proj"
        for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o"))
    },
    **{f"mlp.{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
BERT = {
    **{f"attention.{name}": f"attention.self.{name}" for name in ("query", "key", "value")},
    **{"attention.output": "attention.output.dense", "mlp.up": "intermediate.dense", "mlp.down": "output.dense"},
}
OPT = {
    **{
        f"attention.{name}": f"self_attn.{word}_proj"
        for name, word in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "out"))
    },
    **{"mlp.up": "fc1", "mlp.down": "fc2"},
}


def fused(qkv: str) -> dict[str, str]:
    return {f"attention.{name}": qkv for name in ("query", "key", "value")}


EXPECTED: dict[str, dict[str, str]] = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3_text", "olmo2"), PLAIN),
    "mixtral": {name: path for name, path in PLAIN.items() if name.startswith("attention")},
    "gpt2": {**fused("attn.c_attn"), "attention.output": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"},
    "phi": {**PLAIN, "attention.output": "self_attn.dense", "mlp.gate": "", "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"},
    "phi3": {**PLAIN, **fused("self_attn.qkv_proj"), "mlp.gate": "mlp.gate_up_proj", "mlp.up": "mlp.gate_up_proj"},
    "gpt_neox": {
        **fused("attention.query_key_value"),
        **{"attention.output": "attention.dense", "mlp.up": "mlp.dense_h_to_4h", "mlp.down": "mlp.dense_4h_to_h"},
    },
    "opt": OPT,
    "bart": OPT,
    **dict.fromkeys(("bert", "roberta", "electra"), BERT),
    "modernbert": {
        **fused("attn.Wqkv"),
        "attention.output": "attn.Wo",
        "mlp.gate": "mlp.Wi",
        "mlp.up": "mlp.Wi",
        "mlp.down": "mlp.Wo",
    },
    "distilbert": {
        **{f"attention.{name}": f"attention.{name[0]}_lin" for name in ("query", "key", "value")},
        **{"attention.output": "attention.out_lin", "mlp.up": "ffn.lin1", "mlp.down": "ffn.lin2"},
    },
    "t5": {
        **{f"attention.{name}": f"layer.0.SelfAttention.{name[0]}" for name in ("query", "key", "value", "output")},
        **{
            "mlp.gate": "layer.1.DenseReluDense.wi_0",
            "mlp.up": "layer.1.DenseReluDense.wi_1",
            "mlp.down": "layer.1.DenseReluDense.wo",
        },
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_canonical_names(family: str):
    network = tiny(family).network
    known, (first, *_) = canonical(network), blocks_of(network)
    inside = {
        name: [path.removeprefix(first + ".") for path in known.get(name, ()) if path.startswith(first + ".")]
        for name in LINEAR_SITES
    }
    assert {name: paths[0] for name, paths in inside.items() if paths} == {
        name: path for name, path in EXPECTED[family].items() if path
    }
    assert len(known["attention"]) == (6 if family in ("t5", "bart") else 2)
    assert len(known["mlp"]) == len(blocks_of(network))
    assert len(known["norm"]) >= 3
    assert find(network, ["embedding"]).popitem()[1] is network.get_input_embeddings()
    assert ("head" in known) == (network.get_output_embeddings() is not None)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_the_blocks_has_a_role(family: str):
    network = tiny(family).network
    found = roles(network)
    assert set(found) == set(linear_layers(network)) == set(find(network, ["linear"]))
    assert all(found.values())
    head = network.get_output_embeddings()
    assert head is None or not any(module is head for module in find(network, ["linear"]).values())


def test_cross_attention_counts_as_attention():
    assert "decoder.block.0.layer.1.EncDecAttention.q" in find(tiny("t5").network, ["attention.query"])


def test_fused_sites_stand_under_all_they_fuse():
    assert roles(tiny("phi3").network)["model.layers.1.mlp.gate_up_proj"] == ("mlp.gate", "mlp.up")
    network = tiny("gpt2").network
    assert find(network, ["attention.query"]) == find(network, ["attention.key"])


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("q_proj", ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        ("self_attn.q_proj", ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        ("model.layers.1.self_attn.q_proj", ["model.layers.1.self_attn.q_proj"]),
        ("model.layers.[1].*.[qk]_proj", ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"]),
        ("layers.0.mlp.u*", ["model.layers.0.mlp.up_proj"]),
        (r".*layers\.1\..*(q|k)_proj", ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj"]),
        ("re:model.layers.0.mlp.up.proj", ["model.layers.0.mlp.up_proj"]),
    ],
)
def test_raw_names_globs_and_expressions(name: str, paths: list[str]):
    assert list(find(tiny("llama").network, [name])) == paths


def test_places_come_in_the_networks_order_and_once():
    found = find(tiny("llama").network, ["mlp.down", "linear", "attention.query", "norm"])
    order = [path for path, _ in tiny("llama").network.named_modules() if path in found]
    assert list(found) == order
    assert all(isinstance(module, nn.Module) for module in found.values())


@pytest.mark.parametrize(
    ("family", "names", "message"),
    [
        ("llama", ["q_proj", "v_prj"], "nothing in a llama network is called 'v_prj'. Did you mean 'v_proj'?"),
        ("llama", ["atention.query"], "Did you mean 'attention.query'?"),
        ("llama", ["proj"], "nothing in a llama network is called 'proj'"),
        ("llama", ["_proj"], "called '_proj'"),
        ("llama", ["linear", "model.layers.7.*"], r"called 'model.layers.7.*'"),
        ("bert", ["head"], "loaded without a language-model head"),
        ("mixtral", ["mlp.gate"], "its experts are fused tensors"),
        ("gpt2", ["mlp.gate"], "Did you mean 'mlp.up'?"),
        ("llama", ["input_layernrm"], "Did you mean 'input_layernorm'?"),
        ("llama", ["re:("], "not a regular expression"),
        ("llama", [], "no place in the network was named"),
    ],
)
def test_names_that_mean_nothing(family: str, names: list[str], message: str):
    with pytest.raises(ConfigurationError) as caught:
        find(tiny(family).network, names)
    assert message in str(caught.value)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_what_is_attached_hides_no_place_and_is_none(family: str):
    network = tiny(family).network
    before = canonical(network), roles(network), list(linear_layers(network)), list(blocks_of(network))
    for module in list(linear_layers(network).values()):
        attached = Attached()
        attached.q_proj = nn.Linear(2, 2)
        attached.some_norm = nn.LayerNorm(2)
        attached.more = nn.ModuleList(nn.Linear(500, 500) for _ in range(2))
        module.lora_0 = attached
    assert (canonical(network), roles(network), list(linear_layers(network)), list(blocks_of(network))) == before
    assert not any(".lora_0" in path for path in find(network, ["re:.*", "*.0"]))
    with pytest.raises(ConfigurationError, match=r"nothing in a .* network is called 'lora_0'"):
        find(network, ["lora_0"])


def test_blocks_are_chosen_by_parameters_and_not_by_length():
    network = tiny("llama").network
    network.extra = nn.ModuleList([nn.Linear(2, 2) for _ in range(9)])
    assert list(blocks_of(network)) == ["model.layers.0", "model.layers.1"]
    assert list(blocks_of(tiny("bart").network))[::2] == ["model.encoder.layers.0", "model.decoder.layers.0"]
