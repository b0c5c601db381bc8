"""The wrapper around PEFT: the contract, every type that it serves, PEFT's files, and what it refuses."""

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import peft as library
import pytest
import torch

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.engine.int8 import quantise
from tunewright.engine.probe import probe
from tunewright.methods import room
from tunewright.methods._saved import method_of
from tunewright.methods.lora import LoRA
from tunewright.methods.peft import SERVED, Peft
from tunewright.models import Model
from tunewright.testing.method_contract import MERGED, MethodContract
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_loss, toy_trees, train

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
CLOSE = 1e-5
LOHA = Peft(type="LOHA", settings={"r": 3, "alpha": 6})
# As small as layers of width 16 to 64 need it; where nothing stands, PEFT's own settings serve.
SETTINGS: dict[str, dict[str, Any]] = {
    "ADAMSS": {"r": 8, "num_subspaces": 2, "subspace_rank": 2},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 4},
    "FOURIERFT": {"n_frequency": 20},
    "MISS": {"r": 4, "mini_r": 1},
    "OFT": {"oft_block_size": 4},
    "OSF": {"effective_rank": 4},
    "PSOFT": {"r": 4},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": list(range(5, 260))},
    "UNILORA": {"theta_d_length": 64},
    "VBLORA": {"num_vectors": 8, "vector_length": 4, "r": 2},
    "WAVEFT": {"n_frequency": 20},
}
UNMERGED = {"BEFT": "Base layer has no bias", "LILY": "not supported for Lily"}


class TestLoHa(MethodContract):
    method = LOHA
    families = ("llama", "qwen3", "bert", "t5")
    refused = MappingProxyType({"gpt2": "PEFT cannot put it on these layers"})
    misspelt = (Peft(type="LOHA", targets=("atention.query",)), Peft(type="LOHA", targets=("linear", "q_porj")))

    def expected_count(self, model: Model) -> int:
        return 2 * 3 * sum(sum(layer.weight.shape) for layer in model.sites("linear").values())


class TestNormsOfGPT2(MethodContract):
    """GPT-2's transposed layers are served by few types; its norms by this one."""

    method = Peft(type="LN_TUNING")
    families = ("gpt2",)
    misspelt = (Peft(type="LN_TUNING", targets=("ln_9",)),)

    def expected_count(self, model: Model) -> int:
        return sum(parameter.numel() for layer in model.sites("norm").values() for parameter in layer.parameters())


@pytest.mark.filterwarnings("ignore::UserWarning")  # the library's own, of what some of its types do
@pytest.mark.parametrize("kind", SERVED)
def test_every_type_trains_switches_returns_and_merges(kind: str, tmp_path: Path):
    method = Peft(type=kind, settings=SETTINGS.get(kind, {}))
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    base = outputs(model, trees)
    tuning = method.attach(model, 0)
    engine = toy_engine(model, tuning, layouts=method.layouts)
    assert engine.layout == "padded"
    first = {name: parameter.detach().clone() for name, parameter in tuning.parameters().items()}
    losses = train(engine, trees, 4)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(parameter, first[name]) for name, parameter in tuning.parameters().items())
    tuned = outputs(model, trees)
    with tuning.disabled(), tuning.disabled():
        assert torch.equal(outputs(model, trees), base)
    assert torch.equal(outputs(model, trees), tuned)
    assert all(parameter.requires_grad for parameter in tuning.parameters().values())
    tuning.save(tmp_path)
    again = tiny("llama")
    read = method_of(tmp_path)
    assert isinstance(read, Peft)
    assert read.type == kind
    assert read.settings.items() >= {key: value for key, value in method.settings.items() if key in read.settings}.items()
    read.attach(again, 7).load(tmp_path)
    assert difference(outputs(again, trees), tuned) <= CLOSE
    theirs = library.PeftModel.from_pretrained(tiny("llama").network, str(tmp_path))
    assert difference(outputs(held(theirs, model), trees), tuned) <= CLOSE
    if kind in UNMERGED:
        with pytest.raises(ConfigurationError, match=f"PEFT cannot merge {kind} here .*{UNMERGED[kind]}"):
            tuning.merge()
        assert torch.equal(outputs(model, trees), tuned)
        tuning.detach()
        tuning.detach()
        assert torch.equal(outputs(model, trees), base)
    else:
        tuning.merge()
        assert difference(outputs(model, trees), tuned) <= MERGED
        assert [type(module) for module in model.network.modules()] == [type(module) for module in tiny("llama").network.modules()]


