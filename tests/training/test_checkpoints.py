"""Checkpoints: bits come back; whatever damages one, the one before is used."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from tunewright.core.errors import CheckpointError, StorageError
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees
from tunewright.training import checkpoints
from tunewright.training.around import Best, stop_early, validated
from tunewright.training.checkpoints import restore, save
from tunewright.training.loop import Pace, Plan, fit


def ready(method=None, family: str = "llama"):
    model = tiny(family)
    return toy_engine(model, (method or LoRA(rank=2)).attach(model, 0)), Best("loss", False)


def state(engine) -> dict[str, torch.Tensor]:
    parameters = {f"parameter/{name}": one for name, one in engine.parameters.items()}
    return {name: value.detach().clone() for name, value in {**parameters, **engine.optimizer.state()}.items()}


def trained(folder: Path, steps: int = 4, every: int = 1, method=None, family: str = "llama"):
    """A short run with a checkpoint at each step; the state after each step."""
    engine, best = ready(method, family)
    plan = Plan(toy_trees(engine.model, 6), 3, 64, 0, steps)
    losses = iter([2.0, 1.0, 1.5, 1.2, 1.1, 1.3])
    history = {}
    wrapped = validated(fit(engine, toy_loss, plan, Pace(1e-2)), 1, lambda: {"loss": next(losses)})
    for step in stop_early(wrapped, best, engine, 10):
        if step.number % every == 0:
            save(folder, step, engine, best)
        history[step.number] = state(engine)
    return history, best


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("method", "family"), [(LoRA(rank=2), "llama"), (Full(), "gpt2"), (LoRA(rank=2), "bert")])
def test_bits_come_back(method, family: str, tmp_path: Path):
    history, kept = trained(tmp_path, method=method, family=family)
    engine, best = ready(method, family)
    found = restore(tmp_path, engine, best)
    assert found == (4, True, [])
    assert_same(state(engine), history[4])
    assert best.facts() == kept.facts() == {"monitor": "loss", "value": 1.0, "step": 2, "waited": 2}
    assert_same(best.parameters, {name.removeprefix("parameter/"): one for name, one in history[2].items() if "parameter/" in name})


def test_only_the_newest_are_kept(tmp_path: Path):
    trained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000003", "step-0000004"]
    assert {path.name for path in (tmp_path / "step-0000004").iterdir()} == {
        "MANIFEST.json",
        "state.json",
        "parameters.safetensors",
        "optimizer.safetensors",
        "best.safetensors",
    }


def test_nothing_to_restore(tmp_path: Path):
    engine, best = ready()
    before = state(engine)
    assert restore(tmp_path / "none", engine, best) == (0, False, [])
    assert_same(state(engine), before)


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))


DAMAGE = {
    "a bit of the weights": lambda place: flip(place / "parameters.safetensors"),
    "a bit of the moments": lambda place: flip(place / "optimizer.safetensors", 300),
    "a bit of the best": lambda place: flip(place / "best.safetensors"),
    "a bit of the state": lambda place: flip(place / "state.json", 12),
    "truncated": lambda place: (place / "parameters.safetensors").write_bytes((place / "parameters.safetensors").read_bytes()[:-7]),
    "empty": lambda place: (place / "optimizer.safetensors").write_bytes(b""),
    "a file is gone": lambda place: (place / "best.safetensors").unlink(),
    "a file too many": lambda place: (place / "more.txt").write_text("x"),
    "no manifest": lambda place: (place / "MANIFEST.json").unlink(),
    "half a manifest": lambda place: (place / "MANIFEST.json").write_text((place / "MANIFEST.json").read_text()[:50]),
    "a manifest of another shape": lambda place: (place / "MANIFEST.json").write_text("[]"),
    "a manifest with no hashes": lambda place: (place / "MANIFEST.json").write_text(
        json.dumps({"files": {path.name: {} for path in place.iterdir() if path.name != "MANIFEST.json"}})
    ),
    "nothing at all": lambda place: [path.unlink() for path in place.iterdir()],
    "files of another step": lambda place: shutil.copy(
        place.with_name("step-0000003") / "parameters.safetensors", place / "parameters.safetensors"
    ),
    "another step under this name": lambda place: (shutil.rmtree(place), shutil.copytree(place.with_name("step-0000003"), place)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(damage, tmp_path: Path):
    history, _ = trained(tmp_path)
    damage(tmp_path / "step-0000004")
    engine, best = ready()
    found = restore(tmp_path, engine, best)
    assert (found.step, found.finished) == (3, False)
    assert len(found.refused) == 1
    assert found.refused[0].startswith("step-0000004: ")
    assert_same(state(engine), history[3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad-step-0000004", "step-0000003"]
    assert restore(tmp_path, *ready()) == (3, False, [])


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(tmp_path: Path):
    trained(tmp_path / "whole", steps=2)
    engine, best = ready()
    size = (tmp_path / "whole" / "step-0000002" / "MANIFEST.json").stat().st_size
    for place in range(0, size, 37):
        copy = tmp_path / str(place)
        shutil.copytree(tmp_path / "whole", copy)
        flip(copy / "step-0000002" / "MANIFEST.json", place)
        found = restore(copy, engine, best)
        assert (found.step, len(found.refused)) in ((1, 1), (2, 0))  # a size or white space may change: what is read is hashed


def test_a_renamed_one_is_not_taken_for_another_step(tmp_path: Path):
    trained(tmp_path)
    (tmp_path / "step-0000004").rename(tmp_path / "step-0000009")
    engine, best = ready()
    found = restore(tmp_path, engine, best)
    assert found.step == 3
    assert "step-0000009: " in found.refused[0]
    assert "holds the state of step 4: it has been renamed" in found.refused[0]


def test_swapped_ones_are_both_refused(tmp_path: Path):
    trained(tmp_path)
    for old, new in (("step-0000004", "x"), ("step-0000003", "step-0000004"), ("x", "step-0000003")):
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read: step-0000004: .*; step-0000003: .*Start the run again"):
        restore(tmp_path, *ready())


def test_a_second_damage_at_the_same_step(tmp_path: Path):
    trained(tmp_path)
    for _ in range(2):
        flip(tmp_path / "step-0000004" / "state.json")
        assert restore(tmp_path, *ready()).step == 3
        shutil.rmtree(tmp_path)
        trained(tmp_path)
        (tmp_path / "bad-step-0000004").mkdir(exist_ok=True)
        (tmp_path / "bad-step-0000004" / "x").write_text("of last time")


def test_a_half_written_one_is_swept_away(tmp_path: Path):
    history, _ = trained(tmp_path)
    half = tmp_path / ".tmp-step-0000005-4242"
    shutil.copytree(tmp_path / "step-0000004", half)
    (half / "MANIFEST.json").unlink()
    engine, best = ready()
    assert restore(tmp_path, engine, best).step == 4
    assert_same(state(engine), history[4])
    assert not half.exists()


def test_those_of_another_method_are_refused(tmp_path: Path):
    trained(tmp_path)
    with pytest.raises(CheckpointError, match="holds other trained tensors"):
        restore(tmp_path, *ready(LoRA(rank=2, targets=("attention.query",))))


@pytest.mark.parametrize("where", ["parameters", "state", "sync"])
def test_a_full_disk_keeps_what_was_there(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    history, _ = trained(tmp_path, steps=3)
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(*given, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "parameters":
        monkeypatch.setattr(checkpoints, "save_file", full)
    elif where == "state":
        monkeypatch.setattr(Path, "write_text", full)
    else:
        monkeypatch.setattr("tunewright.core.storage.sync", full)
    engine, best = ready()
    step = next(fit(engine, toy_loss, Plan(toy_trees(engine.model, 6), 3, 64, 0, 9), Pace(1e-2), start=3))
    with pytest.raises(StorageError, match=r"step-0000004: could not be written \(No space left on device\).*Free space"):
        save(tmp_path, step, engine, best)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert restore(tmp_path, engine, best).step == 3
    assert_same(state(engine), history[3])


def test_a_full_disk_as_safetensors_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*given, **more):
        raise checkpoints.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(StorageError, match=r"could not be written \(.*No space left"):
        trained(tmp_path)
    assert list(tmp_path.iterdir()) == []
