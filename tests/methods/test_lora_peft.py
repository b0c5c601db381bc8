"""Parity with PEFT: the same logits and gradients, and adapters that go both ways."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.errors import BaseModelError
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.tiny import FAMILIES, tiny
from tunewright.testing.toy import difference, outputs, toy_trees

CLOSE = 2e-6
# PEFT asks transformers by an old name, and says more than it must about embeddings and Mixtral's experts.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to .True.:UserWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]


def roughened(model: Model, method: LoRA, seed: int = 1):
    """The method on the model, with B away from zero."""
    tuning = method.attach(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuning


def peft_outputs(network, model: Model) -> torch.Tensor:
    """What a network that PEFT holds gives for the toy trees."""
    return outputs(Model(network, model.tokenizer, model.kind, model.family, "", None, ""), toy_trees(model))


def made_by_peft(family: str, folder: Path, **settings) -> torch.Tensor:
    """An adapter that PEFT makes and writes; its outputs."""
    model = tiny(family)
    config = peft.LoraConfig(**{"r": 4, "fan_in_fan_out": family == "gpt2", **settings})
    network = peft.get_peft_model(model.network, config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    network.save_pretrained(folder)
    return peft_outputs(network.base_model.model, model)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_made_here_loads_in_peft(family: str, tmp_path: Path):
    model = tiny(family)
    tuning = roughened(model, LoRA(rank=3, alpha=5))
    tuning.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path))
    wanted = outputs(model, toy_trees(model))
    assert difference(peft_outputs(theirs.base_model.model, model), wanted) < CLOSE
    assert difference(outputs(tiny(family), toy_trees(model)), wanted) > 1e-2


def test_fused_experts_of_peft_are_refused(tmp_path: Path):
    made_by_peft("mixtral", tmp_path, target_modules="all-linear")
    with pytest.raises(BaseModelError, match="uses target_parameters, which is not supported"):
        LoRA.from_folder(tmp_path)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "mixtral"])
def test_an_adapter_made_by_peft_loads_here(family: str, tmp_path: Path):
    wanted = made_by_peft(family, tmp_path, target_modules="all-linear")
    model = tiny(family)
    method = LoRA.from_folder(tmp_path)
    method.attach(model, 0).load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), wanted) < CLOSE


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"target_modules": r".*\.1\..*(q|gate)_proj"}),
        ("llama", {"target_modules": ["q_proj", "query", "not_there"]}),
        ("llama", {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1]}),
        ("llama", {"target_modules": ["q_proj", "lm_head"]}),
        ("llama", {"target_modules": ["v_proj"], "use_rslora": True, "lora_alpha": 7, "init_lora_weights": "gaussian"}),
        ("gpt2", {"target_modules": ["c_attn", "c_proj"], "lora_dropout": 0.2}),
        ("bert", {"target_modules": ["query", "dense"]}),
        ("t5", {"target_modules": ["q", "wo"], "use_rslora": True}),
    ],
)
def test_places_and_scales_of_peft(family: str, settings: dict, tmp_path: Path):
    wanted = made_by_peft(family, tmp_path, **settings)
    model = tiny(family)
    method = LoRA.from_folder(tmp_path)
    method.attach(model, 0).load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), wanted) < CLOSE
    assert method.dropout == settings.get("lora_dropout", 0)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
@pytest.mark.parametrize("stabilized", [False, True])
def test_logits_and_gradients_are_those_of_peft(family: str, stabilized: bool, tmp_path: Path):
    model = tiny(family)
    tuning = roughened(model, LoRA(rank=4, alpha=6, rank_stabilized=stabilized))
    tuning.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path), is_trainable=True)
    ids = torch.arange(10, 30)[None]
    more = {"decoder_input_ids": ids[:, :7]} if model.kind == "encoder_decoder" else {}
    for network in (model.network, theirs):
        network.eval()
        network(input_ids=ids, **more)[0].pow(2).mean().backward()
    gradients = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert set(gradients) == set(tuning.parameters())
    for name, parameter in tuning.parameters().items():
        assert difference(parameter.grad, gradients[name]) < 1e-5, name


def test_the_start_is_drawn_as_peft_draws_it():
    tuning = LoRA(rank=64).attach(tiny("llama"), 0)
    network = peft.get_peft_model(tiny("llama").network, peft.LoraConfig(r=64, target_modules="all-linear"))
    theirs = {name.removeprefix("base_model.model."): one for name, one in network.named_parameters() if "lora_A" in name}
    for name, ours in tuning.parameters().items():
        if "lora_A" in name:
            other = theirs[name.replace("lora_A.", "lora_A.default.")]
            assert float(ours.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.05)
            assert float(ours.detach().abs().max()) == pytest.approx(float(other.detach().abs().max()), rel=0.02)
        else:
            assert not ours.any()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [5, 6]}, "trainable_token_indices"),
        ({"target_parameters": ["weight"]}, "target_parameters"),
        ({"init_lora_weights": "pissa_niter_4"}, r"init_lora_weights \(pissa_niter_4\)"),
        ({"init_lora_weights": "corda"}, r"init_lora_weights \(corda\)"),
        ({"an_option_of_tomorrow": 3}, "an_option_of_tomorrow"),
    ],
)
def test_options_that_are_not_computed_are_refused_by_name(settings: dict, named: str, tmp_path: Path):
    made_by_peft("llama", tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(BaseModelError, match=f"uses {named}, which is not supported.*Merge it with PEFT first"):
        LoRA.from_folder(tmp_path)


def test_copies_of_the_base_in_an_adapter_must_be_those_of_the_base(tmp_path: Path):
    """PEFT puts the head's own weight beside its adapter when the head is a target."""
    made_by_peft("llama", tmp_path, target_modules=["lm_head"])
    names = load_file(tmp_path / "adapter_model.safetensors")
    assert any("lora_" not in name for name in names)
    LoRA.from_folder(tmp_path).attach(tiny("llama"), 0).load(tmp_path)
    with pytest.raises(BaseModelError, match=r"the adapter brings a 'lm_head.weight' of its own"):
        LoRA.from_folder(tmp_path).attach(tiny("llama", seed=1), 0).load(tmp_path)