def held(network: torch.nn.Module, model: Model) -> Model:
    """A network that PEFT holds, as `outputs` takes it."""
    return Model(network.base_model.model, model.tokenizer, model.kind, model.family, "", None, "")


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", library.LoKrConfig(r=4, alpha=3, target_modules=["q_proj", "not_there"], init_weights=False)),
        ("bert", library.OFTConfig(oft_block_size=4, target_modules=["query"])),
        ("t5", library.HRAConfig(r=2, target_modules=["q", "wo"])),
        ("gpt2", library.WaveFTConfig(n_frequency=9, target_modules=["c_attn"], fan_in_fan_out=True)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_made_by_peft_loads_here(family: str, config: library.PeftConfig, tmp_path: Path):
    model = tiny(family)
    theirs = library.get_peft_model(tiny(family).network, config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    theirs.save_pretrained(tmp_path)
    method = method_of(tmp_path)
    assert isinstance(method, Peft)
    method.attach(model, 0).load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), outputs(held(theirs, model), toy_trees(model))) < CLOSE


def test_a_base_that_packs_is_held_to_padded_rows_and_says_so():
    model = tiny("llama")
    LOHA.attach(model, 0)
    found = probe(model, LOHA.layouts)
    assert (found.layout, found.own_head) == ("padded", True)
    assert "rows are padded" in found.reason
    assert probe(tiny("llama")).layout == "forest"


def test_the_settings_are_those_of_peft_in_a_run_file():
    method = room.make({"name": "peft", "type": "lokr", "settings": {"r": 4, "decompose_both": True}})
    assert method.type == "LOKR"
    assert room.dump(method) == {
        "name": "peft",
        "type": "LOKR",
        "targets": None,
        "settings": {"r": 4, "decompose_both": True},
    }
    tuning = method.attach(tiny("llama"), 0)
    assert (tuning.wrapped.peft_config["default"].r, tuning.wrapped.peft_config["default"].decompose_both) == (4, True)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("LOHAA", "no type 'LOHAA' of PEFT is served. Did you mean 'LOHA'?"),
        ("ADALORA", "Write `method: adalora`"),
        ("vera", "Write `method: vera`"),
        ("XLORA", "mixes adapters that are trained already"),
        ("MULTITASK_PROMPT_TUNING", "changes how PEFT calls the whole network"),
    ],
)
def test_types_that_are_not_served_are_refused_before_peft_loads(kind: str, said: str):
    with pytest.raises(ConfigurationError) as found:
        build(Peft, {"type": kind})
    assert said in str(found.value)
    assert "type" in found.value.where


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"aplha": 3}, "method.settings.aplha: unknown key 'aplha' of LOHA. Did you mean 'alpha'?"),
        ({"r": "four"}, "method.settings.r: should be a valid integer, got 'four' (str)"),
        ({"r": "4"}, "method.settings.r: should be a valid integer"),
        ({"rank_dropout": [1]}, "method.settings.rank_dropout: should be a valid number"),
        ({"target_modules": ["q_proj"]}, "Use `targets`"),
        ({"modules_to_save": ["lm_head"]}, "`method: selective`"),
        ({"r": 0}, "PEFT cannot put it on these layers (`r` should be a positive integer"),
        ({"layers_pattern": "h"}, "PEFT refuses the settings of LOHA (When `layers_pattern` is specified"),
    ],
)
def test_settings_are_checked_against_the_class_of_peft(settings: dict[str, Any], said: str):
    model, trees = tiny("llama"), toy_trees(tiny("llama"))
    base = outputs(model, trees)
    with pytest.raises(ConfigurationError) as found:
        Peft(type="LOHA", settings=settings).attach(model, 0)
    assert said in str(found.value)
    assert torch.equal(outputs(model, trees), base)
    assert not model.lanes.members


