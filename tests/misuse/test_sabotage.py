"""Requests that are right in form and would ruin the result: each is stopped, or reported by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunewright.engine.batch import Batch
from tunewright.engine.engine import Engine
from tunewright.engine.loss import Loss
from tunewright.objectives.sft import SFT

RUN = ["tune", "pairs.jsonl", "--base", "llama", "--threads", "1"]
WILD = ["--training.learning_rate", "10", "--training.clip", "null", "--training.schedule", "constant"]
SMALL = ["--evaluation.written", "2", "--evaluation.sampling.max_new_tokens", "4"]


@pytest.fixture
def beyond_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second optimizer step on, the loss that is trained on leaves the range of floats."""
    plain = SFT.loss

    def beyond(self: SFT, engine: Engine, batch: Batch) -> Loss:
        total, count = plain(self, engine, batch)
        updated = any(bool(one.abs().sum() > 0) for name, one in engine.parameters.items() if "lora_B" in name)
        return Loss(total * math.inf if updated and torch.is_grad_enabled() else total, count)

    monkeypatch.setattr(SFT, "loss", beyond)


@pytest.mark.parametrize("truncate", ["prompt", "answer"])
def test_answers_that_are_all_cut_away_stop_the_run(say: Callable, truncate: str) -> None:
    found = say(*RUN, "--rendering.max_tokens", "4", "--rendering.truncate", truncate)
    assert found.code == 2
    assert "every answer was cut away: max_tokens is 4" in found.err
    assert not list(Path("runs").iterdir())


def test_answers_that_are_empty_are_dropped_by_name(say: Callable, desk: Path) -> None:
    lines = (desk / "pairs.jsonl").read_text().splitlines()
    half = [line.split('"completion"')[0] + '"completion": ""}' if number % 2 else line for number, line in enumerate(lines)]
    (desk / "half.jsonl").write_text("\n".join(half) + "\n")
    found = say("tune", "half.jsonl", *RUN[2:], *SMALL, "--training.max_steps", "2", "--name", "half")
    assert found.code == 0
    assert "30 rows dropped" in found.err
    assert "! Dropped rows: 30 empty answers. The first: half.jsonl:2" in found.err
    warnings = json.loads(Path("runs/half/report.json").read_text())["warnings"]
    assert warnings[0] == "30 of 60 rows were dropped and not learned from: 30 empty answers."
    checked = say("check", "half.jsonl", "--json").data
    assert checked["dropped"] == {"empty_answers": 30}


@pytest.mark.usefixtures("beyond_floats")
def test_a_loss_that_diverges_ends_the_run_and_keeps_no_weights(say: Callable) -> None:
    found = say(*RUN, *SMALL, *WILD, "--name", "wild")
    assert found.code == 1
    assert "not a finite number" in found.err
    assert "Lower the learning rate" in found.err
    assert not Path("runs/wild/adapter").exists()
    assert not Path("runs/wild/report.json").exists()


@pytest.mark.usefixtures("beyond_floats")
def test_a_base_that_changed_is_not_resumed_upon(say: Callable, desk: Path) -> None:
    from tunewright.testing.tiny import save_tiny

    save_tiny("llama", desk / "own")
    assert say("tune", "pairs.jsonl", "--base", "own", "--threads", "1", *SMALL, *WILD, "--name", "gone").code == 1
    save_tiny("llama", desk / "own", seed=1)
    found = say("resume", "runs/gone")
    assert found.code == 2
    assert "the base has changed since the run began" in found.err
