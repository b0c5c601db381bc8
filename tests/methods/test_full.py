import pytest
import torch

from tunewright.methods.full import Full
from tunewright.models import Model
from tunewright.models.loading import load_folder
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import FAMILIES, tiny
from tunewright.testing.toy import outputs, toy_engine, toy_trees, train


class TestFull(MethodContract):
    method = Full()
    families = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5")

    def expected_count(self, model: Model) -> int:
        return sum(parameter.numel() for parameter in model.network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_from_its_folder(family: str, tmp_path):
    """Also where files call a weight otherwise (Mixtral's experts) or hold a shared one once (GPT-2, Gemma, BART)."""
    model = tiny(family)
    tuning = Full().attach(model, 0)
    train(toy_engine(model, tuning), toy_trees(model), 2)
    tuning.save(tmp_path)
    wanted = outputs(model, toy_trees(model))
    again = tiny(family, seed=3)
    Full().attach(again, 0).load(tmp_path)
    assert torch.equal(outputs(again, toy_trees(model)), wanted)
    assert torch.equal(outputs(load_folder(tmp_path), toy_trees(model)), wanted)


def test_a_saved_model_remembers_nothing_of_the_engine(tmp_path):
    model = tiny("llama")
    tuning = Full().attach(model, 0)
    toy_engine(model, tuning)
    tuning.save(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert "tunewright" not in text
    assert model.network.config._attn_implementation == "tunewright_forest"
