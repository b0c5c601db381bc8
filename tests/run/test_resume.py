"""A run that was stopped, killed or robbed of a checkpoint ends with the same bits as one that never was."""

import errno
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tunewright.core.errors import BaseModelError, DivergedError, Interrupted, RunFolderError, StorageError
from tunewright.core.runs import RunFolder
from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss
from tunewright.engine.optimizers import Optimizer
from tunewright.finetune import finetune, resume
from tunewright.objectives.sft import SFT
from tunewright.run import records
from tunewright.testing.tiny import save_tiny

from .conftest import describe, losses, spelling, weights

DROPPING = {"name": "lora", "rank": 4, "dropout": 0.3}


def stop_after(steps: int):
    """Asks to stop after so many steps."""
    seen = iter(range(1, 1000))
    return lambda: next(seen) >= steps


def assert_same(one, other) -> None:
    assert set(weights(one)) == set(weights(other)) != set()
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
    assert losses(one) == losses(other)


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory: pytest.TempPathFactory):
    """The run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    return finetune(describe(root, base("llama"), spelling(root), name="whole", method=DROPPING)).folder


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_stopped_at_every_step(steps: int, whole, described, pairs):
    run = described("llama", pairs, name="stopped", method=DROPPING)
    with pytest.raises(Interrupted, match=f"stopped after step {steps}, as asked.*tunewright resume"):
        finetune(run, stop_asked=stop_after(steps))
    folder = run.folder / "stopped"
    assert [number for number, _, _ in losses(folder)] == list(range(1, steps + 1))
    assert not (folder / "report.json").exists()
    assert resume(folder).folder == folder
    assert_same(folder, whole)
    with pytest.raises(RunFolderError, match="the run is finished"):
        resume(folder)


def test_stopped_again_and_again(whole, described, pairs):
    run = described("llama", pairs, name="often", method=DROPPING)
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=stop_after(1))
    for _ in range(4):
        with pytest.raises(Interrupted):
            resume(run.folder / "often", stop_asked=stop_after(1))
    resume(run.folder / "often")
    assert_same(run.folder / "often", whole)


def test_what_a_method_keeps_besides_goes_on_too(described, pairs):
    """AdaLoRA's averages and masks decide what the steps after a stop do."""
    method = {"name": "adalora", "rank": 1, "initial_rank": 3}
    whole = finetune(described("llama", pairs, name="undisturbed", method=method)).folder
    run = described("llama", pairs, name="in_two", method=method)
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=stop_after(3))
    resume(run.folder / "in_two")
    assert_same(run.folder / "in_two", whole)
    facts = json.loads((whole / "adapter" / "adapter_config.json").read_text())
    assert facts["total_step"] == len(losses(whole))
    assert facts["rank_pattern"]


@pytest.mark.parametrize("at", ["measure_base", "tune", "log", "save_tuning", "test_once", "finish"])
def test_killed_anywhere(at: str, whole, described, pairs, monkeypatch: pytest.MonkeyPatch):
    from tunewright.run import stages

    run = described("llama", pairs, name="killed", method=DROPPING)
    place = stages if at in ("measure_base", "tune", "test_once") else records
    calls = iter(range(9))
    kept = getattr(place, at)

    def killed(*given):
        if at != "log" or next(calls) == 2:
            raise KeyboardInterrupt
        return kept(*given)

    monkeypatch.setattr(place, at, killed)
    with pytest.raises(KeyboardInterrupt):
        finetune(run)
    monkeypatch.undo()
    resume(run.folder / "killed")
    assert_same(run.folder / "killed", whole)


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(whole, described, pairs):
    run = described("llama", pairs, name="hurt", method=DROPPING, training={"save_every": 1})
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=stop_after(5))
    folder = run.folder / "hurt"
    broken = folder / "checkpoints" / "step-0000005" / "parameters.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    report = resume(folder).report
    assert_same(folder, whole)
    assert any("Passed over a damaged checkpoint: step-0000005" in warning for warning in report.warnings)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(whole, described, pairs, monkeypatch: pytest.MonkeyPatch):
    def full(*given):
        raise StorageError("could not be written (No space left on device)")

    monkeypatch.setattr(records.checkpoints, "save", full)
    found = finetune(described("llama", pairs, name="full", method=DROPPING))
    assert_same(found.folder, whole)
    assert sum("could not be written (No space left on device)" in warning for warning in found.report.warnings) == 3


def test_a_log_that_cannot_be_written_ends_the_run_and_not_the_result(whole, described, pairs, monkeypatch: pytest.MonkeyPatch):
    kept, calls = RunFolder.log, iter(range(1, 99))

    def full(self, step) -> None:
        if next(calls) < 4:
            kept(self, step)
            return
        with self.steps.open("a") as file:
            file.write('{"number": 4, "los')
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "log", full)
    run = described("llama", pairs, name="crowded", method=DROPPING)
    with pytest.raises(StorageError, match=r"steps.jsonl: could not be written \(No space left on device\).*tunewright resume"):
        finetune(run)
    monkeypatch.undo()
    resume(run.folder / "crowded")
    assert_same(run.folder / "crowded", whole)


