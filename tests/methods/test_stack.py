from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.engine.sampling import sample
from tunewright.engine.settings import Sampling
from tunewright.engine.virtual import entry
from tunewright.methods import room
from tunewright.methods._saved import method_of
from tunewright.methods.lora import LoRA
from tunewright.methods.prefix_tuning import PrefixTuning
from tunewright.methods.prompt_tuning import PromptTuning
from tunewright.methods.stack import Stack
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees, train

SOFT, LOW = PromptTuning(virtual_tokens=4), LoRA(rank=2, targets=("attention.query", "mlp.down"))


def low_count(model: Model) -> int:
    return 2 * sum(sum(module.weight.shape) for module in model.sites(*LOW.targets).values())


class TestSoftPromptAndLoRA(MethodContract):
    method = Stack(parts=(SOFT, LOW))
    families = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5")
    refused = MappingProxyType({"mixtral": "mlp.down"})  # its experts are no layers
    merges = False

    def expected_count(self, model: Model) -> int:
        return 4 * entry(model).weight.shape[1] + low_count(model)


class TestPrefixAndLoRA(MethodContract):
    method = Stack(parts=(LOW, PrefixTuning(virtual_tokens=4)))
    families = ("llama", "gpt2", "bert")
    everywhere = ("t5",)
    refused = MappingProxyType({"t5": "does not stand on encoder-decoders"})
    merges = False

    def expected_count(self, model: Model) -> int:
        return low_count(model) + 4 * 2 * 2 * (16 if model.family == "llama" else 32)


class TestTwoLoRAs(MethodContract):
    method = Stack(parts=(LOW, LoRA(rank=3, targets=("mlp.up",))))
    families = ("llama", "bert")
    everywhere = ()

    def expected_count(self, model: Model) -> int:
        return low_count(model) + 3 * sum(sum(module.weight.shape) for module in model.sites("mlp.up").values())


def test_a_run_file_says_it_and_a_saved_one_says_it_again(tmp_path: Path):
    asked = {"name": "stack", "parts": [{"name": "prompt_tuning", "virtual_tokens": 4}, {"name": "lora", "rank": 2}]}
    method = room.make(asked)
    assert room.make(room.dump(method)) == method
    method.attach(tiny("llama"), 0).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0_prompt_tuning", "1_lora", "tuning.json", "tuning.safetensors"]
    assert method_of(tmp_path) == method
    assert (tmp_path / "1_lora" / "adapter_config.json").is_file()


def test_parts_are_what_they_are_alone():
    trees, model = toy_trees(tiny("llama")), tiny("llama")
    tuning = Stack(parts=(LOW, SOFT)).attach(model, 0)
    train(toy_engine(model, tuning), trees, 2)
    both = outputs(model, trees)
    with tuning.parts[0].disabled(), tuning.parts[1].disabled():
        assert torch.equal(outputs(model, trees), outputs(tiny("llama"), trees))
    with tuning.parts[0].disabled():
        assert difference(outputs(model, trees), both) > 1e-3
    with tuning.parts[1].disabled():
        assert difference(outputs(model, trees), both) > 1e-3
    assert torch.equal(outputs(model, trees), both)


def test_parts_share_one_number_and_others_keep_theirs():
    model = tiny("llama")
    tunings = [LoRA(rank=2).attach(model, 0), Stack(parts=(SOFT, LOW)).attach(model, 0), LoRA(rank=2).attach(model, 0)]
    assert [tuning.slot for tuning in tunings] == [0, 1, 2]
    tunings[1].parts[0].detach()
    assert model.lanes.members == (0, 1, 2)
    tunings[1].detach()
    assert model.lanes.members == (0, 2)


@pytest.mark.parametrize(
    ("parts", "wrong"),
    [
        ([SOFT, PrefixTuning()], "a second soft prompt"),
        ([LOW, LoRA(rank=3, targets=("mlp.down",))], "the parts do not stand together"),
        ([LOW, "full"], "'full' changes the base's own weights"),
        ([SOFT, LoRA(targets=("atention.query",))], "atention.query"),
    ],
    ids=["prompts", "places", "weights", "misspelt"],
)
def test_parts_that_do_not_fit_are_refused_and_leave(parts: list[object], wrong: str):
    model = tiny("llama")
    with pytest.raises(ConfigurationError, match=wrong):
        Stack(parts=parts).attach(model, 0)
    assert model.lanes.members == ()
    assert model.lanes.begins == {}
    assert {type(module) for module in model.network.modules()} == {type(module) for module in tiny("llama").network.modules()}


@pytest.mark.parametrize(
    ("parts", "wrong"),
    [
        (["lora"], "at least 2"),
        ("lora", "is a list of methods"),
        (["lora", {"name": "stack", "parts": ["lora", "ia3"]}], "stack"),
        (["lora", "promt_tuning"], "there is no method 'promt_tuning'"),
    ],
    ids=["one", "no list", "nested", "misspelt"],
)
def test_wrong_settings(parts: object, wrong: str):
    with pytest.raises(ConfigurationError, match=wrong):
        room.make({"name": "stack", "parts": parts})


def test_a_saved_stack_without_a_part_is_refused(tmp_path: Path):
    tuning = Stack(parts=(SOFT, LOW)).attach(tiny("llama"), 0)
    tuning.save(tmp_path)
    (tmp_path / "1_lora").rename(tmp_path / "elsewhere")
    with pytest.raises(BaseModelError, match="lacks its part '1_lora'"):
        tuning.load(tmp_path)


def test_ranks_that_are_left_open_are_settled_and_said():
    method, reasons = Stack(parts=(SOFT, LoRA())).settled(100)
    assert method.parts[1].rank == 8
    assert reasons == {"method.parts.1.rank": "8: 100 training rows"}
    assert method.text_room(100) == 96


@pytest.mark.parametrize(
    "parts", [["prompt_tuning", "loreft"], ["prefix_tuning", "bottleneck_adapter"], ["p_tuning", "adalora"]], ids="-".join
)
def test_parts_of_other_kinds(parts: list[str], tmp_path: Path):
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    tuning = room.make({"name": "stack", "parts": parts}).attach(model, 0)
    tuning.begin(3)
    engine = toy_engine(model, tuning)
    losses = train(engine, trees, 3)
    assert losses[-1] < losses[0]
    prompts, settings = [tree.segments[0].tokens for tree in trees], Sampling(max_new_tokens=6, temperature=0)
    found = [sample(engine, prompts, settings, ends=frozenset(), cache=cache) for cache in (True, False)]
    assert found[0] == found[1]
    tuning.save(tmp_path)
    again = tiny("llama")
    method_of(tmp_path).attach(again, 5).load(tmp_path)
    assert torch.equal(outputs(again, trees), outputs(model, trees))


def test_a_stack_promises_what_all_of_its_parts_do():
    assert Stack(parts=(LOW, LoRA(rank=2))).starts_at_base
    assert not Stack(parts=(LOW, SOFT)).starts_at_base
    assert Stack(parts=(LOW, PrefixTuning())).layouts == ("forest", "padded")
    assert Stack(parts=(SOFT, LOW)).default_learning_rate == LOW.default_learning_rate
    assert Stack(parts=(SOFT, LOW)).rate_under_new_head == LOW.rate_under_new_head < SOFT.rate_under_new_head
    assert Stack(parts=(PrefixTuning(), PrefixTuning())).steep_rate
    assert not Stack(parts=(PrefixTuning(), LOW)).steep_rate
