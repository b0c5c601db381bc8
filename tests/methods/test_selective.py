import pytest

from tunewright.core.configuration import build
from tunewright.core.errors import ConfigurationError
from tunewright.methods._selection import block_indexes, by_kind
from tunewright.methods.lora import LoRA
from tunewright.methods.selective import Selective
from tunewright.models import Model
from tunewright.testing.method_contract import MethodContract
from tunewright.testing.tiny import FAMILIES as EVERY
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
    everywhere = ()

    def expected_count(self, model: Model) -> int:
        return size(model, lambda name: name.endswith("bias"))


class TestChosen(MethodContract):
    """GPT-2's Conv1D and a plain linear layer, by part of a name and by pattern."""

    method = Selective(train=("attn",), freeze="*.bias")
    families = ("qwen2", "gpt2")
    everywhere = ()

    def expected_count(self, model: Model) -> int:
        return size(model, lambda name: "attn" in name and not name.endswith(".bias"))


class TestKinds(MethodContract):
    """Norms everywhere and the MLP of one block."""

    method = Selective(kinds=("norm", "mlp"), blocks="1")
    families = ("llama", "gpt2", "bert", "t5", "mixtral")
    misspelt = (Selective(kinds=("attention", "bias")), Selective(kinds=("norm",), train=("nrom",)))

    def expected_count(self, model: Model) -> int:
        attention = [module for name, module in model.blocks[1].named_modules() if name.split(".")[-1] in ATTENTION]
        norms = [module for module in model.blocks[1].modules() if "norm" in type(module).__name__.lower()]
        inside = {id(p): p.numel() for module in attention for p in module.parameters()}
        beside = {id(p) for module in norms for p in module.parameters()}
        return sum(p.numel() for p in model.blocks[1].parameters()) - sum(size for key, size in inside.items() if key not in beside)


ATTENTION = ("self_attn", "attn", "attention", "SelfAttention")


@pytest.mark.parametrize("family", EVERY)
def test_kinds_cover_every_family(family: str):
    """Every weight is of one kind and only one, biases of theirs and of `bias`; what remains stands outside the blocks."""
    model = tiny(family)
    kinds = by_kind(model)
    whole = [kinds[kind] for kind in ("norm", "embedding", "attention", "mlp", "head")]
    names = {name for name, _ in model.network.named_parameters()}
    assert sum(map(len, whole)) == len(set().union(*whole))
    assert {name for name in names - set().union(*whole) if name in block_indexes(model)} == set()
    assert all(kinds[kind] for kind in ("norm", "embedding", "attention", "mlp"))
    assert kinds["bias"] == {name for name in names if name.endswith("bias")}
    tied = getattr(model.network.config, "tie_word_embeddings", False) or model.kind == "encoder"
    assert bool(kinds["head"]) is not tied or model.kind == "encoder"


@pytest.mark.parametrize(
    ("method", "family", "wanted"),
    [
        (Selective(kinds="attention", blocks=1), "llama", lambda name: "layers.1.self_attn" in name),
        (Selective(kinds=("attention",), bias_only=True), "qwen2", lambda name: "self_attn" in name and name.endswith("bias")),
        (
            Selective(kinds=["head", "norm"], blocks=[0]),
            "llama",
            lambda name: "lm_head" in name or ("layers.0" in name and "norm" in name),
        ),
        (Selective(kinds=("embedding",)), "gpt2", lambda name: "wte" in name or "wpe" in name),
        (Selective(kinds=("norm",), train="lm_head"), "llama", lambda name: "norm" in name or "lm_head" in name),
        (Selective(blocks="0-1", freeze="mlp"), "llama", lambda name: "layers" in name and "mlp" not in name),
        (
            Selective(kinds=("mlp",), freeze_first=1),
            "t5",
            lambda name: "layer_norm" not in name and "DenseReluDense" in name and "encoder.block.0" not in name,
        ),
    ],
)
def test_any_mix_of_kinds_blocks_and_patterns(method: Selective, family: str, wanted):
    model = tiny(family)
    chosen = method.attach(model, 0).parameters()
    assert set(chosen) == {name for name, _ in model.network.named_parameters() if wanted(name)} != set()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ["norm", "atention"]}, r"kinds: there is no kind of weights 'atention'. Did you mean 'attention'\?"),
        ({"kinds": "embeddings"}, r"Did you mean 'embedding'\?"),
        ({"blocks": "0-3,x"}, r"blocks: 'x' is no block and no range of blocks"),
        ({"blocks": "3-1"}, r"'3-1' is no block.*ranges that go up"),
        ({"blocks": "-1"}, r"'-1' is no block"),
        ({"blocks": "0", "last_blocks": 2}, r"`blocks` and `last_blocks` both say which blocks"),
        ({"block": "0"}, r"unknown key 'block'. Did you mean 'blocks'\?"),
    ],
)
def test_what_cannot_be_meant(settings: dict[str, object], message: str):
    with pytest.raises(ConfigurationError, match=message):
        build(Selective, settings)


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
    ("family", "message"), [("gpt2", "shares its weight with the embeddings.*`embedding`"), ("bert", "no weights of")]
)
def test_a_head_that_is_not_there_alone(family: str, message: str):
    with pytest.raises(ConfigurationError, match=message):
        Selective(kinds=("attention", "head")).attach(tiny(family), 0)


def test_what_another_method_put_there_is_none_of_the_base():
    model = tiny("llama")
    other = LoRA(rank=2).attach(model, 0).parameters()
    assert not {id(one) for one in Selective().attach(model, 0).parameters().values()} & {id(one) for one in other.values()}
    assert all(one.requires_grad for one in other.values())


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Selective(last_blocks=3), r"method.last_blocks: asks for 3 blocks and the base has 2. At most 2"),
        (Selective(freeze_first=9), r"method.freeze_first: asks for 9 blocks"),
        (Selective(bias_only=True), r"the selection is empty.*needs a base with biases"),
        (Selective(blocks="1,4-6"), r"method.blocks: names block 4 and the base has 2. They are numbered from 0 to 1"),
        (Selective(kinds=("mlp",), bias_only=True), r"the selection is empty"),
        (Selective(kinds=("bias",)), r"method.kinds: a llama network has no weights of the kind 'bias'.*`kinds: \[norm\]`"),
        (Selective(train=("mpl",)), r"method.train: the pattern 'mpl' matches no weight. Did you mean 'mlp'\?"),
    ],
)
def test_what_cannot_be_selected(method: Selective, message: str):
    with pytest.raises(ConfigurationError, match=message):
        method.attach(tiny("llama"), 0)