def test_layers_that_a_type_cannot_stand_on_leave_the_network_as_it_was():
    model = tiny("gpt2")
    before = [type(module) for module in model.network.modules()]
    with pytest.raises(ConfigurationError, match=r"PEFT cannot put it on these layers .*Conv1D"):
        Peft(type="LOHA", targets=("head", "linear")).attach(model, 0)
    assert [type(module) for module in model.network.modules()] == before
    assert not hasattr(model.network, "peft_config")
    Peft(type="LN_TUNING").attach(model, 0)


def test_layers_that_peft_passes_over_in_silence_are_refused():
    with pytest.raises(ConfigurationError, match=r"'transformer\.h\.0\.attn\.c_attn' was passed over, a Conv1D"):
        Peft(type="OSF", settings={"effective_rank": 4}).attach(tiny("gpt2"), 0)


def test_it_stands_alone():
    model = tiny("llama")
    LoRA(rank=2).attach(model, 0)
    with pytest.raises(ConfigurationError, match="cannot stand beside another tuning"):
        LOHA.attach(model, 0)


def test_a_base_in_bytes_is_refused():
    model = tiny("llama")
    engine = toy_engine(model, LOHA.attach(model, 0), layouts=LOHA.layouts)
    with pytest.raises(ConfigurationError, match=r"'model\.layers\.0\.self_attn\.q_proj' is wrapped by PEFT"):
        quantise(engine, toy_loss, engine.collate(toy_trees(model)), smallest=1)


@pytest.mark.parametrize("kind", ["RANDLORA", "LOHA"])  # layers that are linear ones themselves, and layers around one
def test_in_bfloat16_what_is_trained_stays_float32(kind: str):
    model = tiny("llama")
    method = Peft(type=kind, settings=SETTINGS.get(kind, {}))
    tuning = method.attach(model, 0)
    engine = toy_engine(model, tuning, layouts=method.layouts)
    engine.use_precision("bfloat16")
    assert {parameter.dtype for parameter in tuning.parameters().values()} == {torch.float32}
    assert model.network.get_submodule("model.layers.0.mlp.up_proj.base_layer").weight.dtype == torch.bfloat16
    losses = train(engine, toy_trees(model), 3)
    assert losses[-1] < losses[0]


def test_a_tied_head_is_not_merged():
    model = tiny("bert")
    assert model.network.get_output_embeddings() is None
    gpt2 = tiny("gpt2")
    tuning = Peft(type="LOHA", targets=("head",)).attach(gpt2, 0)
    with pytest.raises(ConfigurationError, match="shares its weight with the embeddings"):
        tuning.merge()


def test_an_adapter_of_other_places_or_shapes_is_refused(tmp_path: Path):
    LOHA.attach(tiny("llama"), 0).save(tmp_path)
    with pytest.raises(BaseModelError, match="do not have the same places"):
        Peft(type="LOHA", targets=("q_proj",)).attach(tiny("llama"), 0).load(tmp_path)
    with pytest.raises(BaseModelError, match=r"is \(32, 3\) in the adapter and \(32, 8\) here"):
        Peft(type="LOHA").attach(tiny("llama"), 0).load(tmp_path)


@pytest.mark.parametrize("settings", [{"modules_to_save": ["lm_head"]}, {"an_option_of_tomorrow": 3}])
def test_options_that_are_not_computed_are_refused_by_name(settings: dict[str, Any], tmp_path: Path):
    LOHA.attach(tiny("llama"), 0).save(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(BaseModelError, match=f"uses {next(iter(settings))}, which is not supported"):
        method_of(tmp_path)


def test_a_type_that_is_not_served_is_not_read(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "XLORA"}')
    with pytest.raises(BaseModelError, match="the adapter is of type XLORA"):
        method_of(tmp_path)


def test_the_documentation_lists_what_is_served():
    page = Path(__file__).resolve().parents[2] / "docs" / "peft.md"
    listed = [line.split("`")[1] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert listed == list(SERVED)