def test_other_kinds_of_adapters_are_refused(tmp_path: Path):
    peft.get_peft_model(tiny("llama").network, peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])).save_pretrained(
        tmp_path
    )
    with pytest.raises(BaseModelError, match=r"the adapter is of type IA3. Allowed: LORA"):
        LoRA.from_folder(tmp_path)


def test_tensors_of_something_else_are_refused(tmp_path: Path):
    made_by_peft("llama", tmp_path, target_modules=["q_proj"])
    path = tmp_path / "adapter_model.safetensors"
    stored = load_file(path)
    save_file({**stored, "base_model.model.x.lora_ga.weight": torch.zeros(2)}, path)
    with pytest.raises(BaseModelError, match=r"x.lora_ga.weight' is none of a LoRA on linear layers, embeddings or convolutions"):
        LoRA.from_folder(tmp_path)


@pytest.mark.parametrize(("targets", "kind"), [(("mlp",), "LlamaMLP"), (("norm", "linear"), "LlamaRMSNorm")])
def test_targets_that_carry_nothing_are_refused(targets: tuple[str, ...], kind: str):
    with pytest.raises(ValueError, match=f"is a {kind}, and a LoRA stands on linear layers, embeddings and convolutions only"):
        LoRA(targets=targets).attach(tiny("llama"), 0)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_embedding_that_nothing_calls_is_refused(family: str):
    with pytest.raises(ValueError, match=r"nothing is looked up there.*encoder.embed_tokens"):
        LoRA(targets=("embedding",)).attach(tiny(family), 0)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path):
    roughened(tiny("llama"), LoRA(rank=2)).save(tmp_path)
    with pytest.raises(BaseModelError, match="do not have the same places"):
        LoRA(rank=2).attach(tiny("gpt2"), 0).load(tmp_path)
    with pytest.raises(BaseModelError, match=r"is \(2, 32\) in the adapter and \(3, 32\) here"):
        LoRA(rank=3).attach(tiny("llama"), 0).load(tmp_path)
