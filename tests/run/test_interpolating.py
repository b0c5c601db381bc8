"""Between base and tuned: exact ends, the right place in between, folders that read back, for every kind of tuning."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tunewright.core.errors import BaseModelError, ConfigurationError, RunFolderError
from tunewright.core.storage import read_json
from tunewright.data.stored import read_rows
from tunewright.engine.settings import Sampling
from tunewright.evaluation.opening import load_base, open_model
from tunewright.finetune import finetune
from tunewright.methods import Method, room
from tunewright.methods._saved import save_tuning
from tunewright.models.loading import load_folder
from tunewright.run.interpolating import between
from tunewright.testing.tiny import save_tiny
from tunewright.testing.toy import difference, outputs, toy_engine, toy_trees, train

from .conftest import describe, spelling

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"name": "lora", "rank": 2}),
    ("gpt2", {"name": "sparse", "share": 0.05}),
    ("bert", {"name": "bitfit"}),
    ("llama", {"name": "lora", "rank": 2, "dora": True}),
    ("t5", {"name": "lora", "rank": 2}),
]


def saved(root: Path, family: str, method: Method) -> Path:
    """A tuning of a tiny base in folders, trained a little."""
    base = save_tiny(family, root / "base")
    model = load_folder(base)
    tuning = method.attach(model, 0)
    train(toy_engine(model, tuning), toy_trees(model), 3)
    place = root / "tuned"
    place.mkdir()
    save_tuning(tuning, place, model)
    return place


@pytest.fixture(scope="module")
def full(base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that changed every weight."""
    root = tmp_path_factory.mktemp("full")
    return finetune(describe(root, base("llama"), spelling(root), name="full", method="full")).folder


@pytest.mark.parametrize(("family", "method"), METHODS, ids=str)
def test_its_ends_are_base_and_tuned_and_half_is_between(family: str, method: dict[str, Any], tmp_path: Path) -> None:
    place = saved(tmp_path, family, room.make(method))
    base, tuned = load_base(str(tmp_path / "base")), open_model(str(place)).model
    trees = toy_trees(base)
    found = between(str(place))
    ends = outputs(base, trees), outputs(tuned, trees)
    for factor, wanted in ((1.0, ends[1]), (0.0, ends[0]), (0.5, None), (1.0, ends[1])):
        found.to(factor)
        now = outputs(found.opened.model, trees)
        if wanted is None:
            assert difference(now, ends[0]) > 1e-4
            assert difference(now, ends[1]) > 1e-4
            written = found.write(tmp_path / "half", factor)
            again = open_model(str(tmp_path / "half"))
            assert written.kind == ("model" if "dora" in method else "adapter")
            assert difference(outputs(again.model, trees), now) < 1e-5
        else:
            assert difference(now, wanted) < 1e-5


def test_weights_lie_on_the_line(full: Path, tmp_path: Path) -> None:
    found = between(str(full))
    assert found.write(tmp_path / "quarter", 0.25).kind == "model"
    base = load_base(read_json(full / "model" / "base.json")["base"]).network
    start, end = base.state_dict(), load_folder(full / "model").network.state_dict()
    for name, value in load_folder(tmp_path / "quarter").network.state_dict().items():
        torch.testing.assert_close(value, start[name] + 0.25 * (end[name] - start[name]), msg=name)
    facts = read_json(tmp_path / "quarter" / "MANIFEST.json")
    assert (facts["interpolated_from"], facts["factor"]) == (str(full), 0.25)
    assert open_model(str(tmp_path / "quarter")).settings["rendering"] == open_model(str(full)).settings["rendering"]


def test_a_low_rank_change_is_scaled_by_b_alone(tmp_path: Path) -> None:
    place = saved(tmp_path, "llama", room.make({"name": "lora", "rank": 2}))
    between(str(place)).write(tmp_path / "half", 0.5)
    before, after = (load_file(one / "adapter_model.safetensors") for one in (place, tmp_path / "half"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value * (0.5 if "lora_B" in name else 1.0))


def test_values_at_every_place_on_every_file(full: Path) -> None:
    found = between(str(full))
    rows = {split: read_rows(full / "data" / f"{split}.jsonl") for split in ("train", "test")}
    points = list(found.measured([0.0, 0.5, 1.0], rows, (), Sampling(max_new_tokens=4), written=2))
    assert [(point.factor, point.data) for point in points] == [(f, d) for f in (0.0, 0.5, 1.0) for d in ("train", "test")]
    loss = {(point.factor, point.data): point.measures[-1].tuned.value for point in points}
    assert loss[1.0, "train"] < loss[0.5, "train"] < loss[0.0, "train"]


def test_a_run_whose_base_has_changed_is_refused(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    folder = finetune(describe(tmp_path, str(base), spelling(tmp_path), method="full", training={"max_steps": 1})).folder
    (tmp_path / "base").rename(tmp_path / "old")
    save_tiny("llama", tmp_path / "base", seed=5)
    with pytest.raises(BaseModelError, match="made on another base"):
        between(str(folder))
    assert between(str(folder), force=True)


def test_what_has_nothing_between_says_so(described, labelled, base, tmp_path: Path) -> None:
    head = finetune(described("bert", labelled, method="head", training={"max_steps": 1})).folder
    with pytest.raises(BaseModelError, match=r"the very weights of its base.*A new head has no base"):
        between(str(head))
    with pytest.raises(BaseModelError, match="does not say which base it was tuned from"):
        between(base("llama"))


def test_a_prompt_has_no_half(tmp_path: Path) -> None:
    place = saved(tmp_path, "llama", room.make({"name": "prompt_tuning", "virtual_tokens": 2}))
    with pytest.raises(ConfigurationError):
        between(str(place))


def test_nothing_is_overwritten(full: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RunFolderError, match="exists already"):
        between(str(full)).write(tmp_path / "there", 0.5)
