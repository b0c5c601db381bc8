"""What a run leaves behind, and what it takes up again."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.core.errors import BaseModelError, StorageError
from tunewright.core.narrator import SILENT
from tunewright.core.runs import create
from tunewright.data.reading import read
from tunewright.finetune import Run
from tunewright.run import records
from tunewright.run.workshop import Workshop, set_up
from tunewright.training.around import Best
from tunewright.training.loop import Step

STEP = Step(number=3, epoch=0.5, loss=1.5, learning_rate=1e-3, gradient_norm=0.1, trained=9.0, tokens=12, seconds=0.1)


@pytest.fixture
def shop(described: Callable[..., Run], pairs: Path) -> Workshop:
    run = described("llama", pairs)
    return set_up(run, read(run.data, run.seed), create(run.folder, run.name, "pairs"), SILENT)


def edit_manifest(shop: Workshop, **changes: Any) -> None:
    path = shop.folder.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def disk_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("broken", ["write_rows", "write_json"])
def test_a_folder_is_no_run_before_its_rows_are_written(broken: str, shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, broken, disk_full)
    with pytest.raises(OSError, match="No space left"):
        records.begin(shop)
    assert not shop.folder.is_run
    shop.folder.discard()
    assert not shop.folder.path.exists()


def test_rows_come_back_as_the_run_kept_them(shop: Workshop, pairs: Path):
    records.begin(shop)
    assert shop.folder.is_run
    pairs.unlink()  # the user's own file is not looked at again
    kept = records.kept_dataset(shop.folder)
    assert kept.splits() == shop.dataset.splits()
    assert (kept.shape, kept.ledger, kept.findings) == (shop.dataset.shape, shop.dataset.ledger, shop.dataset.findings)


@pytest.mark.parametrize("split", records.SPLITS)
def test_rows_that_were_changed_are_refused(split: str, shop: Workshop):
    records.begin(shop)
    path = shop.folder.data / f"{split}.jsonl"
    path.write_text(path.read_text().replace("spell", "spall", 1))
    with pytest.raises(StorageError, match="have changed since it began") as caught:
        records.kept_dataset(shop.folder)
    assert caught.value.where == str(path)


def test_another_base_is_refused(shop: Workshop):
    records.begin(shop)
    records.carry_on(shop)
    shop.model = replace(shop.model, fingerprint="0" * 64)
    with pytest.raises(BaseModelError, match="the base has changed since the run began"):
        records.carry_on(shop)


def test_the_same_machine_is_nothing_to_warn_about(shop: Workshop):
    records.begin(shop)
    records.carry_on(shop)
    assert shop.warnings == []


def test_other_versions_and_another_processor_are_warned_about(shop: Workshop):
    records.begin(shop)
    manifest = shop.folder.manifest
    edit_manifest(shop, versions=manifest["versions"] | {"torch": "1.0"}, machine=manifest["machine"] | {"processor": "abacus"})
    records.carry_on(shop)
    assert len(shop.warnings) == 2
    assert shop.warnings[0].startswith(f"torch was 1.0 when the run began and is {torch.__version__.split('+')[0]}")
    assert "another processor" in shop.warnings[1]


def test_what_the_manifest_knows_is_taken_up(shop: Workshop):
    records.begin(shop)
    seconds = dict(shop.seconds)
    edit_manifest(
        shop, warnings=["old"], base_validation={"loss": 2.5}, reasons={"a.b": "why"}, seconds={"Tune": 7.0, "Estimate": 1.0}
    )
    shop.warnings = ["old", "new"]
    records.carry_on(shop)
    assert shop.warnings == ["old", "new"]
    assert shop.base_validation == {"loss": 2.5}
    assert shop.reasons["a.b"] == "why"
    assert shop.seconds["Tune"] == 7.0
    assert shop.seconds["Estimate"] == pytest.approx(seconds["Estimate"] + 1.0)


def test_an_update_keeps_what_is_known_by_now(shop: Workshop):
    records.begin(shop)
    shop.base_validation = {"loss": 0.5}
    shop.warn("look at this")
    records.update(shop)
    assert shop.folder.manifest["base_validation"] == {"loss": 0.5}
    assert shop.folder.manifest["warnings"] == ["look at this"]


def test_steps_are_logged_as_they_were(shop: Workshop):
    records.begin(shop)
    steps = [STEP, replace(STEP, number=4, validation={"loss": 1.25}, last=True)]
    for step in steps:
        records.log(shop, step)
    assert records.curve(shop.folder) == steps


def test_tuned_weights_are_never_overwritten(shop: Workshop):
    records.begin(shop)
    records.save_tuning(shop)
    adapter = shop.folder.path / "adapter"
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert json.loads(before["base.json"]) == {"base": shop.run.base, "fingerprint": shop.model.fingerprint}
    with torch.no_grad():
        next(iter(shop.engine.parameters.values())).add_(1.0)
    records.save_tuning(shop)
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


def test_a_full_disk_at_the_weights_leaves_no_half_of_them(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    records.begin(shop)
    monkeypatch.setattr(type(shop.tuning), "save", disk_full)
    with pytest.raises(StorageError, match="No space left"):
        records.save_tuning(shop)
    assert not [path for path in shop.folder.path.iterdir() if "adapter" in path.name]


def test_a_full_disk_at_a_checkpoint_does_not_end_the_run(shop: Workshop, monkeypatch: pytest.MonkeyPatch):
    records.begin(shop)
    best = Best("loss", higher_is_better=False)
    records.checkpoint(shop, replace(STEP, number=2), best)
    good = {path: path.stat().st_mtime_ns for path in shop.folder.checkpoints.rglob("*")}
    assert good
    monkeypatch.setattr("tunewright.training.checkpoints._write", disk_full)
    records.checkpoint(shop, STEP, best)
    (warning,) = shop.warnings
    assert warning.startswith("The checkpoint of step 3 could not be written")
    assert "No space left" in warning
    assert {path: path.stat().st_mtime_ns for path in shop.folder.checkpoints.rglob("*")} == good
