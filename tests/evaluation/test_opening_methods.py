"""Runs of methods with files of their own: opened as they were trained, on their own base alone, merged or refused in words."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.core.configuration import build
from tunewright.core.errors import BaseModelError, ConfigurationError
from tunewright.data.stored import read_rows
from tunewright.engine.settings import Sampling
from tunewright.evaluation.opening import load_base, open_model
from tunewright.finetune import Run, finetune
from tunewright.methods._saved import method_of, require_base, save_tuning
from tunewright.methods.vera import VeRA
from tunewright.models.loading import load
from tunewright.models.sources import resolve
from tunewright.run.merging import merge
from tunewright.testing.tiny import save_tiny, tiny
from tunewright.testing.toy import difference, outputs, toy_trees

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
METHODS: dict[str, dict[str, Any]] = {
    "vera": {"name": "vera", "rank": 16},
    "adalora": {"name": "adalora", "rank": 2},
    "norms by peft": {"name": "peft", "type": "LN_TUNING"},
    "lily by peft": {"name": "peft", "type": "LILY"},
    "bitfit": {"name": "bitfit"},
}
REFUSED = {"lily by peft": "PEFT cannot merge LILY"}


@pytest.fixture(scope="module", params=METHODS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def run(kind: str, bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few steps."""
    folder = tmp_path_factory.mktemp("runs")
    base = save_tiny("gpt2", folder / "gpt2") if kind == "bitfit" else bases / "llama"  # llama has no biases
    given = {
        "data": {"train": str(bases / "pairs.jsonl"), "validation_share": 0.2, "test_share": 0.2},
        "base": str(base),
        "method": METHODS[kind],
        "training": {"max_steps": 4, "batch_size": 6, "learning_rate": 3e-2, "precision": "float32"},
        "evaluation": {"written": 3, "sampling": {"max_new_tokens": 4}},
        **{"threads": 1, "name": "run", "folder": str(folder)},
    }
    return finetune(build(Run, given)).folder


def test_a_run_opens_generates_and_merges_or_says_why_not(kind: str, run: Path, tmp_path: Path):
    opened = open_model(str(run))
    assert opened.tuning is not None
    trees = toy_trees(opened.model)
    tuned, base = outputs(opened.model, trees), outputs(load_base(opened.settings["base"]), trees)
    assert difference(tuned, base) > 1e-4
    with opened.tuning.disabled():
        assert difference(outputs(opened.model, trees), base) < 1e-6
    rows = read_rows(run / "data" / "test.jsonl")
    told = [json.loads(line) for line in (run / "predictions" / "test.jsonl").read_text().splitlines()]
    written = [answer.text for answer in opened.approach(Sampling(max_new_tokens=4)).answer(rows, 3)]
    assert written[:3] == [line["tuned"] for line in told][:3]
    if kind in REFUSED:
        with pytest.raises(ConfigurationError, match=REFUSED[kind]) as refusal:
            merge(str(run), tmp_path / "merged")
        assert "Use the adapter as it is" in str(refusal.value)
        assert not (tmp_path / "merged").exists()
        return
    merge(str(run), tmp_path / "merged")
    assert difference(outputs(open_model(str(tmp_path / "merged")).model, trees), tuned) < 1e-4


def test_its_folder_alone_is_an_adapter(run: Path):
    found = resolve(str(run / "adapter"))
    assert found.kind == "adapter"
    with pytest.raises(BaseModelError, match="is an adapter on the base"):
        load(str(run / "adapter"))
    opened = open_model(str(run / "adapter"))
    assert torch.equal(outputs(opened.model, toy_trees(opened.model)), outputs(open_model(str(run)).model, toy_trees(opened.model)))


def test_another_base_is_refused_unless_forced(run: Path, tmp_path: Path):
    own = open_model(str(run)).settings["base"]
    base, copy = shutil.copytree(own, tmp_path / "base"), shutil.copytree(run, tmp_path / "run")
    (copy / "run.yaml").write_text((copy / "run.yaml").read_text().replace(own, str(base)))
    tensors = load_file(base / "model.safetensors")
    name = next(name for name in tensors if "embed" in name or "wte" in name)
    save_file({**tensors, name: tensors[name] + 0.01}, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match="made on another base"):
        open_model(str(copy))
    assert open_model(str(copy), force=True).tuning is not None


def test_a_tuning_saved_outside_of_a_run_carries_its_stamp(tmp_path: Path):
    model = tiny("llama")
    save_tuning(VeRA(rank=4).attach(model, 0), tmp_path, model)
    require_base(tmp_path, model, "it")
    with pytest.raises(BaseModelError, match="it: the adapter was made on another base"):
        require_base(tmp_path, tiny("llama", seed=1), "it")
    for damaged in ("{", "[]", '{"fingerprint": 3}'):
        (tmp_path / "base.json").write_text(damaged)
        with pytest.raises(BaseModelError, match=r"base\.json"):
            require_base(tmp_path, model, "it")
    (tmp_path / "base.json").unlink()
    require_base(tmp_path, tiny("llama", seed=1), "it")  # of another maker


def test_a_description_that_no_method_reads_is_refused(tmp_path: Path):
    assert method_of(tmp_path) is None
    (tmp_path / "tuning.json").write_text('{"format": 1, "method": {"name": "vear"}, "base": "x"}')
    with pytest.raises(BaseModelError, match="does not describe a tuning"):
        method_of(tmp_path)
    (tmp_path / "tuning.json").write_text('{"format": 9, "method": {"name": "vera"}, "base": "x"}')
    with pytest.raises(BaseModelError, match="is of format 9"):
        method_of(tmp_path)
    with pytest.raises(BaseModelError, match=r"holds an adapter without tuning\.safetensors"):
        resolve(str(tmp_path))
