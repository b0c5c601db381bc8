"""BitFit on bases that have biases, and what it says to those that have none."""

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.methods._saved import method_of
from tunewright.methods.bitfit import BitFit
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import outputs, toy_engine, toy_trees, train

WITHOUT_BIASES = (*("llama", "qwen3", "mistral", "mixtral", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "modernbert", "t5"),)


def size(model: Model, wanted) -> int:
    return sum(parameter.numel() for name, parameter in model.network.named_parameters() if wanted(name))


class TestBitFit(MethodContract):
    method = BitFit()
    families = ("gpt2", "bert", "opt", "qwen2", "bart")
    refused = dict.fromkeys(WITHOUT_BIASES, "has no biases to train")

    def expected_count(self, model: Model) -> int:
        return size(model, lambda name: name.endswith("bias"))


class TestSmallerHalf(MethodContract):
    """bq and bm2 of the paper, and no norm."""

    method = BitFit(biases="query_up", norms="none")
    families = ("bert", "phi")
    everywhere = ()

    def expected_count(self, model: Model) -> int:
        return len(model.blocks) * (model.width + 2 * model.width)


class TestWithNorms(MethodContract):
    method = BitFit(norms="both")
    families = ("bert", "gpt_neox")
    everywhere = ()

    def expected_count(self, model: Model) -> int:
        return size(model, lambda name: name.endswith("bias") or "norm" in name.lower())


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5", "modernbert"])
def test_a_base_without_biases_is_told_what_to_use(family: str) -> None:
    with pytest.raises(ConfigurationError, match=r"has no biases to train.*name: selective, kinds: \[norm\]"):
        BitFit(norms="both").attach(tiny(family), 0)


def test_a_fused_query_has_no_bias_of_its_own() -> None:
    with pytest.raises(ConfigurationError, match=r"method.biases: '.*c_attn' computes query, key and value in one"):
        BitFit(biases="query_up").attach(tiny("gpt2"), 0)


def test_its_file_holds_the_biases_alone_and_says_what_they_are(tmp_path) -> None:
    model = tiny("bert")
    tuning = BitFit(norms="none").attach(model, 0)
    train(toy_engine(model, tuning), toy_trees(model), 2)
    tuning.save(tmp_path)
    assert method_of(tmp_path) == BitFit(norms="none")
    assert (tmp_path / "tuning.safetensors").stat().st_size < 4 * tuning.count() + 8192
    with pytest.raises(BaseModelError, match="do not have the same places"):
        BitFit().attach(tiny("bert"), 0).load(tmp_path)


def test_it_leaves_the_base_as_it_was() -> None:
    model, trees = tiny("bert"), toy_trees(tiny("bert"))
    base = outputs(model, trees)
    tuning = BitFit().attach(model, 0)
    train(toy_engine(model, tuning), trees, 2)
    assert not torch.equal(outputs(model, trees), base)
    tuning.detach()
    tuning.detach()
    assert torch.equal(outputs(model, trees), base)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
