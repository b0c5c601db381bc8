import json
from pathlib import Path

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.engine.virtual import entry
from tunewright.engine.virtual.entrance import embedded
from tunewright.methods import room
from tunewright.methods._saved import method_of
from tunewright.methods.lora import LoRA
from tunewright.methods.prompt_tuning import PromptTuning
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_trees


class TestPromptTuning(MethodContract):
    method = PromptTuning(virtual_tokens=5)
    families = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5")
    merges = False

    def expected_count(self, model: Model) -> int:
        return 5 * entry(model).weight.shape[1]


def test_a_soft_prompt_that_begins_as_text_is_that_text():
    model, text = tiny("gemma2"), "Say yes."
    tokens = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    trees = toy_trees(model)
    base = torch.cat(
        [model.network(torch.tensor([tokens + tree.segments[0].tokens])).logits[0, len(tokens) :].detach() for tree in trees]
    )
    PromptTuning(virtual_tokens=len(tokens), init="text", text=text).attach(model, 0)
    assert difference(outputs(model, trees), base) < 1e-5


def test_starts():
    model = tiny("llama")
    table = entry(model).weight.detach()
    words = PromptTuning(virtual_tokens=30, init="vocabulary").attach(model, 3).virtual.vectors().detach()
    rows = [int((table == word).all(1).nonzero()[0, 0]) for word in words]
    assert len(set(rows)) == 30
    assert min(rows) >= 5  # no special token
    assert max(rows) < 261  # no row without a token
    other = PromptTuning(virtual_tokens=30, init="vocabulary").attach(tiny("llama"), 4).virtual.vectors()
    assert not torch.equal(words, other)
    drawn = PromptTuning(virtual_tokens=200, init="random").attach(tiny("llama"), 0).virtual.vectors().detach()
    assert abs(float(drawn.std() / table.std()) - 1) < 0.1
    text = PromptTuning(virtual_tokens=5, init="text", text="ab").attach(tiny("llama"), 0).virtual.vectors()
    assert torch.equal(text, embedded(tiny("llama"), tuple(tiny("llama").tokenizer("ababa")["input_ids"])))


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigurationError, match="there is no text"):
        room.make({"name": "prompt_tuning", "init": "text"})
    with pytest.raises(ConfigurationError, match="the text would not be used"):
        room.make({"name": "prompt_tuning", "text": "Say yes."})
    with pytest.raises(ConfigurationError, match="less than or equal to 200"):
        room.make({"name": "prompt_tuning", "virtual_tokens": 201})


def test_room_for_texts():
    assert PromptTuning(virtual_tokens=5).text_room(512) == 507
    assert PromptTuning(virtual_tokens=5).text_room(None) is None
    model = tiny("llama")
    model.network.config.max_position_embeddings = 5
    with pytest.raises(ConfigurationError, match="5 virtual tokens leave no room"):
        PromptTuning(virtual_tokens=5).attach(model, 0)
    assert model.lanes.members == ()


def test_adapters_of_other_shapes_and_kinds_are_refused(tmp_path: Path):
    PromptTuning(virtual_tokens=4).attach(tiny("llama"), 0).save(tmp_path)
    other = PromptTuning(virtual_tokens=5).attach(tiny("llama"), 0)
    with pytest.raises(BaseModelError, match=r"its virtual tokens are \(4, 32\), those of this base and method \(5, 32\)"):
        other.load(tmp_path)
    facts = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**facts, "num_transformer_submodules": 2}))
    with pytest.raises(BaseModelError, match="in front of the decoder's side too"):
        method_of(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({**facts, "novelty": True}))
    with pytest.raises(BaseModelError, match="uses novelty"):
        method_of(tmp_path)


def test_a_saved_folder_names_base_and_start(tmp_path: Path):
    model = tiny("llama")
    PromptTuning(virtual_tokens=3, init="text", text="yes").attach(model, 0).save(tmp_path)
    facts = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (facts["prompt_tuning_init"], facts["prompt_tuning_init_text"]) == ("TEXT", "yes")
    assert method_of(tmp_path) == PromptTuning(virtual_tokens=3, init="text", text="yes")


def test_beside_a_lora_on_the_same_base():
    model = tiny("llama")
    lora = LoRA(rank=2).attach(model, 0)
    soft = PromptTuning(virtual_tokens=3).attach(model, 0)
    assert (lora.slot, soft.slot) == (0, 1)
    assert model.lanes.begins == {1: (-4097, -4098, -4099)}
    soft.detach()
    assert model.lanes.begins == {}
    assert PromptTuning(virtual_tokens=3).attach(model, 0).slot == 1
