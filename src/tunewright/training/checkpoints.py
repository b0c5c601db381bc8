"""Checkpoints: written beside their place, synced, hashed and renamed; read newest first, and only when every hash is right.

A checkpoint holds (step, trained tensors, optimizer state, what the method keeps besides, best so far). Everything else of a run is
derived from its seed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunewright.core.errors import CheckpointError, StorageError
from tunewright.core.storage import read_json, verify_folder, write_folder
from tunewright.engine.engine import Engine
from tunewright.engine.placement import Placement
from tunewright.training.around import Best
from tunewright.training.loop import ALONE, Step

KEPT = 2  # the newest ones; the best parameters travel inside each
STATE = "state.json"  # a file of its own, so that its hash is checked like every other's


class Restored(NamedTuple):
    """Where a run continues: optimizer steps done, whether training was over, and the checkpoints that had to be passed over."""

    step: int
    finished: bool
    refused: list[str]


def save(folder: Path, step: Step, engine: Engine, best: Best, placement: Placement = ALONE) -> Path:
    """Write `folder/step-N`, then drop all but the newest ones.

    Tensors are written whole, whatever the placement, so that another number of processes can go on from them. Of several
    processes all must call this, and the first one writes.

    Raises:
        StorageError: disk full or not writable; earlier checkpoints are untouched.
    """
    target = folder / _name(step.number)
    parameters = placement.whole(engine.parameters)
    optimizer = placement.whole(engine.optimizer.state() if engine.optimizer else {})
    kept = placement.whole(best.parameters)
    if not placement.leads:
        return target
    if target.exists():
        shutil.rmtree(target)

    def fill(place: Path) -> None:
        _write(place / "parameters.safetensors", parameters)
        _write(place / "optimizer.safetensors", optimizer)
        if kept:
            _write(place / "best.safetensors", kept)
        if engine.first.kept:
            _write(place / "kept.safetensors", dict(engine.first.kept))
        facts = {"step": step.number, "finished": step.last, "best": best.facts()}
        (place / STATE).write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    write_folder(target, fill)
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


class _Stored(NamedTuple):
    """What a checkpoint holds, as it was read."""

    facts: dict[str, Any]
    parameters: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor]
    kept: dict[str, Tensor]


def restore(folder: Path, engine: Engine, best: Best, placement: Placement = ALONE) -> Restored:
    """Load the newest readable checkpoint into `engine` and `best`; damaged ones are set aside as `bad-step-N`.

    Of several processes all must call this; the first one reads and gives the others theirs.

    Raises:
        CheckpointError: there are checkpoints and none is readable; each is named with its reason.
    """
    refused: list[str] = []
    found = _newest(folder, engine, refused) if placement.leads else None
    facts, refused = placement.tell([found.facts if found else None, refused])
    if facts is None and refused:
        raise CheckpointError("no checkpoint can be read: " + "; ".join(refused), where=str(folder), hint="Start the run again.")
    if facts is None:
        return Restored(0, False, refused)
    stored = found or _Stored(facts, {}, {}, {}, {})
    engine.put_back(placement.given(stored.parameters, engine.parameters))
    optimizer = placement.given(stored.optimizer, engine.parameters)
    if engine.optimizer is not None:
        engine.optimizer.restore(optimizer)
    best.parameters = placement.given(stored.best, engine.parameters)
    for name, value in placement.given(stored.kept, engine.first.kept).items():
        engine.first.kept[name].copy_(value)
    _read_best(best, facts["best"])
    return Restored(int(facts["step"]), bool(facts["finished"]), refused)


def _newest(folder: Path, engine: Engine, refused: list[str]) -> _Stored | None:
    """The newest checkpoint that can be read; those that cannot are set aside, with their reasons added to `refused`."""
    for half in folder.glob(".tmp-step-*"):  # of a process that was killed while it wrote
        shutil.rmtree(half, ignore_errors=True)
    for place in _newest_first(folder):
        try:
            verify_folder(place)
            facts = read_json(place / STATE)
            parameters = load_file(place / "parameters.safetensors")
            optimizer = load_file(place / "optimizer.safetensors")
            best_path = place / "best.safetensors"
            best_parameters = load_file(best_path) if best_path.exists() else {}
            kept_path = place / "kept.safetensors"
            kept = load_file(kept_path) if kept_path.exists() else {}
            _same_names(set(parameters), set(engine.parameters), place)
            _same_names(set(kept), set(engine.first.kept), place)
            _same_step(int(facts["step"]), place)
        except (StorageError, SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            # The last four: a damaged manifest can be JSON and yet have another shape.
            refused.append(f"{place.name}: {error}")
            shutil.rmtree(aside := place.with_name(f"bad-{place.name}"), ignore_errors=True)
            place.rename(aside)
            continue
        return _Stored(facts, parameters, optimizer, best_parameters, kept)
    return None


def _read_best(best: Best, facts: dict[str, Any]) -> None:
    best.value, best.step, best.waited = facts["value"], facts["step"], facts["waited"]


def _same_names(stored: set[str], wanted: set[str], place: Path) -> None:
    if stored != wanted:
        raise StorageError(f"holds other trained tensors (first difference: {sorted(stored ^ wanted)[0]})", where=str(place))


def _same_step(stored: int, place: Path) -> None:
    if place.name != _name(stored):
        raise StorageError(f"holds the state of step {stored}: it has been renamed", where=str(place))


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        # safetensors reports a full disk as an error of its own; the writer of folders knows OSError
        raise OSError(str(error)) from error
