"""A run that is stopped, or killed without a word, and resumed: the weights are those of one that never was, byte for byte."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunewright.cli import main
from tunewright.cli.signals import stop_when_asked
from tunewright.cli.terminal import narrator

STEPS = 240
TUNE = [
    *("tune", "pairs.jsonl", "--base", "llama", "--threads", "1", "--training.max_steps", str(STEPS), "--method.dropout", "0.1"),
    *("--training.validate_every", "60", "--training.save_every", "15", "--training.patience", "1000", "--seed", "5"),
    *("--evaluation.written", "1", "--evaluation.sampling.max_new_tokens", "4"),
]
SECONDS = 90.0


@pytest.fixture(scope="module")
def whole(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The adapter of the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    words = [str(bases / word) if word in ("pairs.jsonl", "llama") else word for word in TUNE]
    assert main([*words, "--folder", str(folder), "--name", "whole"]) == 0
    return (folder / "whole" / "adapter" / "adapter_model.safetensors").read_bytes()


def weights(name: str) -> bytes:
    return Path("runs", name, "adapter", "adapter_model.safetensors").read_bytes()


def begin(start: Callable, name: str, steps: int) -> subprocess.Popen[str]:
    """Start the run as a process and wait until it has done so many steps."""
    process = start(*TUNE, "--name", name)
    log = Path("runs", name, "steps.jsonl")
    until = time.monotonic() + SECONDS
    while not log.exists() or log.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    return process


def test_stopped_by_sigterm_and_resumed_is_the_same_as_never_stopped(start: Callable, shell: Callable, whole: bytes) -> None:
    process = begin(start, "stopped", 40)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "Stopping after this step, with a checkpoint." in err
    assert "as asked" in err
    assert "Continue with: tunewright resume runs/stopped" in err
    assert "Traceback" not in err
    done = Path("runs/stopped/steps.jsonl").read_text().count("\n")
    assert done < STEPS
    assert Path(f"runs/stopped/checkpoints/step-{done:07d}").is_dir()
    resumed = shell("resume", "runs/stopped")
    assert resumed.code == 0, resumed.err
    assert weights("stopped") == whole
    assert Path("runs/stopped/steps.jsonl").read_text().count("\n") == STEPS


def test_killed_without_a_word_and_resumed_is_the_same_as_never_killed(start: Callable, shell: Callable, whole: bytes) -> None:
    process = begin(start, "killed", 100)
    process.kill()
    process.communicate(timeout=SECONDS)
    assert not Path("runs/killed/report.json").exists()
    resumed = shell("resume", "runs/killed")
    assert resumed.code == 0, resumed.err
    assert weights("killed") == whole


def test_a_run_that_works_is_not_worked_on_twice(start: Callable, say: Callable) -> None:
    process = begin(start, "busy", 5)
    try:
        found = say("resume", "runs/busy")
        assert found.code == 2
        assert "another process works in this run" in found.err
    finally:
        process.kill()
        process.communicate(timeout=SECONDS)


def test_a_second_signal_ends_it_at_once(desk: Path) -> None:
    code = (
        "import os, signal, time\n"
        "from tunewright.cli.signals import stop_when_asked\n"
        "from tunewright.cli.terminal import narrator\n"
        "with stop_when_asked(narrator()) as asked:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert asked()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "Stopped at once." in done.stderr


def test_afterwards_signals_mean_what_they_did() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_when_asked(narrator()) as asked:
        assert not asked()
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_name_is_free_again_when_a_run_was_killed_before_it_began(say: Callable, desk: Path) -> None:
    (desk / "runs" / "early").mkdir(parents=True)
    (desk / "runs" / "early" / ".lock").touch()
    found = say("tune", "pairs.jsonl", "--base", "llama", "--name", "early", "--method.targets", "nowhere", "--threads", "1")
    assert found.code == 2
    assert "nowhere" in found.err
    assert not (desk / "runs" / "early").exists()
