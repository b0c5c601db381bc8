"""Soft prompts against PEFT: what one saves the other reads, and both compute the same logits and gradients."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch

from tunewright.methods import Method, room
from tunewright.methods._saved import method_of
from tunewright.models import Model
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees, train

# transformers warns about a property that PEFT still asks for.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TASKS = {"bert": "FEATURE_EXTRACTION", "t5": "SEQ_2_SEQ_LM"}
DECODERS = ("llama", "qwen3", "gemma2", "gpt2")
P = 5


def settings_of(name: str, method: Method, family: str) -> peft.PeftConfig:
    common: dict[str, Any] = {"task_type": TASKS.get(family, "CAUSAL_LM"), "num_virtual_tokens": P, "num_transformer_submodules": 1}
    if name == "prompt_tuning":
        return peft.PromptTuningConfig(**common)
    if name == "p_tuning":
        kind = method.model_dump()["encoder"].upper()
        return peft.PromptEncoderConfig(encoder_reparameterization_type=kind, encoder_hidden_size=12, **common)
    projected = {"prefix_projection": True, "encoder_hidden_size": 12} if method.model_dump()["projection"] else {}
    return peft.PrefixTuningConfig(**projected, **common)


METHODS = {
    "prompt_tuning": {"name": "prompt_tuning"},
    "p_tuning-mlp": {"name": "p_tuning", "hidden": 12},
    "p_tuning-lstm": {"name": "p_tuning", "encoder": "lstm", "hidden": 12},
    "prefix_tuning": {"name": "prefix_tuning"},
    "prefix_tuning-projection": {"name": "prefix_tuning", "projection": True, "hidden": 12},
}
PAIRS = [(which, family) for which in METHODS for family in DECODERS]
PAIRS += [(which, family) for which in METHODS for family in TASKS if not which.startswith("prefix")]


def made(which: str) -> Method:
    return room.make({**METHODS[which], "virtual_tokens": P})


def prefixed(which: str) -> int:
    """How many of PEFT's outputs belong to virtual tokens: of prefix tuning none, since they are no input there."""
    return 0 if which.startswith("prefix") else P


def theirs_of(network: torch.nn.Module, which: str, model: Model) -> torch.Tensor:
    """As `outputs`, by PEFT's forward call."""
    found, ahead = [], prefixed(which)
    for tree in toy_trees(model):
        tokens = torch.tensor([tree.segments[0].tokens])
        given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if model.kind == "encoder_decoder":
            found.append(network(**given, decoder_input_ids=torch.tensor([tree.segments[1].tokens])).logits[0])
        elif model.kind == "encoder":
            found.append(network(**given).last_hidden_state[0, ahead:])
        else:
            found.append(network(**given).logits[0, ahead:])
    return torch.cat(found)


@pytest.mark.parametrize(("which", "family"), PAIRS)
def test_peft_reads_what_is_saved_and_computes_the_same(which: str, family: str, tmp_path: Path):
    model = tiny(family)
    tuning = made(which).attach(model, 0)
    train(toy_engine(model, tuning), toy_trees(model), 2)
    tuning.save(tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny(family).network, tmp_path)
    assert difference(theirs_of(theirs, which, model), outputs(model, toy_trees(model))) < 1e-5


@pytest.mark.parametrize(("which", "family"), [(which, family) for which, family in PAIRS if family in ("llama", "gemma2", "gpt2")])
def test_gradients_are_those_of_peft(which: str, family: str):
    model = tiny(family)
    method = made(which)
    tuning = method.attach(model, 0)
    theirs = peft.get_peft_model(tiny(family).network, settings_of(METHODS[which]["name"], method, family))
    wanted = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    ours = list(tuning.parameters().values())
    assert [one.shape for one in ours] == [one.shape for one in wanted]
    with torch.no_grad():
        for one, other in zip(wanted, ours, strict=True):
            one.copy_(other)
    trees, engine = toy_trees(model), toy_engine(model, tuning)
    engine.forward_backward([engine.collate(trees)], lambda engine, batch: engine.language_loss(batch))
    total = torch.zeros(())
    for tree in trees:
        tokens, weights = torch.tensor(tree.segments[0].tokens), torch.tensor(tree.segments[0].targets)
        logits = theirs(input_ids=tokens[None], attention_mask=torch.ones_like(tokens[None])).logits[0, prefixed(which) :]
        total = total + (torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none") * weights[1:]).sum()
    total.backward()
    for (name, one), other in zip(tuning.parameters().items(), wanted, strict=True):
        assert difference(one.grad, other.grad) < 2e-5, name


@pytest.mark.parametrize("which", METHODS)
def test_what_peft_saves_is_read(which: str, tmp_path: Path):
    model, wanted = tiny("llama"), made(which)
    theirs = peft.get_peft_model(tiny("llama").network, settings_of(METHODS[which]["name"], wanted, "llama")).eval()
    theirs.save_pretrained(tmp_path)
    method = method_of(tmp_path)
    assert type(method) is type(wanted)
    tuning = method.attach(model, 0)
    tuning.load(tmp_path)
    assert difference(outputs(model, toy_trees(model)), theirs_of(theirs, which, model)) < 1e-5
    kept = {name for name, value in wanted.model_dump().items() if name not in ("init", "hidden")}
    assert {name: method.model_dump()[name] for name in kept} == {name: wanted.model_dump()[name] for name in kept}
