"""`label`, as it is called, and a tuning of what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

RULES = """
functions:
  nice: {keywords: [lovely], label: pos}
  red: {keywords: [red], label: pos}
  bad: {keywords: [awful], label: neg}
"""
SMALL = ["--threads", "1", "--training.max_steps", "3"]


@pytest.fixture
def rules(desk: Path) -> str:
    Path("rules.yaml").write_text(RULES, encoding="utf-8")
    return "rules.yaml"


def test_from_rules_to_a_tuned_classifier(say: Callable, rules: str) -> None:
    found = say("label", "labels.jsonl", "--functions", rules, "-o", "soft.jsonl")
    assert found.code == 0, found.err
    for part in ("nice", "believed", "coverage", "conflicts", "majority vote", "label model", "next  tunewright tune soft.jsonl"):
        assert part in found.out
    checked = say("check", "soft.jsonl", "--json").data
    assert checked["shape"] == "soft_label"
    tuned = say("tune", "soft.jsonl", "--base", "bert", "--name", "run", *SMALL, "--json")
    assert tuned.code == 0, tuned.err
    assert json.loads(Path("runs/run/data/train.jsonl").read_text(encoding="utf-8").splitlines()[0])["distribution"]


def test_as_data(say: Callable, rules: str) -> None:
    Path("more.py").write_text(
        "print('loud')\ndef tree(row):\n    return 'neg' if 'tree' in row.text else None\n", encoding="utf-8"
    )
    words = ("--functions", rules, "--functions", "more.py", "--gold", "labels.jsonl")
    data = say("label", "labels.jsonl", *words, "-o", "soft.jsonl", "--json").data
    assert [one["name"] for one in data["functions"]] == ["nice", "red", "bad", "tree"]
    assert data["gold"]["covered"] == data["written"]


WRONG = {
    "label labels.jsonl -o out.jsonl": ("functions is missing",),
    "label labels.jsonl --functions rules.yaml": ("out", "is missing"),
    "label labels.jsonl --functions none.yaml -o out.jsonl": ("none.yaml: there is no such file of labelling functions",),
    "label nothing.jsonl --functions rules.yaml -o out.jsonl": ("nothing.jsonl",),
    "label labels.jsonl --functions rules.yaml -o out.jsonl --glod x": ("--glod", "Did you mean '--gold'"),
    "label labels.jsonl --functions rules.yaml -o out.jsonl --columns [a]": ("--columns: should be columns and fields",),
}


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize("words", WRONG)
def test_wrong_requests_are_named(say: Callable, words: str) -> None:
    found = say(*words.split())
    assert found.code == 2
    for part in WRONG[words]:
        assert part in found.err
    assert not Path("out.jsonl").exists()
