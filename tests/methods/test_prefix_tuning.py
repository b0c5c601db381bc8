from pathlib import Path

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.engine.attention.own import HOLDER
from tunewright.engine.virtual.keys import attentions, recorded
from tunewright.methods import room
from tunewright.methods._soft import first_tokens
from tunewright.methods.prefix_tuning import PrefixTuning
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees, train

WIDTHS = {"llama": 16, "qwen3": 16, "gemma2": 16, "gpt2": 32, "bert": 32}  # key heads * head width
REFUSED = dict.fromkeys(("t5", "bart"), "does not stand on encoder-decoders")


class TestPrefixTuning(MethodContract):
    method = PrefixTuning(virtual_tokens=5)
    families = ("llama", "qwen3", "gemma2", "gpt2", "bert")
    refused = REFUSED
    merges = False

    def expected_count(self, model: Model) -> int:
        return 5 * 2 * 2 * WIDTHS[model.family]


class TestPrefixTuningWithAProjection(MethodContract):
    method = PrefixTuning(virtual_tokens=5, projection=True, hidden=12)
    families = ("llama", "gpt2", "bert")
    everywhere = ()
    merges = False

    def expected_count(self, model: Model) -> int:
        width = WIDTHS[model.family]
        return 5 * width + width * 12 + 12 + 13 * 2 * 2 * width


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_prefix_that_begins_as_text_is_that_text(family: str):
    model, text = tiny(family), "Say yes."
    tokens = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    trees = toy_trees(model)
    base = torch.cat(
        [model.network(torch.tensor([tokens + tree.segments[0].tokens])).logits[0, len(tokens) :].detach() for tree in trees]
    )
    PrefixTuning(virtual_tokens=len(tokens), init="text", text=text).attach(model, 0)
    assert difference(outputs(model, trees), base) < 1e-5


def test_random_keys_have_the_spread_of_real_ones():
    model = tiny("llama")
    real = recorded(model, first_tokens(model, 100, "vocabulary", None, 0))
    drawn = PrefixTuning(virtual_tokens=100, init="random").attach(model, 0).virtual.states().detach()
    assert drawn.shape == real.shape == (100, 4, 2, 8)
    assert torch.allclose(drawn.std(dim=(0, 2, 3)), real.std(dim=(0, 2, 3)), rtol=0.1)


def test_nothing_is_left_on_the_base():
    model = tiny("llama")
    before = model.network.config._attn_implementation
    first, second = (PrefixTuning(virtual_tokens=3).attach(model, seed) for seed in (0, 1))
    first.detach()
    assert all(HOLDER in vars(module) for module in attentions(model))
    second.detach()
    assert not any(HOLDER in vars(module) for module in attentions(model))
    assert (model.network.config._attn_implementation, model.lanes.keyed) == (before, set())


def test_on_a_base_that_carries_another_prefix_the_first_keys_are_the_bases_own():
    model, alone = tiny("llama"), tiny("llama")
    PrefixTuning(virtual_tokens=7).attach(model, 3)
    second = PrefixTuning(virtual_tokens=3).attach(model, 0)
    assert torch.equal(second.baked(), PrefixTuning(virtual_tokens=3).attach(alone, 0).baked())


def test_a_network_whose_attention_is_its_own_is_refused(monkeypatch: pytest.MonkeyPatch):
    model = tiny("llama")
    plain = model.network.model.layers[1].self_attn

    def own(hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        return plain.o_proj(plain.q_proj(hidden_states)), None

    monkeypatch.setattr(plain, "forward", own)
    with pytest.raises(ConfigurationError, match="does not go through transformers' interface") as found:
        PrefixTuning(virtual_tokens=3).attach(model, 0)
    assert "name: peft" in (found.value.hint or "")
    assert not any(HOLDER in vars(module) for module in attentions(model))
    assert model.lanes.members == ()


def test_a_loaded_projection_is_baked(tmp_path: Path):
    model, trees = tiny("gpt2"), toy_trees(tiny("gpt2"))
    tuning = PrefixTuning(virtual_tokens=5, projection=True).attach(model, 0)
    train(toy_engine(model, tuning), trees, 1)
    tuning.save(tmp_path)
    again = tiny("gpt2")
    loaded = PrefixTuning.from_folder(tmp_path).attach(again, 1)
    loaded.load(tmp_path)
    assert loaded.count() == 5 * 2 * 2 * 32
    assert torch.equal(outputs(again, trees), outputs(model, trees))


def test_a_projection_takes_smaller_steps_and_no_text():
    assert PrefixTuning(projection=True).default_learning_rate < PrefixTuning().default_learning_rate
    with pytest.raises(ConfigurationError, match="a projection begins at random"):
        room.make({"name": "prefix_tuning", "projection": True, "init": "text", "text": "Yes."})
