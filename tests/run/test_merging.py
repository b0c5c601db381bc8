"""Merged = attached, and nothing is written where that does not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tunewright.core.errors import RunFolderError, VerificationError
from tunewright.methods.lora import LoRA, LoRATuning
from tunewright.models.loading import load_folder
from tunewright.run import merging
from tunewright.run.merging import merge, probe_trees
from tunewright.testing.tiny import save_tiny, tiny


def adapter(folder: Path, family: str) -> Path:
    """A LoRA folder with weights that change something, on a tiny base beside it."""
    base = save_tiny(family, folder / "base")
    model = load_folder(base)
    tuning = LoRA(rank=2).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    (folder / "adapter").mkdir()
    tuning.save(folder / "adapter")
    return folder / "adapter"


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "t5"])
def test_a_merged_adapter_is_a_whole_model_that_computes_the_same(tmp_path: Path, family: str) -> None:
    found = merge(str(adapter(tmp_path, family)), tmp_path / "out")
    assert found.difference <= merging.TOLERANCE
    merged, base = load_folder(tmp_path / "out"), load_folder(tmp_path / "base")
    changed = [name for name, tensor in merged.network.state_dict().items() if not tensor.equal(base.network.state_dict()[name])]
    assert changed
    assert not list((tmp_path / "out").glob("adapter*"))


def test_nothing_is_written_where_merging_changes_what_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LoRATuning.merge

    def wrong(self: LoRATuning) -> None:
        right(self)
        right(tuning_again(self))

    def tuning_again(self: LoRATuning) -> LoRATuning:
        with torch.no_grad():
            next(self.model.network.parameters()).mul_(1.01)
        return self

    monkeypatch.setattr(LoRATuning, "merge", wrong)
    with pytest.raises(VerificationError, match="merging changed what the network computes"):
        merge(str(adapter(tmp_path, "llama")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_what_was_written_reads_back_as_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = adapter(tmp_path, "llama")
    monkeypatch.setattr(merging, "load_folder", lambda folder, **asked: load_folder(tmp_path / "base", **asked))
    with pytest.raises(VerificationError, match="read back"):
        merge(str(place), tmp_path / "out")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["adapter", "base"]


def test_an_existing_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RunFolderError, match="exists already"):
        merge("anything", tmp_path / "out")


def test_the_probe_reaches_every_kind_of_base() -> None:
    assert [len(tree.segments) for tree in probe_trees(tiny("llama"))] == [1, 1, 1]
    assert [len(tree.segments) for tree in probe_trees(tiny("t5"))] == [2, 2, 2]
