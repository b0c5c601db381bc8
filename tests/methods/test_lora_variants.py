"""LoRA's variants against PEFT: DoRA, embeddings, convolutions, patterns and starts; logits, gradients, files both ways."""

import json
from pathlib import Path
from typing import ClassVar

import peft
import pytest
import torch
from torch import nn

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.models import Model
from tunewright.models.sites import find
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_trees

CLOSE = 5e-6
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to .True.:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning"),
]
PATTERNS = {"rank_pattern": {"q_proj": 2, "mlp.up": 6}, "alpha_pattern": {"model.layers.1.*.q_proj": 3.0}}
SMALL = ("attention.query", "mlp.down", "embedding")


def formula(method: LoRA, model: Model) -> int:
    hosts = find(model.network, method.targets)
    counts = [method.width * (host.weight[0].numel() + len(host.weight)) for host in hosts.values()]
    outputs = [
        host.embedding_dim if isinstance(host, nn.Embedding) else host.weight.numel() // fan(host) for host in hosts.values()
    ]
    return sum(counts) + sum(outputs) * method.dora


def fan(host: nn.Module) -> int:
    return host.in_features if isinstance(host, nn.Linear) else host.nx


class TestDoRA(MethodContract):
    method = LoRA(rank=2, dora=True, targets=("attention.query", "attention.output"))
    families = ("llama", "gpt2", "t5")
    misspelt = (LoRA(rank_pattern={"q_porj": 4}), LoRA(rank_pattern={"mlp.up": 4}, targets=("attention.query",)))

    def expected_count(self, model: Model) -> int:
        return formula(self.method, model)


class TestEmbeddings(MethodContract):
    method = LoRA(rank=2, targets=("embedding", "attention.query"))
    families = ("llama", "gemma3_text")
    refused: ClassVar[dict[str, str]] = {"t5": "nothing is looked up there", "bart": "nothing is looked up there"}

    def expected_count(self, model: Model) -> int:
        return formula(self.method, model)


class TestPiSSA(MethodContract):
    method = LoRA(rank=2, init="pissa", targets=("attention.query", "attention.output"))
    families = ("gpt2",)

    def expected_count(self, model: Model) -> int:
        return formula(self.method, model)


def roughened(model: Model, method: LoRA, seed: int = 1) -> LoRATuning:
    """The method on the model, every parameter away from where it began."""
    tuning = method.attach(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuning


def peft_outputs(network, model: Model) -> torch.Tensor:
    return outputs(Model(network, model.tokenizer, model.kind, model.family, "", None, ""), toy_trees(model))


VARIANTS = {
    "dora": LoRA(rank=3, alpha=5, dora=True),
    "dora, stabilized": LoRA(rank=4, dora=True, rank_stabilized=True, targets=("attention.query", "mlp.down")),
    "embedding": LoRA(rank=3, targets=SMALL),
    "dora on embedding": LoRA(rank=3, targets=SMALL, dora=True),
    "pissa": LoRA(rank=3, init="pissa"),
    "pissa_niter": LoRA(rank=3, init="pissa_niter_2", rank_stabilized=True),
    "olora": LoRA(rank=3, init="olora"),
    "pissa with dora": LoRA(rank=3, init="pissa", dora=True, targets=("mlp.down",)),
}


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("gpt2", name) for name in VARIANTS),
        ("llama", "dora"),
        ("bert", "embedding"),
        ("gemma3_text", "embedding"),
        ("t5", "pissa"),
    ],
)
def test_a_variant_made_here_is_the_same_in_peft_and_here_again(family: str, name: str, tmp_path: Path):
    model, variant = tiny(family), VARIANTS[name]
    roughened(model, variant).save(tmp_path)
    wanted = outputs(model, toy_trees(model))
    assert difference(wanted, outputs(tiny(family), toy_trees(model))) > 1e-2
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path))
    assert difference(peft_outputs(theirs.base_model.model, model), wanted) < CLOSE
    again = tiny(family)
    LoRA.from_folder(tmp_path).attach(again, 0).load(tmp_path)
    assert difference(outputs(again, toy_trees(model)), wanted) < CLOSE


