import json
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import peft
import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.engine.int8 import Int8Linear
from tunewright.engine.linear import hand_over
from tunewright.methods._saved import method_of
from tunewright.methods.ia3 import IA3
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_trees

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it by that name

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5", "phi3")


class TestIA3(MethodContract):
    method = IA3()
    families = FAMILIES
    misspelt = (IA3(targets=("atention.key",)), IA3(targets=("attention.key", "v_porj")))
    refused: ClassVar = {"mixtral": "nothing in a mixtral network is called 'mlp.down'"}

    def expected_count(self, model: Model) -> int:
        down = model.sites("mlp.down")
        others = {path: one for path, one in model.sites("attention.key", "attention.value").items() if path not in down}
        return sum(min(_sizes(one)[1:]) for one in down.values()) + sum(_sizes(one)[0] for one in others.values())


def _sizes(layer) -> tuple[int, int]:
    return (layer.nf, layer.nx) if hasattr(layer, "nf") else (layer.out_features, layer.in_features)


def roughened(model: Model, method: IA3):
    tuning = method.attach(model, 0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    return tuning


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")  # PEFT sets what a layer of GPT-2 needs itself
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5", "phi3", "opt"])
def test_logits_and_gradients_are_those_of_peft(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    tuning = roughened(model, IA3())
    tuning.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, str(tmp_path), is_trainable=True)
    ids = torch.arange(10, 30)[None]
    more = {"decoder_input_ids": ids[:, :7]} if model.kind == "encoder_decoder" else {}
    found = []
    for network in (model.network, theirs):
        network.eval()
        found.append(network(input_ids=ids, **more)[0])
        found[-1].pow(2).mean().backward()
    assert difference(found[0], found[1]) < 1e-5
    gradients = {
        name.removeprefix("base_model.model.").replace(".default", ""): one.grad for name, one in theirs.named_parameters()
    }
    assert {name for name, gradient in gradients.items() if gradient is not None} == set(tuning.parameters())
    for name, parameter in tuning.parameters().items():
        assert parameter.grad is not None
        assert difference(parameter.grad, gradients[name].flatten()) < 1e-5, name


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")
@pytest.mark.parametrize(
    ("family", "targets", "feedforward"),
    [
        ("llama", ["k_proj", "v_proj", "down_proj"], ["down_proj"]),
        ("llama", ["q_proj", "up_proj"], ["up_proj"]),
        ("gpt2", ["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
        ("bert", ["key", "value", "output.dense"], ["output.dense"]),
        ("t5", ["k", "v", "wo"], []),
    ],
)
def test_what_peft_made_is_read(family: str, targets: list[str], feedforward: list[str], tmp_path: Path) -> None:
    config = peft.IA3Config(target_modules=targets, feedforward_modules=feedforward, init_ia3_weights=True)
    theirs = peft.get_peft_model(tiny(family).network, config)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))
    wanted = outputs(replace(tiny(family), network=theirs.base_model.model), toy_trees(tiny(family)))
    theirs.save_pretrained(str(tmp_path))
    method, model = method_of(tmp_path), tiny(family)
    assert isinstance(method, IA3)
    method.attach(model, 0).load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), wanted) < 1e-5


def test_an_option_of_peft_that_is_not_computed_is_refused(tmp_path: Path) -> None:
    IA3().attach(tiny("llama"), 0).save(tmp_path)
    facts = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    (tmp_path / "adapter_config.json").write_text(json.dumps({**facts, "modules_to_save": ["lm_head"]}), encoding="utf-8")
    with pytest.raises(BaseModelError, match="modules_to_save, which is not supported"):
        IA3.from_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**facts, "peft_type": "LORA"}), encoding="utf-8")
    with pytest.raises(BaseModelError, match="of type LORA"):
        IA3.from_folder(tmp_path)


def test_factors_of_another_base_are_refused(tmp_path: Path) -> None:
    IA3(targets="mlp.down").attach(tiny("llama"), 0).save(tmp_path)
    with pytest.raises(BaseModelError, match="do not have the same places"):
        IA3().attach(tiny("llama"), 0).load(tmp_path)
    with pytest.raises(BaseModelError, match=r"is \(1, 64\) in the adapter and \(32,\) here"):
        IA3(targets="mlp.down", feedforward=()).attach(tiny("llama"), 0).load(tmp_path)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (IA3(targets="norm"), "factors stand on linear layers only"),
        (IA3(targets="attention.key", feedforward="mlp.down"), "is no target"),
        (IA3(feedforward="mlp.dwon"), "called 'mlp.dwon'"),
    ],
)
def test_wrong_places_are_refused(method: IA3, words: str) -> None:
    model = tiny("llama")
    with pytest.raises(ConfigurationError, match=words):
        method.attach(model, 0)
    assert model.lanes.members == ()


def test_a_weight_that_cannot_be_scaled_is_not_merged_into() -> None:
    model = tiny("llama")
    tuning = roughened(model, IA3())
    layer = model.network.get_submodule("model.layers.0.mlp.down_proj")
    before = outputs(model, toy_trees(model))
    held = Int8Linear(layer)
    hand_over(layer, held)
    model.network.get_submodule("model.layers.0.mlp").down_proj = held
    assert difference(outputs(model, toy_trees(model)), before) < 0.1  # the factors went over to the new layer
    with tuning.disabled():
        assert difference(outputs(model, toy_trees(model)), before) > 0.1
    with pytest.raises(ConfigurationError, match="does not hold its weight as numbers that can be scaled"):
        tuning.merge()


def test_a_weight_that_others_read_is_not_merged_into() -> None:
    model = tiny("gemma2")
    tuning = IA3(targets=("head",)).attach(model, 0)
    with pytest.raises(ConfigurationError, match="read by another part of the network"):
        tuning.merge()
