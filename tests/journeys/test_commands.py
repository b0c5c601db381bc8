"""The commands of the README, run as a user runs them: as processes of their own, on a tiny base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

TUNE = ["tune", "pairs.jsonl", "--base", "llama", "--epochs", "2", "--threads", "1", "--evaluation.written", "2", "--name", "mine"]


def values(found: dict[str, object]) -> dict[str, float]:
    return {one["metric"]: one["tuned"]["value"] for one in found["measures"]}  # type: ignore[attr-defined]


def test_tune_evaluate_generate_merge_and_evaluate_what_was_merged(shell: Callable, desk: Path) -> None:
    tuned = shell(*TUNE)
    assert tuned.code == 0, tuned.err
    assert "runs/mine/report.html" in tuned.out
    before = shell("evaluate", "runs/mine", "pairs.jsonl", "--written", "2", "--json")
    assert before.code == 0, before.err
    answer = shell("generate", "runs/mine", "-", "--max-new-tokens", "4", "--json", stdin="Turn round: red cat dog\n")
    assert len(answer.data["answers"]) == 1
    merged = shell("merge", "runs/mine", "whole")
    assert merged.code == 0, merged.err
    assert "merged = attached within" in merged.err
    after = values(shell("evaluate", "whole", "pairs.jsonl", "--written", "2", "--json").data)
    assert abs(after["loss"] - values(before.data)["loss"]) < 1e-4
    assert {item.name for item in (desk / "runs" / "mine").iterdir() if not item.name.startswith(".")} == {
        "run.yaml",
        "manifest.json",
        "data",
        "steps.jsonl",
        "checkpoints",
        "adapter",
        "predictions",
        "report.json",
        "report.html",
        "README.md",
    }
    assert json.loads((desk / "runs" / "mine" / "report.json").read_text())["name"] == "mine"
