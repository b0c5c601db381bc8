"""What a user names - a base, a run, an adapter - opened as what was trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError
from tunewright.core.runs import MERGED
from tunewright.data.stored import read_rows
from tunewright.engine.settings import Sampling
from tunewright.evaluation.opening import load_base, open_model
from tunewright.evaluation.tuned import Tuned
from tunewright.finetune import Run, finetune
from tunewright.models import Model
from tunewright.objectives.classification import Classification
from tunewright.objectives.sft import SFT
from tunewright.run import stages
from tunewright.run.merging import merge
from tunewright.run.workshop import Workshop
from tunewright.testing.tiny import save_tiny
from tunewright.testing.toy import difference, outputs, toy_trees


class Trained:
    """A tiny finished run, and the workshop in which it was trained."""

    def __init__(self, folder: Path, shop: Workshop) -> None:
        self.folder, self.shop = folder, shop


def describe(root: Path, base: str, rows: Path, **settings: Any) -> Run:
    given = {
        "data": {"train": str(rows), "validation_share": 0.2, "test_share": 0.2},
        "base": base,
        "training": {"max_steps": 3, "batch_size": 6, "learning_rate": 2e-2, "precision": "float32"},
        "evaluation": {"written": 3, "sampling": {"max_new_tokens": 4}},
        **{"threads": 1, "name": "run", "folder": str(root)},
    }
    return build(Run, given | settings)


def train(run: Run) -> Trained:
    shops: list[Workshop] = []
    real = stages.report
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "report", lambda shop, *rest: shops.append(shop) or real(shop, *rest))
        return Trained(finetune(run).folder, shops[0])


@pytest.fixture(scope="module")
def lora(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(describe(tmp_path_factory.mktemp("lora"), str(bases / "llama"), bases / "pairs.jsonl"))


@pytest.fixture(scope="module")
def labelled(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(describe(tmp_path_factory.mktemp("labelled"), str(bases / "bert"), bases / "labels.jsonl"))


def logits(model: Model) -> torch.Tensor:
    return outputs(model, toy_trees(model))


def answers(approach: Tuned, folder: Path) -> list[tuple[str | None, float | None]]:
    return [(answer.text, answer.loss) for answer in approach.answer(read_rows(folder / "data" / "test.jsonl"), 3)]


def test_a_plain_folder_is_a_base_for_text(bases: Path):
    opened = open_model(str(bases / "llama"))
    assert isinstance(opened.objective, SFT)
    assert (opened.tuning, opened.labels, opened.settings, opened.shape) == (None, (), {}, "")
    assert opened.engine.parameters == {}
    approach = opened.approach(Sampling(max_new_tokens=2))
    assert (approach.name, approach.sampling.max_new_tokens) == (str(bases / "llama"), 2)


def test_a_run_is_opened_as_what_was_trained(lora: Trained, bases: Path):
    opened = open_model(str(lora.folder))
    assert torch.equal(logits(opened.model), logits(lora.shop.model))
    base = logits(load_base(str(bases / "llama")))
    assert difference(logits(opened.model), base) > 1e-3  # else a run that trained nothing would pass
    assert opened.tuning is not None
    with opened.tuning.disabled():
        assert torch.equal(logits(opened.model), base)
    assert opened.renderer.config == lora.shop.renderer.config
    assert opened.shape == "prompt_completion"


def test_an_opened_run_answers_as_the_engine_that_was_trained(lora: Trained):
    sampling = lora.shop.run.evaluation.sampling
    opened = open_model(str(lora.folder)).approach(sampling)
    assert answers(opened, lora.folder) == answers(lora.shop.approach("tuned"), lora.folder)


def test_a_run_with_a_new_head_brings_its_labels(labelled: Trained):
    opened = open_model(str(labelled.folder))
    assert isinstance(opened.objective, Classification)
    assert opened.objective.with_head
    assert opened.labels == ("neg", "pos")
    assert opened.shape == "text_label"
    assert answers(opened.approach(Sampling()), labelled.folder) == answers(labelled.shop.approach("tuned"), labelled.folder)


def test_a_merged_run_keeps_how_it_was_tuned(lora: Trained, tmp_path: Path):
    merge(str(lora.folder), tmp_path / "merged")
    assert (tmp_path / "merged" / MERGED).is_file()
    opened = open_model(str(tmp_path / "merged"))
    assert opened.tuning is None
    assert opened.shape == "prompt_completion"
    assert opened.renderer.config == lora.shop.renderer.config
    assert difference(logits(opened.model), logits(lora.shop.model)) < 1e-4


@pytest.mark.filterwarnings("ignore")  # PEFT's own
def test_an_adapter_of_peft_is_opened_as_peft_computes_it(bases: Path, tmp_path: Path):
    import peft
    from transformers import AutoModelForCausalLM

    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    theirs = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(bases / "llama", dtype=torch.float32), config)
    theirs.save_pretrained(tmp_path / "theirs")
    opened = open_model(str(tmp_path / "theirs"))
    tree = toy_trees(opened.model)[0]
    read = torch.tensor([tree.segments[0].tokens])
    assert difference(outputs(opened.model, [tree]), theirs.eval()(input_ids=read).logits[0]) < 1e-5
    with theirs.disable_adapter():
        assert difference(outputs(opened.model, [tree]), theirs(input_ids=read).logits[0]) > 1e-2
    assert opened.settings == {}
    assert isinstance(opened.objective, SFT)


def test_our_adapter_folder_opens_alone(lora: Trained):
    opened = open_model(str(lora.folder / "adapter"))
    assert torch.equal(logits(opened.model), logits(lora.shop.model))


def test_an_adapter_that_names_no_base_is_refused(lora: Trained, tmp_path: Path):
    adapter = shutil.copytree(lora.folder / "adapter", tmp_path / "adapter")
    facts = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(facts | {"base_model_name_or_path": None}))
    assert open_model(str(adapter)).model.base == lora.shop.run.base  # the stamp names it too
    (adapter / "base.json").unlink()
    with pytest.raises(BaseModelError, match="does not say which base"):
        open_model(str(adapter))


@pytest.fixture
def moved(lora: Trained, bases: Path, tmp_path: Path) -> Callable[[], Path]:
    """A run whose base is a copy of its own that has changed in one tensor since."""

    def make() -> Path:
        base = shutil.copytree(bases / "llama", tmp_path / "base")
        run = shutil.copytree(lora.folder, tmp_path / "run")
        (run / "run.yaml").write_text((run / "run.yaml").read_text().replace(str(bases / "llama"), str(base)))
        assert open_model(str(run)).tuning is not None  # a copy is the same base
        tensors = load_file(base / "model.safetensors")
        tensors["model.norm.weight"] = tensors["model.norm.weight"] + 0.5
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
        return run

    return make


def test_a_changed_base_is_refused_unless_forced(moved: Callable[[], Path]):
    run = moved()
    with pytest.raises(BaseModelError, match="made on another base") as caught:
        open_model(str(run))
    assert "--force" in caught.value.hint
    with pytest.raises(BaseModelError, match="made on another base"):
        load_base(str(run))
    assert open_model(str(run), force=True).tuning is not None


def test_a_run_as_a_base_is_merged_in_memory(lora: Trained, bases: Path):
    model, again, plain = load_base(str(lora.folder)), load_base(str(lora.folder)), load_base(str(bases / "llama"))
    assert difference(logits(model), logits(lora.shop.model)) < 1e-5
    assert not any("lora" in name for name, _ in model.network.named_parameters())
    assert model.base == str(lora.folder)
    assert model.fingerprint == again.fingerprint != plain.fingerprint


def test_other_weights_on_the_same_base_are_another_fingerprint(lora: Trained, tmp_path: Path):
    run = shutil.copytree(lora.folder, tmp_path / "run")
    weights = run / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor * 1.5 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    assert load_base(str(run)).fingerprint != load_base(str(lora.folder)).fingerprint


def test_a_run_that_trained_a_head_alone_opens_with_it(bases: Path, tmp_path: Path):
    run = describe(tmp_path, str(bases / "bert"), bases / "labels.jsonl", method="head")
    folder = finetune(run).folder
    opened = open_model(str(folder))
    assert opened.tuning is None
    assert opened.engine.head is not None


def test_a_run_on_top_of_a_run_trains_and_opens_again(lora: Trained, bases: Path, tmp_path: Path):
    second = train(describe(tmp_path, str(lora.folder), bases / "pairs.jsonl"))
    base = json.loads((second.folder / "adapter" / "base.json").read_text())
    assert base == {"base": str(lora.folder), "fingerprint": load_base(str(lora.folder)).fingerprint}
    opened = open_model(str(second.folder))
    assert torch.equal(logits(opened.model), logits(second.shop.model))
    assert difference(logits(opened.model), logits(lora.shop.model)) > 1e-4
    assert load_base(str(second.folder)).fingerprint not in (base["fingerprint"], opened.model.fingerprint)


def test_a_folder_that_is_nothing_is_refused(tmp_path: Path):
    with pytest.raises(BaseModelError):
        open_model(str(tmp_path))
    save_tiny("llama", tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(BaseModelError):
        open_model(str(tmp_path / "base"))
