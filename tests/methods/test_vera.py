"""VeRA: the contract, parity with PEFT in logits, gradients and files, and the projection that is drawn again."""

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.errors import BaseModelError, ConfigurationError, RequestError
from tunewright.methods import Tuning
from tunewright.methods._saved import method_of
from tunewright.methods._vera import Projection
from tunewright.methods.vera import VeRA
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_trees

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning", "ignore:Specified to not")
CLOSE = 1e-5
FAMILIES = ("llama", "gpt2", "bert", "t5")


class TestVeRA(MethodContract):
    method = VeRA(rank=12)
    families = ("llama", "qwen3", "gpt2", "bert", "t5")
    misspelt = (VeRA(targets=("atention.query",)), VeRA(targets=("linear", "q_porj")))

    def expected_count(self, model: Model) -> int:
        layers = model.sites("linear").values()
        return sum(12 + (layer.nf if hasattr(layer, "nf") else layer.out_features) for layer in layers)


def roughened(model: Model, method: VeRA) -> Tuning:
    """`method` on `model`, with values that change something."""
    tuning = method.attach(model, 0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return tuning


def peft_on(model: Model, folder: Path, **settings: object) -> torch.nn.Module:
    """What PEFT reads from `folder`, on a base like `model`."""
    return peft.PeftModel.from_pretrained(tiny(model.family).network, str(folder), **settings)


def of_peft(network: torch.nn.Module, model: Model) -> torch.Tensor:
    held = Model(network.base_model.model, model.tokenizer, model.kind, model.family, "", None, "")
    return outputs(held, toy_trees(model))


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_peft(family: str, saved: bool, tmp_path: Path):
    model = tiny(family)
    tuning = roughened(model, VeRA(rank=7, projection_seed=5, save_projection=saved))
    tuning.save(tmp_path)
    theirs = peft_on(model, tmp_path, is_trainable=True)
    assert difference(of_peft(theirs, model), outputs(model, toy_trees(model))) < CLOSE
    ids = torch.arange(10, 30)[None]
    more = {"decoder_input_ids": ids[:, :7]} if model.kind == "encoder_decoder" else {}
    for network in (model.network, theirs):
        network.eval()
        network(input_ids=ids, **more)[0].pow(2).mean().backward()
    found = {
        name.removeprefix("base_model.model.").replace(".default", ""): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    assert set(found) == set(tuning.parameters())
    for name, parameter in tuning.parameters().items():
        assert difference(parameter.grad, found[name]) < CLOSE, name


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"target_modules": "all-linear"}),
        ("llama", {"target_modules": ["q_proj", "not_there", "down_proj"], "save_projection": False}),
        ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, "projection_prng_key": 3}),
        ("bert", {"target_modules": r".*\.1\..*query", "vera_dropout": 0.3}),
        ("t5", {"target_modules": ["q", "wo"], "d_initial": 0.4}),
    ],
)
def test_an_adapter_made_by_peft_loads_here(family: str, settings: dict, tmp_path: Path):
    model = tiny(family)
    theirs = peft.get_peft_model(tiny(family).network, peft.VeraConfig(r=6, **settings))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "vera_lambda" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    theirs.save_pretrained(tmp_path)
    method = method_of(tmp_path)
    assert isinstance(method, VeRA)
    assert method.dropout == settings.get("vera_dropout", 0)
    assert method.initial == settings.get("d_initial", 0.1)
    method.attach(model, 0).load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), of_peft(theirs, model)) < CLOSE


def test_the_projection_is_the_one_that_peft_draws():
    theirs = peft.get_peft_model(tiny("llama").network, peft.VeraConfig(r=6, target_modules="all-linear", projection_prng_key=9))
    ours = next(iter(VeRA(rank=6, projection_seed=9).attach(tiny("llama"), 0).layers.values())).projection
    assert torch.equal(ours.A_RI, theirs.base_model.vera_A["default"])
    assert torch.equal(ours.B_OR, theirs.base_model.vera_B["default"])


def test_layers_and_tunings_share_one_projection():
    model = tiny("llama")
    first, second = VeRA(rank=4).attach(model, 0), VeRA(rank=4).attach(model, 1)
    other = VeRA(rank=4, projection_seed=1).attach(model, 2)
    held = [{id(layer.projection) for layer in tuning.layers.values()} for tuning in (first, second, other)]
    assert held[0] == held[1] != held[2]
    assert [len(ids) for ids in held] == [1, 1, 1]
    assert Projection.drawn(0, 4, 8, 8) is not Projection.drawn(0, 4, 8, 9)


def test_a_projection_that_was_not_saved_is_compared(tmp_path: Path):
    roughened(tiny("llama"), VeRA(rank=4, save_projection=False)).save(tmp_path)
    assert not any("vera_A" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    fitting, other = VeRA(rank=4), VeRA(rank=4, projection_seed=2)
    fitting.attach(tiny("llama"), 0).load(tmp_path)
    with pytest.raises(BaseModelError, match="drawing them again on this machine gives others"):
        other.attach(tiny("llama"), 0).load(tmp_path)


def test_a_saved_projection_takes_the_place_of_the_drawn_one(tmp_path: Path):
    model = tiny("llama")
    roughened(model, VeRA(rank=4, projection_seed=2)).save(tmp_path)
    again = tiny("llama")
    tuning = VeRA(rank=4).attach(again, 0)
    tuning.load(tmp_path)
    assert torch.equal(outputs(again, toy_trees(again)), outputs(model, toy_trees(model)))
    fresh = VeRA(rank=4).attach(tiny("llama"), 0)  # and nobody else's
    assert not torch.equal(next(iter(fresh.layers.values())).projection.A_RI, next(iter(tuning.layers.values())).projection.A_RI)


def test_a_projection_of_another_width_is_refused(tmp_path: Path):
    roughened(tiny("llama"), VeRA(rank=4)).save(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "base_model.vera_A": tensors["base_model.vera_A"][:, :-1].contiguous()}, path)
    with pytest.raises(BaseModelError, match=r"its random matrices are .*\(4, 63\).* are needed here"):
        VeRA(rank=4).attach(tiny("llama"), 0).load(tmp_path)


@pytest.mark.parametrize("settings", [{"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"an_option_of_tomorrow": 3}])
def test_options_that_are_not_computed_are_refused_by_name(settings: dict, tmp_path: Path):
    roughened(tiny("llama"), VeRA(rank=4)).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(BaseModelError, match=f"uses {next(iter(settings))}, which is not supported"):
        method_of(tmp_path)


def test_only_linear_layers_are_targets():
    with pytest.raises(ConfigurationError, match="is a LlamaRMSNorm, and a VeRA stands on linear layers only"):
        VeRA(targets=("norm",)).attach(tiny("llama"), 0)


def test_it_leaves_as_it_came():
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    base = outputs(model, trees)
    tuning = roughened(model, VeRA(rank=4))
    assert difference(outputs(model, trees), base) > 1e-3
    tuning.detach()
    tuning.detach()
    assert torch.equal(outputs(model, trees), base)


@pytest.mark.parametrize(("key", "value"), [("r", "many"), ("d_initial", -1)])
def test_damaged_settings_are_refused(key: str, value: object, tmp_path: Path):
    roughened(tiny("llama"), VeRA(rank=2)).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(RequestError):
        method_of(tmp_path)