def test_patience_and_best_are_part_of_the_state(described, pairs):
    settings = {"method": "full", "training": {"learning_rate": 0.05, "patience": 3, "validate_every": 1, "max_steps": 30}}
    whole = finetune(described("llama", pairs, name="whole", **settings)).folder
    steps = len(losses(whole))
    assert 4 <= steps < 30
    run = described("llama", pairs, name="stopped", **settings)
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=stop_after(steps - 1))
    resume(run.folder / "stopped")
    assert_same(run.folder / "stopped", whole)


def test_more_of_everything_else_changes_nothing(whole, described, pairs):
    """Validating, saving and writing more often: the weights of every step stay the same."""
    training = {"validate_every": 1, "save_every": 1}
    evaluation = {"metrics": ["rouge1", "chrf"], "written": 0, "validation_rows": 2}
    busy = finetune(described("llama", pairs, name="busy", method=DROPPING, training=training, evaluation=evaluation)).folder
    idle = finetune(described("llama", pairs, name="idle", method=DROPPING, training={"validate_every": 6})).folder
    last = [load_file(folder / "checkpoints" / "step-0000006" / "parameters.safetensors") for folder in (whole, busy, idle)]
    for other in last[1:]:
        assert all(torch.equal(value, other[name]) for name, value in last[0].items())
    assert [loss[1] for loss in losses(whole)] == [loss[1] for loss in losses(busy)] == [loss[1] for loss in losses(idle)]
    assert [number for number, _, validation in losses(idle) if validation] == [6]


def test_the_same_run_twice_and_another_seed(whole, described, pairs):
    assert_same(finetune(described("llama", pairs, name="again", method=DROPPING)).folder, whole)
    other = finetune(described("llama", pairs, name="other", method=DROPPING, seed=1)).folder
    assert losses(other) != losses(whole)


def test_a_cut_step_gives_the_same_course(described, pairs):
    found = [
        losses(finetune(described("llama", pairs, name=f"cut{budget}", training={"token_budget": budget})).folder)
        for budget in (20, 2048)
    ]
    for one, other in zip(*found, strict=True):
        assert one[1] == pytest.approx(other[1], rel=1e-4)


@pytest.mark.parametrize("broken", ["weights", "validation"])
def test_a_run_that_diverges_keeps_the_checkpoint_before(broken: str, described, pairs, monkeypatch: pytest.MonkeyPatch):
    run = described("llama", pairs, name="wild", method="full")
    kept = Optimizer.update
    calls = iter(range(1, 99))

    def leap(self, learning_rate: float) -> None:
        kept(self, learning_rate * (1e30 if next(calls) == (3 if broken == "weights" else 4) else 1.0))

    monkeypatch.setattr(Optimizer, "update", leap)
    with pytest.raises(DivergedError, match=r"step 4( of 6)?: .*Lower the learning rate \(it was"):
        finetune(run)
    monkeypatch.undo()
    folder = run.folder / "wild"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-0000002"]
    assert all(value.isfinite().all() for value in load_file(folder / "checkpoints/step-0000002/parameters.safetensors").values())
    assert not (folder / "model").exists()
    calm = finetune(described("llama", pairs, name="calm", method="full")).folder
    resume(folder)
    assert_same(folder, calm)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_leaves_the_floats_ends_the_run_and_says_so(precision: str, described, pairs, monkeypatch):
    plain = SFT.loss

    def beyond(self: SFT, engine: Engine, batch: Batch) -> Loss:
        total, count = plain(self, engine, batch)
        updated = any(bool(one.abs().sum() > 0) for name, one in engine.parameters.items() if "lora_B" in name)
        return Loss(total * math.inf if updated and torch.is_grad_enabled() else total, count)

    monkeypatch.setattr(SFT, "loss", beyond)
    training = {"learning_rate": 10, "max_steps": 20, "clip": None, "schedule": "constant", "precision": precision}
    with pytest.raises(DivergedError, match=r"step \d+ of 20: .* not a finite number.*Lower the learning rate \(it was 10\)"):
        finetune(described("llama", pairs, name="hot", method={"name": "lora", "rank": 8}, training=training))


def test_a_base_that_has_changed_is_refused(described, pairs, tmp_path):
    place = save_tiny("llama", tmp_path / "mine")
    run = described("llama", pairs, name="moved", base=str(place))
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=stop_after(1))
    shutil.rmtree(place)
    save_tiny("llama", place, seed=1)
    with pytest.raises(BaseModelError, match="the base has changed since the run began"):
        resume(run.folder / "moved")


def test_rows_that_have_changed_are_refused(described, pairs):
    run = described("llama", pairs, name="edited")
    with pytest.raises(Interrupted):
        finetune(run, stop_asked=stop_after(1))
    pairs.unlink()  # the user's own file is not looked at again
    kept = run.folder / "edited" / "data" / "train.jsonl"
    kept.write_text(kept.read_text().replace("spell", "smell"))
    with pytest.raises(StorageError, match=r"train.jsonl: the rows that the run kept have changed"):
        resume(run.folder / "edited")


def test_a_run_is_repeated_from_its_own_file(whole, described, pairs):
    """`run.yaml` is the whole description: what it resolved to gives the same run again."""
    from tunewright.core.configuration import build, read_file
    from tunewright.finetune import Run

    again = finetune(build(Run, {**read_file(whole / "run.yaml"), "name": "again"})).folder
    assert_same(again, whole)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (whole, again)]
    assert manifests[0]["hashes"] == manifests[1]["hashes"]
