"""A policy through a whole run: what is watched, measured and reported, how it resumes, and what stays when things go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.core.errors import ConfigurationError, DataError, GraderError, Interrupted
from tunewright.evaluation.opening import open_model
from tunewright.finetune import Run, finetune, resume

from .conftest import weights

HAS_E = {"name": "string_check", "operation": "contains", "reference": "e"}
SHORT = {"grader": HAS_E, "group": 4, "max_new_tokens": 3, "validation": "sampled"}


@pytest.fixture
def policy(described: Callable[..., Run], pairs: Path) -> Callable[..., Run]:
    """A run of a policy: `policy("grpo", name="one", updates=2)`."""

    def make(objective: str, *, name: str = "run", training: dict[str, Any] | None = None, **settings: Any) -> Run:
        described_as = {"name": objective, **SHORT, **settings}
        evaluation = {"metrics": [], "sampling": {"max_new_tokens": 4}}
        return described("llama", pairs, name=name, objective=described_as, training=training or {}, evaluation=evaluation)

    return make


def steps_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["grpo", "rloo", "ppo"])
def test_a_whole_run_reports_the_mean_reward(policy: Callable[..., Run], name: str) -> None:
    folder, report = finetune(policy(name, name=name))
    (measure,) = report.measures
    assert (measure.metric, measure.title, measure.higher_is_better) == ("reward", "Mean reward", True)
    assert measure.base is not None
    assert measure.difference is not None
    assert 0 <= measure.tuned.low <= measure.tuned.value <= measure.tuned.high <= 1
    assert report.settings.values["training"]["monitor"] == "reward"
    steps = steps_of(folder)
    assert {"reward", "kl", "length", "repetition", "constant_groups"} <= set(steps[0]["facts"])
    assert [set(step["validation"]) for step in steps if step["validation"]] == [{"reward"}] * len(
        report.curves.validation[0].steps[1:]
    )
    titles = [series.title for series in report.curves.measured]
    assert titles == ["Mean reward of drawn answers", "KL to the base (nats a token)", "Length of answers (tokens)"]
    opened = open_model(str(folder))  # the critic of ppo is not part of what was tuned
    assert opened.engine.head is None
    lines = [json.loads(line) for line in (folder / "predictions" / "test.jsonl").read_text().splitlines()]
    assert {"reward"} == set(lines[0]["tuned_scores"]) == set(lines[0]["base_scores"])


@pytest.mark.parametrize(("name", "steps"), [("grpo", 3), ("ppo", 3), ("ppo", 4)])
def test_a_resumed_run_has_the_same_bits(policy: Callable[..., Run], name: str, steps: int) -> None:
    whole = finetune(policy(name, name="whole", updates=2)).folder
    seen = iter(range(1, 100))
    with pytest.raises(Interrupted):
        finetune(policy(name, name="stopped", updates=2), stop_asked=lambda: next(seen) >= steps)
    stopped = whole.parent / "stopped"
    resume(stopped)
    assert all(torch.equal(one, weights(stopped)[tensor]) for tensor, one in weights(whole).items())
    assert [step["facts"] for step in steps_of(stopped)] == [step["facts"] for step in steps_of(whole)]


def test_a_grader_that_fails_leaves_a_run_that_can_be_resumed(policy: Callable[..., Run], tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    source = f"import os\n\ndef grade(sample, item):\n    return 'x' if os.path.exists({str(flag)!r}) else 1\n"
    run = policy("grpo", name="failing", grader={"name": "python", "source": source}, training={"validate_every": 6})
    seen = []

    def broken_after_two() -> bool:
        seen.append(1)
        if len(seen) == 2:
            flag.touch()
        return False

    with pytest.raises(GraderError, match=r"gave 'x' \(str\).*Steps up to 2 are kept; go on with: tunewright resume"):
        finetune(run, stop_asked=broken_after_two)
    flag.unlink()
    folder = run.folder / "failing"
    resume(folder)
    assert [step["number"] for step in steps_of(folder)] == [1, 2, 3, 4, 5, 6]


def test_an_alarm_ends_the_run_and_stands_in_the_report(policy: Callable[..., Run]) -> None:
    folder, report = finetune(policy("grpo", name="alarm", kl_limit=1e-9, beta=0.0, training={"learning_rate": 0.05}))
    assert any("Stopped at step" in warning and "kl_limit" in warning for warning in report.warnings)
    assert len(steps_of(folder)) < 6


def test_that_no_answer_was_ever_right_stands_in_the_report(policy: Callable[..., Run]) -> None:
    never = {"name": "string_check", "operation": "equals", "reference": "no answer is so long"}
    _, report = finetune(policy("grpo", name="never", grader=never, training={"max_steps": 2}))
    (warning,) = [one for one in report.warnings if "graded alike" in one]
    assert warning.startswith("100% of the prompts had answers that were all graded alike (mean reward 0) by step 2, and nothing")


@pytest.mark.parametrize(
    ("objective", "monitor", "said"),
    [
        ("grpo", "loss", r"training\.monitor: 'grpo' measures no loss on validation rows.*Monitor `reward`"),
        ("sft", "reward", r"training\.monitor: 'sft' measures no reward on validation rows.*Monitor `loss`"),
    ],
)
def test_what_is_not_measured_cannot_be_watched(
    described: Callable[..., Run], pairs: Path, objective: str, monitor: str, said: str
) -> None:
    named = {"name": objective} | (SHORT if objective == "grpo" else {})
    run = described("llama", pairs, objective=named, training={"monitor": monitor})
    with pytest.raises(ConfigurationError, match=said):
        finetune(run)


def test_rows_of_labels_ask_for_no_answer(described: Callable[..., Run], labelled: Path) -> None:
    with pytest.raises(DataError, match="rows of shape 'text_label' cannot serve this objective"):
        finetune(described("llama", labelled, objective={"name": "grpo", **SHORT}))
