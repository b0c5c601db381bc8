"""Every policy objective learns what only a grader says, on the base that ships, without leaving it: the recipe in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.core.configuration import build, read_file
from tunewright.finetune import Run, finetune

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("name", "steps"), [("grpo", 12), ("rloo", 12), ("ppo", 24)])
def test_a_verifiable_reward_rises_from_below_three_tenths_to_above_eight(name: str, steps: int, tmp_path: Path) -> None:
    described = read_file(ROOT / "recipes/rewards.yaml")
    described["data"] |= {"train": str(ROOT / described["data"]["train"]), "test_share": 0.06, "validation_share": 0.03}
    described["objective"]["name"] = name
    described["training"] |= {"max_steps": steps, "batch_size": 10, "precision": "float32", "validate_every": 12}
    folder, report = finetune(build(Run, described | {"folder": str(tmp_path), "threads": 1, "name": name}))
    (reward,) = report.measures
    assert reward.base is not None
    assert reward.base.value < 0.3
    assert reward.tuned.value > 0.8
    assert report.verdict.outcome == "better"
    apart = [json.loads(line)["facts"]["kl"] for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert max(apart) < described["objective"]["kl_limit"]
    assert not any("kl_limit" in warning for warning in report.warnings)
