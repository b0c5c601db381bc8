import pytest

from tunewright.core.errors import ConfigurationError
from tunewright.methods.selective import Selective
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_trees, train

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "bert", "t5")


def size(model: Model, wanted) -> int:
    return sum(parameter.numel() for name, parameter in model.network.named_parameters() if wanted(name))


class TestLastBlocks(MethodContract):
    method = Selective(last_blocks=1)
    families = FAMILIES
    misspelt = (Selective(train=("q_porj",)), Selective(freeze=("mlp", "self_atn")), Selective(train=("*.weight", "layer.*")))

    def expected_count(self, model: Model) -> int:
        inside = {id(parameter) for block in model.blocks for parameter in block.parameters()}
        tables = {id(model.network.get_input_embeddings().weight)}
        last = sum(parameter.numel() for parameter in model.blocks[-1].parameters())
        rest = [p for name, p in model.network.named_parameters() if id(p) not in inside | tables and "wpe" not in name]
        return last + sum(p.numel() for p in rest if model.kind != "encoder")


class TestBiasOnly(MethodContract):
    method = Selective(bias_only=True)
    families = ("gpt2", "bert", "opt")

    def expected_count(self, model: Model) -> int:
        return size(model, lambda name: name.endswith("bias"))


class TestChosen(MethodContract):
    """GPT-2's Conv1D and a plain linear layer, by part of a name and by pattern."""

    method = Selective(train=("attn",), freeze="*.bias")
    families = ("qwen2", "gpt2")

    def expected_count(self, model: Model) -> int:
        return size(model, lambda name: "attn" in name and not name.endswith(".bias"))


@pytest.mark.parametrize("family", FAMILIES)
def test_freezing_the_embeddings_and_first_block(family: str):
    model = tiny(family)
    tuning = Selective(freeze_first=1).attach(model, 0)
    first = {id(parameter) for parameter in model.blocks[0].parameters()}
    chosen = {id(parameter) for parameter in tuning.parameters().values()}
    assert not chosen & first
    assert id(model.network.get_input_embeddings().weight) not in chosen
    assert chosen >= {id(parameter) for parameter in model.blocks[-1].parameters()}
    train(toy_engine(model, tuning), toy_trees(model), 1)
    assert all(parameter.grad is None for block in model.blocks[:1] for parameter in block.parameters())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Selective(last_blocks=3), r"method.last_blocks: asks for 3 blocks and the base has 2. At most 2"),
        (Selective(freeze_first=9), r"method.freeze_first: asks for 9 blocks"),
        (Selective(bias_only=True), r"the selection is empty.*needs a base with biases"),
        (Selective(train=("mpl",)), r"method.train: the pattern 'mpl' matches no weight. Did you mean 'mlp'\?"),
    ],
)
def test_what_cannot_be_selected(method: Selective, message: str):
    with pytest.raises(ConfigurationError, match=message):
        method.attach(tiny("llama"), 0)
