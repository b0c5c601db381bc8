from pathlib import Path

import pytest
import torch

from tunewright.core.errors import ConfigurationError
from tunewright.engine.virtual import entry
from tunewright.engine.virtual.modules import Vectors
from tunewright.methods import room
from tunewright.methods.p_tuning import PTuning
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import outputs, toy_engine, toy_trees, train


class TestPTuning(MethodContract):
    method = PTuning(virtual_tokens=5, hidden=12)
    families = ("llama", "gpt2", "bert", "t5")
    merges = False

    def expected_count(self, model: Model) -> int:
        width, hidden = entry(model).weight.shape[1], 12
        return 5 * width + hidden * (2 * width + hidden + 2) + width


class TestPTuningThroughAnLSTM(MethodContract):
    method = PTuning(virtual_tokens=5, hidden=6, encoder="lstm", layers=2)
    families = ("qwen3", "gemma2")
    everywhere = ()
    merges = False

    def expected_count(self, model: Model) -> int:
        width, hidden = entry(model).weight.shape[1], 6
        recurrent = sum(2 * 4 * hidden * (inputs + hidden + 2) for inputs in (width, 2 * hidden))
        return 5 * width + recurrent + 2 * hidden * (2 * hidden + 1) + width * (2 * hidden + 1)


def test_a_loaded_tuning_is_baked_and_trains_its_vectors(tmp_path: Path):
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    tuning = PTuning(virtual_tokens=5, hidden=12).attach(model, 0)
    train(toy_engine(model, tuning), trees, 2)
    tuning.save(tmp_path)
    again = tiny("llama")
    loaded = PTuning.from_folder(tmp_path).attach(again, 1)
    assert loaded.count() > 5 * 32
    loaded.load(tmp_path)
    assert isinstance(loaded.virtual, Vectors)
    assert loaded.count() == 5 * 32
    assert torch.equal(outputs(again, trees), outputs(model, trees))
    before = loaded.baked().clone()
    train(toy_engine(again, loaded), trees, 1)
    assert not torch.equal(loaded.baked(), before)
    loaded.detach()
    assert again.lanes.members == ()


def test_dropout_is_drawn_in_training_only():
    model = tiny("llama")
    tuning = PTuning(virtual_tokens=5, hidden=6, encoder="lstm", dropout=0.5).attach(model, 0)
    model.network.train()
    torch.manual_seed(0)
    assert not torch.equal(tuning.virtual.vectors(), tuning.virtual.vectors())
    assert torch.equal(tuning.baked(), tuning.baked())
    assert tuning.virtual.training


def test_the_encoder_is_named():
    with pytest.raises(ConfigurationError, match="'mlp' or 'lstm'"):
        room.make({"name": "p_tuning", "encoder": "gru"})
