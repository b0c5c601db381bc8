"""`interpolate` and `combine`, as they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = ["--threads", "1", "--training.max_steps", "3", "--evaluation.written", "2", "--evaluation.sampling.max_new_tokens", "4"]


@pytest.fixture
def tuned(say: Callable) -> str:
    """The folder of a run that changed every weight."""
    found = say("tune", "pairs.jsonl", "--base", "llama", "--name", "run", "--method", "full", *SMALL)
    assert found.code == 0, found.err
    return "runs/run"


def test_a_table_of_several_places_and_files(say: Callable, tuned: str) -> None:
    words = ("interpolate", tuned, "--at", "0", "--at", "0.5", "--at", "1", "--evaluate", "pairs.jsonl", "--written", "2")
    found = say(*words)
    assert found.code == 0, found.err
    for part in ("at", "0.5", "pairs.jsonl", "Loss per token", "95 % interval", "Exact match"):
        assert part in found.out
    data = say(*words, "--evaluate", f"{tuned}/data/test.jsonl", "--metrics", "token_f1", "--json").data
    assert [(one["at"], one["data"]) for one in data["points"]][:2] == [(0.0, "pairs.jsonl"), (0.0, f"{tuned}/data/test.jsonl")]
    assert {one["metric"] for one in data["points"][0]["measures"]} == {"token_f1", "loss"}
    assert data["written"] is None


def test_one_place_is_written_and_answers(say: Callable, tuned: str) -> None:
    found = say("interpolate", tuned, "--at", "0.5", "-o", "half")
    assert found.code == 0, found.err
    assert "model at 0.5" in found.out
    assert Path("half/config.json").is_file()
    assert say("generate", "half", "Turn round: red cat", "--max-new-tokens", "3").code == 0


def test_runs_are_added_and_taken_away(say: Callable, tuned: str) -> None:
    found = say("combine", tuned, tuned, "--weights=1,-0.5", "-o", "sum", "--json")
    assert found.code == 0, found.err
    assert found.data["parts"] == [{"run": tuned, "weight": 1.0}, {"run": tuned, "weight": -0.5}]
    assert Path("sum/model.safetensors").is_file()
    assert "+1 runs/run -1.5 runs/run" in say("combine", tuned, tuned, "--weights=1,-1.5", "-o", "other").out


WRONG = {
    "interpolate llama": ("--at is missing",),
    "interpolate llama --at 1.5 -o out": ("--at: should be between 0", "combine RUN --weights=1.5"),
    "interpolate llama --at half -o out": ("--at: should be a number, got 'half'",),
    "interpolate llama --at 0.5": ("there is nothing to do with it", "--evaluate FILE"),
    "interpolate llama --at 0.5 --at 1 -o out": ("one model is written, and 2 places are given",),
    "interpolate llama --at 0.5 -o bert": ("bert: exists already",),
    "interpolate llama --at 0.5 -o out": ("llama: does not say which base it was tuned from",),
    "interpolate llama --at 0.5 --evaluate pears.jsonl": ("pears.jsonl",),
    "interpolate llama --at 0.5 --evaluate pairs.jsonl --metrics acuracy": ("--metrics: ", "Did you mean 'accuracy'?"),
    "interpolate nowhere-at-all --at 0.5 -o out": ("there is no base or folder 'nowhere-at-all'",),
    "combine llama --weights=1,x -o out": ("--weights: 'x' is not a number",),
    "combine llama --weights=1,2 -o out": ("--weights: gives 2 for 1 runs",),
    "combine llama --weights=1": ("--out is missing",),
    "combine llama --weights=1 -o bert": ("bert: exists already",),
    "combine llama --weights=1 -o out": ("llama: does not say which base it was tuned from",),
    "combine llama --weights=1 -o out --rank 2": ("--rank: is for --adapter",),
    "combine llama --weights=1 -o out --adapter --rank 0": ("--rank: should be 1 or more",),
    "combine llama --weights=1 -o out --adapter": ("llama: is no LoRA",),
    "combine nowhere-at-all --weights=1 -o out": ("there is no base or folder 'nowhere-at-all'",),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_done_is_refused_by_name(say: Callable, words: str) -> None:
    found = say(*words.split())
    assert found.code == 2, found.out
    for part in WRONG[words]:
        assert part in found.err
    assert not Path("out").exists()