SETTINGS = {
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "dora on some": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True, "lora_alpha": 3},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*_proj": 6},
        "alpha_pattern": {"q_proj": 3},
    },
    "pissa": {"target_modules": ["q_proj", "down_proj"], "init_lora_weights": "pissa"},
    "olora": {"target_modules": ["q_proj", "down_proj"], "init_lora_weights": "olora"},
    "orthogonal": {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_a_variant_made_by_peft_is_the_same_here(settings: dict, tmp_path: Path):
    model = tiny("llama")
    network = peft.get_peft_model(model.network, peft.LoraConfig(**{"r": 4, **settings}))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    network.save_pretrained(tmp_path)
    wanted = peft_outputs(network.base_model.model, model)
    ours = tiny("llama")
    tuning = LoRA.from_folder(tmp_path).attach(ours, 0)
    tuning.load(tmp_path)
    assert difference(outputs(ours, toy_trees(ours)), wanted) < CLOSE


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
@pytest.mark.parametrize(
    "variant", [VARIANTS["dora"], VARIANTS["embedding"], VARIANTS["dora on embedding"]], ids=["dora", "emb", "both"]
)
def test_gradients_are_those_of_peft(family: str, variant: LoRA, tmp_path: Path):
    model = tiny(family)
    tuning = roughened(model, variant)
    tuning.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path), is_trainable=True)
    ids = torch.arange(10, 30)[None]
    for network in (model.network, theirs):
        network.eval()
        network(input_ids=ids)[0].pow(2).mean().backward()
    gradients = {
        name.removeprefix("base_model.model.")
        .replace(".default", "")
        .replace("magnitude_vector.weight", "magnitude_vector"): one.grad
        for name, one in theirs.named_parameters()
        if one.requires_grad
    }
    assert set(gradients) == set(tuning.parameters())
    for name, parameter in tuning.parameters().items():
        assert difference(parameter.grad, gradients[name]) < 1e-5, name


def test_dropout_with_magnitudes_follows_peft():
    """Both drop the same inputs when they draw the same mask: one layer alone."""
    torch.manual_seed(3)
    plain = nn.Sequential(nn.Linear(12, 8))
    network = peft.get_peft_model(plain, peft.LoraConfig(r=2, target_modules=["0"], use_dora=True, lora_dropout=0.5))
    theirs = network.base_model.model[0]
    from tunewright.engine.linear import LoRAAdapter

    adapter = LoRAAdapter(theirs.base_layer, 2, theirs.scaling["default"], 0.5, 0)
    adapter.weigh()
    with torch.no_grad():
        theirs.lora_B["default"].weight.normal_()
        adapter.put(theirs.lora_A["default"].weight, theirs.lora_B["default"].weight)
        adapter.magnitude_O.mul_(1.5)
        theirs.lora_magnitude_vector["default"].weight.copy_(adapter.magnitude_O)
    x = torch.randn(5, 12)
    torch.manual_seed(7)
    wanted = theirs(x)
    torch.manual_seed(7)
    y = theirs.base_layer(x)
    torch.testing.assert_close(y + adapter.beside(x, y), wanted, rtol=1e-5, atol=1e-6)


def test_patterns_give_sites_their_own_ranks_and_alphas(tmp_path: Path):
    model = tiny("llama")
    tuning = roughened(model, LoRA(rank=4, **PATTERNS))
    found = {path: (layer.rank, layer.scale) for path, layer in tuning.layers.items()}
    assert found["model.layers.0.self_attn.q_proj"] == (2, 2.0)
    assert found["model.layers.1.self_attn.q_proj"] == (2, 1.5)
    assert found["model.layers.0.mlp.up_proj"] == (6, 2.0)
    assert found["model.layers.1.mlp.gate_proj"] == (4, 2.0)
    tuning.save(tmp_path)
    facts = json.loads((tmp_path / "adapter_config.json").read_text())
    assert facts["r"] == 4
    assert facts["rank_pattern"]["model.layers.1.mlp.up_proj"] == 6
    theirs = peft.PeftModel.from_pretrained(tiny("llama").network, str(tmp_path))
    wanted = outputs(model, toy_trees(model))
    assert difference(peft_outputs(theirs.base_model.model, model), wanted) < CLOSE
    again = LoRA.from_folder(tmp_path).attach(tiny("llama"), 0)
    assert {path: (layer.rank, layer.scale) for path, layer in again.layers.items()} == found


