"""A grader on the command line: a name, or a mapping as in a run file."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize("grader", ["string_check", "{name: string_check, operation: contains, reference: red}"])
def test_a_grader_is_a_name_or_a_mapping(say: Callable, grader: str) -> None:
    flags = ["--objective.grader", grader, "--objective.max_new_tokens", "4", "--training.max_steps", "1", "--threads", "1"]
    said = say("tune", "pairs.jsonl", "--base", "llama", "--objective", "rloo", *flags, "--training.precision", "float32", "--json")
    assert said.code == 0
    assert "mean reward" in said.data["verdict"]["headline"]


def test_a_misspelt_grader_is_named(say: Callable) -> None:
    said = say("tune", "pairs.jsonl", "--base", "llama", "--objective", "grpo", "--objective.grader", "strin_check")
    assert said.code == 2
    assert "there is no grader 'strin_check'" in said.err
    assert "Did you mean 'string_check'?" in said.err
