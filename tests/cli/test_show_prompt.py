"""The verb `show prompt`, and soft prompts from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = ["--threads", "1", "--training.max_steps", "3", "--evaluation.written", "2", "--evaluation.sampling.max_new_tokens", "4"]


@pytest.fixture
def tuned(say: Callable) -> Callable[..., str]:
    """Make a run and give its folder."""

    def make(data: str, base: str, *words: str) -> str:
        found = say("tune", data, "--base", base, "--name", "run", *SMALL, *words)
        assert found.code == 0, found.err
        return "runs/run"

    return make


def test_words_near_a_soft_prompt_and_its_clusters(say: Callable, tuned: Callable) -> None:
    slow = ["--training.learning_rate", "1e-3"]
    run = tuned("pairs.jsonl", "llama", "--method", "prompt_tuning", "--method.virtual_tokens", "6", *slow)
    shown = say("show", "prompt", run)
    assert shown.code == 0
    for part in ("nearest words", "silhouette", "p = ", "random directions"):
        assert part in shown.out
    data = say("show", "prompt", run, "--words", "3", "--json").data
    tokens = data["virtual_tokens"]
    assert len(tokens) == 6
    assert all(len(token["nearest"]) == 3 for token in tokens)
    # Three steps lead nowhere far from the words that the tokens began as.
    assert all(token["nearest"][0]["cosine"] > 0.9 for token in tokens)
    assert data["clusters"]["count"] == len({token["cluster"] for token in tokens})
    assert 0 < data["clusters"]["p"] <= 1
    assert data == say("show", "prompt", run, "--words", "3", "--json").data
    refused = say("merge", run, "out")
    assert refused.code == 2
    assert "a soft prompt is no weight" in refused.err


def test_a_stack_in_a_run_file_shows_its_prompt(say: Callable, tuned: Callable) -> None:
    parts = "method: {name: stack, parts: [{name: p_tuning, virtual_tokens: 3}, {name: lora, rank: 2}]}\n"
    Path("run.yaml").write_text(f"data: {{train: labels.jsonl}}\nbase: bert\n{parts}", encoding="utf-8")
    found = say("tune", "--config", "run.yaml", "--name", "run", *SMALL)
    assert found.code == 0, found.err
    data = say("show", "prompt", "runs/run", "--json").data
    assert len(data["virtual_tokens"]) == 3
    assert data["clusters"] is None
    assert "Too few virtual tokens" in say("show", "prompt", "runs/run").out
    assert say("evaluate", "runs/run", "labels.jsonl", "--json").code == 0


def test_a_prefix_has_no_place_in_the_vocabulary(say: Callable, tuned: Callable) -> None:
    run = tuned("pairs.jsonl", "llama", "--method", "prefix_tuning", "--method.virtual_tokens", "4")
    found = say("show", "prompt", run)
    assert found.code == 0
    assert "no place in the vocabulary" in " ".join(found.out.split())
    assert "no place in the vocabulary" in say("show", "prompt", run, "--json").data["reason"]


def test_what_has_no_virtual_tokens_is_refused(say: Callable) -> None:
    found = say("show", "prompt", "llama")
    assert found.code == 2
    assert "llama: has no virtual tokens" in found.err
    assert "should be a whole number from 1, got 0" in say("show", "prompt", "llama", "--words", "0").err


def test_virtual_tokens_that_leave_no_room_are_refused_before_the_base_is_tuned(say: Callable) -> None:
    found = say(
        "tune", "pairs.jsonl", "--base", "llama", "--method", "prompt_tuning", "--rendering.max_tokens", "500", "--name", "a"
    )
    assert found.code == 2
    assert "max_tokens is 500, but the base reads 492 tokens" in found.err
