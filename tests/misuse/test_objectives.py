"""Data and graders that an objective cannot learn from: each is said in words, counted, and the run keeps what it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RUN = ("--base", "llama", "--threads", "1", "--training.max_steps", "2")
SMALL = ("--objective.group", "2", "--objective.max_new_tokens", "2")


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def compared(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"prompt {number} red", "chosen": f"good {number}", "rejected": f"bad {number}"} for number in range(count)]


def ranked(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"prompt {n} red", "answers": [f"best {n}", f"mid {n}", f"bad {n}"], **columns} for n in range(count)]


# ---- pairs and rankings -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
def test_a_few_pairs_with_equal_sides_are_dropped_and_counted(say: Callable) -> None:
    rows = compared(60)
    rows[7]["rejected"] = rows[7]["chosen"]
    rows[9]["rejected"] = f" {rows[9]['chosen']}\n"
    found = say("tune", write("even.jsonl", rows), "--objective", "dpo", "--name", "even", *RUN)
    assert found.code == 0, found.err
    assert "! Dropped rows: 2 same answers. The first: even.jsonl:8" in found.err
    assert json.loads(Path("runs/even/report.json").read_text())["data"]["dropped"][0]["count"] == 2


def _all_equal() -> list[dict[str, Any]]:
    return [row | {"rejected": row["chosen"]} for row in compared(20)]


REFUSED: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "equal sides": (_all_equal(), ("20 x same_answers", "rows.jsonl:1: the chosen and the rejected answer are the same (20 rows)")),
    "nulls": ([row | {"chosen": None} for row in compared(20)], ("20 x null", "'chosen' is null (20 rows)")),
    "one answer": (ranked(20, answers=["alone"]), ("20 x one_answer", "at least two can be compared (20 rows)")),
    "equal answers": (ranked(20, answers=["a", "a", "b"]), ("answers[0] and answers[1] are the same answer",)),
    "tied ranks": (ranked(20, ranks=[1, 1, 2]), ("20 x tie", "'ranks' gives two answers the rank 1")),
    "equal scores": (ranked(20, scores=[2, 2, 2]), ("20 x tie", "'scores' gives every answer 2: none is preferred")),
    "uneven": (ranked(20, scores=[2, 1]), ("20 x uneven", "holds 3 answers and 'scores' 2 numbers")),
    "no chosen": ([{"prompt": "p", "rejected": "r"}] * 20, ("the columns fit no known shape; found: prompt, rejected",)),
    "other names": (
        [{"prompt": "p", "preferred": "a", "dispreferred": "b"}] * 20,
        ("Perhaps this is meant: `--data.columns '{preferred: chosen, dispreferred: rejected}'`",),
    ),
}


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("verb", ["check", "tune"])
@pytest.mark.parametrize("kind", REFUSED)
def test_comparisons_that_compare_nothing_are_refused(say: Callable, kind: str, verb: str) -> None:
    rows, parts = REFUSED[kind]
    found = say(verb, write("rows.jsonl", rows), "--objective", "reward", "--base", "llama")
    assert found.code == 2
    for part in parts:
        assert part in found.err
    # One reason is said once, however many rows have it.
    assert max(found.err.count(part) for part in parts) == 1
    assert not any(Path().glob("runs/*"))


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(("rows", "objective"), [("pairs.jsonl", "dpo"), ("pairs.jsonl", "reward"), ("labels.jsonl", "grpo")])
def test_rows_of_another_kind_are_refused_before_a_base_is_loaded(say: Callable, rows: str, objective: str) -> None:
    extra = ("--objective.grader", "number") if objective == "grpo" else ()
    found = say("tune", rows, "--objective", objective, *extra, "--base", "llama")
    assert found.code == 2
    assert "objective: rows of shape" in found.err
    assert "cannot serve this objective. Allowed: " in found.err


# ---- prompts longer than the context ------------------------------------------------------------------------------------------


def long_rows(kind: str) -> list[dict[str, Any]]:
    rows = compared(20) if kind in ("dpo", "reward") else [{"prompt": f"p {n}", "completion": f"{n}"} for n in range(20)]
    for row in rows:
        row["prompt"] = f"{row['prompt']} " * 200  # tiny bases read 512 tokens
    return rows


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("objective", ["sft", "dpo", "reward", "grpo"])
def test_prompts_longer_than_the_context_are_counted(say: Callable, objective: str) -> None:
    extra = ("--objective.grader", "number") if objective == "grpo" else ()
    words = ("check", write("long.jsonl", long_rows(objective)), "--objective", objective, *extra, "--base", "llama")
    found = say(*words)
    assert found.code == 0, found.err
    assert "16 rows truncated (0 of them lost a part of the answer)" in found.out
    # Whoever wants none to be cut says so, and is heard by every objective.
    refused = say(*words, "--rendering.truncate", "refuse")
    assert refused.code == 2
    assert "truncate" in refused.err


@pytest.mark.usefixtures("desk")
def test_the_report_counts_pairs_whose_prompt_was_cut(say: Callable) -> None:
    found = say("tune", write("long.jsonl", long_rows("dpo")), "--objective", "dpo", "--name", "long", *RUN)
    assert found.code == 0, found.err
    assert json.loads(Path("runs/long/report.json").read_text())["targets"]["truncated_rows"] == 16
    assert "16 rows were cut short" in Path("runs/long/report.html").read_text()


# ---- graders ------------------------------------------------------------------------------------------------------------------

GRADERS = {
    "raise ValueError('not this')": "raised ValueError: not this",
    "return float('nan')": "gave nan, which is no finite number",
    "return 'very good'": "gave 'very good' (str), which is no number",
    "while True: pass": "took longer than 0.3 s",
}


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("body", GRADERS)
def test_a_grader_that_fails_is_named_and_the_run_goes_on_once_it_is_mended(say: Callable, body: str) -> None:
    Path("grade.py").write_text(f"def grade(sample, item):\n    {body}\n")
    grader = "{name: python, file: grade.py, time_limit: 0.3}"
    words = ("--objective", "grpo", "--objective.grader", grader, *SMALL, *RUN)
    found = say("tune", "pairs.jsonl", "--name", "graded", *words)
    assert found.code == 1
    assert f"the grader 'python' {GRADERS[body]}" in found.err
    assert "a run keeps its own copy in run.yaml" in found.err
    assert "`on_error: zero`" in found.err
    if body.startswith("raise"):
        kept = Path("runs/graded/run.yaml")
        kept.write_text(kept.read_text().replace("raise ValueError('not this')", "return 1"))
        resumed = say("resume", "runs/graded")
        assert resumed.code == 0, resumed.err


@pytest.mark.usefixtures("desk")
def test_a_reward_that_is_always_the_same_is_said(say: Callable) -> None:
    Path("grade.py").write_text("def grade(sample, item):\n    return 0.5\n")
    words = ("--objective", "grpo", "--objective.grader", "{name: python, file: grade.py}", *SMALL, *RUN)
    found = say("tune", "pairs.jsonl", "--name", "flat", *words)
    assert found.code == 0, found.err
    assert "graded alike" in found.err
    warnings = json.loads(Path("runs/flat/report.json").read_text())["warnings"]
    assert any("100% of the prompts had answers that were all graded alike (mean reward 0.5)" in one for one in warnings)
    facts = json.loads(Path("runs/flat/steps.jsonl").read_text().splitlines()[0])["facts"]
    assert facts["constant_groups"] == 1


# ---- mixtures and rules -------------------------------------------------------------------------------------------------------

MIXTURES = {
    "[{name: one, train: pairs.jsonl}, {name: two, train: empty.jsonl}]": ("empty.jsonl: is empty (0 bytes) (the part 'two')",),
    "[{name: one, train: pairs.jsonl}, {name: two, train: nulls.jsonl}]": ("20 x null", "(the part 'two')"),
    "[{name: one, train: pairs.jsonl}, {name: two, train: nowhere.jsonl}]": ("there is no such file (the part 'two')",),
    "[]": ("data.mixture.parts: should hold at least 1, got []",),
}


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_mixture_with_an_empty_part_is_refused_by_its_name(say: Callable, mixture: str) -> None:
    Path("empty.jsonl").write_text("")
    write("nulls.jsonl", [{"prompt": None, "completion": None}] * 20)
    Path("run.yaml").write_text(f"data: {{mixture: {mixture}}}\nbase: llama\n")
    found = say("tune", "--config", "run.yaml")
    assert found.code == 2
    for part in MIXTURES[mixture]:
        assert part in found.err


@pytest.mark.usefixtures("desk")
def test_rules_that_never_fire_write_nothing(say: Callable) -> None:
    Path("rules.yaml").write_text("functions:\n  a: {keywords: [zebra], label: pos}\n  b: {patterns: ['qq+'], label: neg}\n")
    found = say("label", "labels.jsonl", "--functions", "rules.yaml", "-o", "out.jsonl")
    assert found.code == 2
    assert "labels.jsonl: none of the functions (a, b) votes on any row. Look at the patterns and keywords" in found.err
    assert not Path("out.jsonl").exists()
