"""The same run file under `torchrun`: two processes train what one does, speak with one voice, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SETTINGS = """\
data: {train: pairs.jsonl}
base: llama
training: {max_steps: 20, token_budget: 64, validate_every: 5, learning_rate: 0.01, patience: 99, precision: float32}
evaluation: {written: 3, sampling: {max_new_tokens: 3}}
threads: 1
"""
# The command line with a mishap in the second process, right after its seventh step.
MISHAP = """\
import os, signal, sys
from tunewright.cli import main
from tunewright.run import stages

real = stages.fit

def fit(*given, **named):
    for step in real(*given, **named):
        if step.number == 7 and os.environ["RANK"] == "1":
            WHAT
        yield step

stages.fit = fit
sys.exit(main())
"""


@pytest.fixture
def together(desk: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program, or `-m tunewright`, as two processes under torchrun."""
    (desk / "run.yaml").write_text(SETTINGS)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        around = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run([*launcher, *words], cwd=desk, env=around, capture_output=True, text=True, timeout=120, check=False)

    return call


def mishap(desk: Path, what: str) -> str:
    path = desk / "mishap.py"
    path.write_text(MISHAP.replace("WHAT", textwrap.dedent(what)))
    return str(path)


def steps(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("runs", name, "steps.jsonl").read_text().splitlines()]


def same(one: str, two: str) -> None:
    """Two runs took the same course, but for the order of sums."""
    for own, other in zip(steps(one), steps(two), strict=True):
        assert other["loss"] == pytest.approx(own["loss"], rel=1e-6)
        assert other["validation"] == pytest.approx(own["validation"], rel=1e-6)
        assert (other["trained"], other["tokens"]) == (own["trained"], own["tokens"])


def files(name: str) -> set[str]:
    return {str(path.relative_to(Path("runs", name))) for path in Path("runs", name).rglob("*")}


def test_an_adapter_of_two_processes_is_that_of_one(together: Callable, say: Callable) -> None:
    assert say("tune", "--config", "run.yaml", "--name", "one").code == 0
    done = together("-m", "tunewright", "tune", "--config", "run.yaml", "--name", "two", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "runs/two"  # one object, of the first process
    assert done.stderr.count("Test once") == 1
    assert "placement = replicate: " in done.stderr
    same("one", "two")
    assert files("one") == files("two")
    one, two = (load_file(f"runs/{name}/adapter/adapter_model.safetensors") for name in ("one", "two"))
    assert all(float((one[name] - two[name]).abs().max()) < 1e-5 for name in one)


def test_divided_weights_stopped_by_one_process_and_resumed_by_one(together: Callable, say: Callable, desk: Path) -> None:
    full = ("--config", "run.yaml", "--method", "full", "--name")
    assert say("tune", *full, "one").code == 0
    done = together(mishap(desk, "os.kill(os.getpid(), signal.SIGINT)"), "tune", *full, "two", "--placement", "shard")
    assert done.returncode == 1
    assert done.stderr.count("stopped after step 7, as asked") == 1
    assert len(steps("two")) == 7
    assert say("resume", "runs/two").code == 0
    same("one", "two")
    one, two = (load_file(f"runs/{name}/model/model.safetensors") for name in ("one", "two"))
    assert set(one) == set(two)
    assert all(one[name].shape == two[name].shape for name in one)


def test_an_error_in_one_process_ends_the_others_and_the_run_can_go_on(together: Callable, say: Callable, desk: Path) -> None:
    words = ("tune", "--config", "run.yaml", "--name", "two", "--training.save_every", "5")
    done = together(mishap(desk, "raise KeyError('an accident')"), *words)
    assert done.returncode == 1
    assert "process 1 of 2: KeyError: 'an accident'" in done.stderr
    assert "process 0 of 2 lost another one of the run" in done.stderr
    assert say("resume", "runs/two").code == 0
    assert len(steps("two")) == 20
    assert not [path for path in files("two") if "tmp" in path]
