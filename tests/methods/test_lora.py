import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.engine.int8 import Int8Linear
from tunewright.engine.linear import hand_over
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_trees

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5")


def outputs_and_inputs(model: Model, *targets: str) -> int:
    return sum(sum(module.weight.shape) for module in model.sites(*targets).values())


class TestLoRA(MethodContract):
    method = LoRA(rank=4)
    families = FAMILIES
    misspelt = (LoRA(targets=("atention.query",)), LoRA(targets=("linear", "q_porj")))

    def expected_count(self, model: Model) -> int:
        return 4 * outputs_and_inputs(model, "linear")


def test_a_second_tuning_joins_where_the_first_stands_and_freezes_none_of_it():
    model = tiny("llama")
    first, second = LoRA(rank=2).attach(model, 0), LoRA(rank=3, targets=("q_proj", "mlp.up", "head")).attach(model, 1)
    assert (first.slot, second.slot) == (0, 1)
    assert {id(one) for one in model.network.parameters() if one.requires_grad} == {
        id(one) for tuning in (first, second) for one in tuning.parameters().values()
    }
    first.detach()
    first.detach()  # it has left already
    assert LoRA(rank=2).attach(model, 0).slot == 0
    assert len(model.sites("linear")) == 14


def test_merging_one_tuning_leaves_the_other_standing():
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    tunings = [LoRA(rank=2).attach(model, seed) for seed in (0, 1)]
    for tuning in tunings:
        with torch.no_grad():
            for parameter in tuning.parameters().values():
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    with tunings[1].disabled():
        wanted = outputs(model, trees)
    tunings[0].merge()
    with tunings[1].disabled():
        assert difference(outputs(model, trees), wanted) < 1e-5
    assert difference(outputs(model, trees), wanted) > 1e-2
    assert model.lanes.members == (1,)


def test_a_base_in_bytes_is_not_merged_into():
    model = tiny("llama")
    tuning = LoRA(rank=2).attach(model, 0)
    layer = model.network.get_submodule("model.layers.0.mlp.up_proj")
    held = Int8Linear(layer)
    hand_over(layer, held)
    model.network.get_submodule("model.layers.0.mlp").up_proj = held
    before = model.network.get_submodule("model.layers.0.mlp.down_proj").weight.clone()
    with pytest.raises(ConfigurationError, match=r"'model.layers.0.mlp.up_proj' does not hold its weight as numbers"):
        tuning.merge()
    assert torch.equal(model.network.get_submodule("model.layers.0.mlp.down_proj").weight, before)
