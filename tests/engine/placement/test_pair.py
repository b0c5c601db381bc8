"""Two real processes over gloo: what they agree on, and that they train what one process trains."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.models.loading import load_folder
from tunewright.testing.toy import toy_loss
from tunewright.training import checkpoints
from tunewright.training.around import Best
from tunewright.training.loop import fit

PROGRAM = Path(__file__).with_name("pair.py")
spec = importlib.util.spec_from_file_location("placement_pair", PROGRAM)
assert spec is not None
assert spec.loader is not None
pair = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pair)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both processes have left what they found."""
    folder = tmp_path_factory.mktemp("pair")
    around = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder)],
            env=around | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=180)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> list[dict[str, Any]]:
    """What each of the two processes found."""
    return [json.loads((place / f"found-{rank}.json").read_text()) for rank in range(2)]


def test_the_first_process_tells_and_all_hear_of_all(found: list[dict[str, Any]]):
    for one in found:
        said = one["agreement"]
        assert said["tell"] == {"from": 0, "text": ""}
        assert said["gather"] == [["", 0], ["xxx", 1]]
        assert said["any"] == [False, True, True]
        assert said["sum"] == [1.2000000000000002, 2.0**54]
        assert said["nan"]


def test_gradients_are_sums_and_one_that_nobody_has_stays_away(found: list[dict[str, Any]]):
    for one in found:
        assert one["gradients"] == [[3.0] * 4, [7.0] * 4, None]


@pytest.mark.parametrize(("family", "method"), [("llama", "lora"), ("llama", "full"), ("bert", "full"), ("t5", "full")])
def test_two_processes_train_what_one_does(found: list[dict[str, Any]], family: str, method: str):
    first, second = (one[f"{family} {method}"] for one in found)
    assert first == second
    torch.set_num_threads(1)
    alone = pair.trained(family, method == "full", None)
    assert len(first) == pair.STEPS
    assert len({loss for loss, *_ in first}) == pair.STEPS
    for own, (loss, norm, count, tokens) in zip(alone, first, strict=True):
        assert loss == pytest.approx(own[0], rel=2e-6)
        assert norm == pytest.approx(own[1], rel=2e-5)
        assert (count, tokens) == (own[2], own[3])


def test_one_of_the_steps_leaves_a_process_without_work():
    _, _, plan, _ = pair.bench("llama", False, None, rows=9)
    assert min(len(plan.micro_batches(step)) for step in range(plan.per_epoch)) == 1


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_loss_that_is_not_finite_on_one_ends_all_in_the_same_way(found: list[dict[str, Any]], method: str):
    first, second = (one[f"diverged {method}"] for one in found)
    assert first == second
    assert first.startswith("step 1 of 8: the loss is nan, not a finite number. Lower the learning rate")


def test_every_process_holds_a_part(found: list[dict[str, Any]]):
    engine, _, _, _ = pair.bench("llama", True, None)
    first, second = (one["stored"]["divided"] for one in found)
    for name, parameter in engine.parameters.items():
        assert first[name][0] + second[name][0] == parameter.shape[0]
        assert max(first[name][0], second[name][0]) < parameter.shape[0]


def test_divided_weights_can_be_the_base_for_a_while(found: list[dict[str, Any]]):
    for one in found:
        assert one["stored"]["disabled"]
        assert one["stored"]["back"]
        assert one["stored"]["not finite"]


def test_from_a_checkpoint_the_same_number_of_processes_goes_on_exactly(found: list[dict[str, Any]]):
    for one in found:
        assert len(one["stored"]["after"]) == pair.STEPS - 3
        assert one["stored"]["again"] == one["stored"]["after"]


def test_from_a_checkpoint_one_process_goes_on(place: Path, found: list[dict[str, Any]]):
    engine, _, plan, _ = pair.bench("llama", True, None)
    best = Best("loss", False)
    restored = checkpoints.restore(place / "checkpoints", engine, best)
    assert restored.step == best.step == 3
    assert set(best.parameters) == set(engine.parameters)
    losses = [step.loss for step in fit(engine, toy_loss, plan, pair.PACE, restored.step)]
    assert losses == pytest.approx(found[0]["stored"]["after"], rel=2e-6)


def test_what_is_saved_is_a_whole_model(place: Path, found: list[dict[str, Any]]):
    engine, _, plan, _ = pair.bench("llama", True, None)
    saved = dict(load_folder(place / "model").network.named_parameters())
    engine.put_back(saved)
    scores = engine.score(plan.trees[:2])[0].tolist()
    assert scores == pytest.approx(found[0]["stored"]["tuned"], rel=1e-5)