class Spoken(nn.Module):
    """Convolutions of every sort, as bases for sound and pictures have them."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(6, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv1d(8, 8, 3, padding=1, groups=2, bias=False)
        self.two = nn.Conv2d(4, 5, (3, 2), padding=1)
        self.point = nn.Conv2d(5, 3, 1)

    def prepare_inputs_for_generation(self) -> None:
        """PEFT asks a network for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.grouped(self.one(x))
        return self.point(self.two(y.view(len(y), 4, 2, -1)))


def spoken() -> Model:
    torch.manual_seed(0)
    network = Spoken().eval()
    model = tiny("llama")
    return Model(network, model.tokenizer, "decoder", "spoken", "", None, "")


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups:UserWarning")
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_convolutions_are_those_of_peft(dora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ("one", "two", "point") if dora else ("one", "grouped", "two", "point")
    monkeypatch.setattr(
        "tunewright.methods.lora.find", lambda network, targets: {name: network.get_submodule(name) for name in targets}
    )
    monkeypatch.setattr("tunewright.engine.linear.carrying.families", lambda *_: ())
    model = spoken()
    tuning = roughened(model, LoRA(rank=4, alpha=6, dora=dora, targets=names))
    assert tuning.count() == sum(layer.A.numel() + layer.B.numel() + len(layer.B) * dora for layer in tuning.layers.values())
    tuning.save(tmp_path)
    x = torch.randn(3, 6, 8)
    theirs = peft.PeftModel.from_pretrained(spoken().network, str(tmp_path), is_trainable=True).eval()
    found, wanted = model.network(x), theirs.base_model.model(x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    found.pow(2).mean().backward()
    wanted.pow(2).mean().backward()
    others = {name.replace(".default", ""): one.grad for name, one in theirs.named_parameters() if one.requires_grad}
    for name, parameter in tuning.parameters().items():
        other = others["base_model.model." + name + (".weight" if name.endswith("vector") else "")]
        torch.testing.assert_close(parameter.grad, other.view_as(parameter), rtol=1e-4, atol=1e-6)
    again = spoken()
    LoRA.from_folder(tmp_path).attach(again, 0).load(tmp_path)
    assert torch.equal(again.network(x), found)
    if not dora:
        with pytest.raises(ConfigurationError, match="'grouped' is a convolution with groups"):
            tuning.merge()
    else:
        tuning.merge()
        torch.testing.assert_close(model.network(x), wanted, rtol=1e-5, atol=1e-5)


def test_convolutions_that_are_not_served_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "tunewright.methods.lora.find", lambda network, targets: {name: network.get_submodule(name) for name in targets}
    )
    with pytest.raises(
        ConfigurationError, match="'grouped' cannot have this LoRA: a rank of 3 is no multiple of the convolution's 2"
    ):
        LoRA(rank=3, targets=("grouped",)).attach(spoken(), 0)
    model = spoken()
    model.network.one.padding_mode = "circular"
    with pytest.raises(ConfigurationError, match="padded by 'circular' is not served"):
        LoRA(rank=2, targets=("one",)).attach(model, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "piza"}, "there is no start called 'piza'.*pissa"),
        ({"init": "pissa_niter_0"}, "there is no start called"),
        ({"init": "orthogonal", "rank": 3}, "the rank 3 is odd"),
        ({"rank_pattern": {"q_proj": 0}}, "'q_proj' is given 0"),
        ({"alpha_pattern": {"q_proj": -1.0}}, "'q_proj' is given -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LoRA(**settings)


def test_a_rank_that_the_weight_does_not_have_is_refused():
    with pytest.raises(ConfigurationError, match="a rank of 40 is more than the 16 that its weight has, and `pissa` begins"):
        LoRA(rank=40, init="pissa", targets=("k_proj",)).attach(tiny("llama"), 0)
    LoRA(rank=256, targets=("k_proj",)).attach(tiny("llama"), 0)


def test_a_pattern_of_strangers_that_is_no_expression_is_refused(tmp_path: Path):
    roughened(tiny("llama"), LoRA(rank=2)).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "alpha_pattern": {"(": 2}}))
    with pytest.raises(BaseModelError, match="no regular expression"):
        LoRA.from_folder(tmp_path)
