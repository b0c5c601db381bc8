"""Answers kept row by row, and the rows that the report shows."""

import json
from pathlib import Path

import pytest

from tunewright.data.rows import LabelRow, PromptRow, Row
from tunewright.evaluation import predictions
from tunewright.evaluation.task import Answer

ROWS: list[Row] = [PromptRow(prompt=f"ask {number}", completion=f"say {number}", where=f"a.jsonl:{number}") for number in range(20)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_a_line_holds_what_a_reader_needs_to_check_it(tmp_path: Path):
    path = tmp_path / "predictions" / "test.jsonl"
    predictions.write(path, ROWS[:2], [Answer("b0", 2.5, 3), Answer(None)], [Answer("t0", 0.5, 3), Answer("", None)])
    first, second = lines(path)
    assert first == {
        **{"where": "a.jsonl:0", "prompt": "ask 0", "reference": "say 0"},
        **{"tuned": "t0", "tuned_loss": 0.5, "base": "b0", "base_loss": 2.5},
    }
    assert (second["base"], second["tuned"], second["tuned_loss"]) == (None, "", None)


def test_without_a_base_nothing_is_said_of_one(tmp_path: Path):
    rows: list[Row] = [LabelRow(text="fine", label="good")]
    predictions.write(tmp_path / "test.jsonl", rows, None, [Answer("bad", 1.0, 1, 0.75)])
    (line,) = lines(tmp_path / "test.jsonl")
    assert line == {"where": "", "prompt": "fine", "reference": "good", "tuned": "bad", "tuned_loss": 1.0, "confidence": 0.75}


@pytest.mark.parametrize("text", ["two\nlines", "\u2028", "grün 猫", "\ud800"], ids=ascii)
def test_a_row_is_one_line_whatever_it_holds(text: str, tmp_path: Path):
    predictions.write(tmp_path / "test.jsonl", [PromptRow(prompt=text, completion=text)], None, [Answer(text)])
    (line,) = lines(tmp_path / "test.jsonl")
    assert line["prompt"] == line["reference"] == line["tuned"] == text


def test_rows_and_answers_must_be_as_many(tmp_path: Path):
    with pytest.raises(ValueError, match="zip"):
        predictions.write(tmp_path / "test.jsonl", ROWS[:2], None, [Answer("x")])
    assert not (tmp_path / "test.jsonl").exists()


def test_best_and_worst_are_ordered_by_loss_and_share_no_row():
    answers = [Answer(f"t{number}", float((number * 7) % 20), 2) for number in range(20)]
    found = predictions.best_and_worst(ROWS, [Answer(f"b{number}") for number in range(20)], answers)
    assert [row.score for row in found.best] == [0, 1, 2, 3, 4, 5]
    assert [row.score for row in found.worst] == [19, 18, 17, 16, 15, 14]
    assert found.measured_by == "loss"
    (number,) = (index for index in range(20) if (index * 7) % 20 == 19)
    worst = found.worst[0]
    assert (worst.where, worst.prompt, worst.reference) == (f"a.jsonl:{number}", f"ask {number}", f"say {number}")
    assert (worst.base_answer, worst.tuned_answer) == (f"b{number}", f"t{number}")


def test_few_rows_are_shared_between_best_and_worst():
    found = predictions.best_and_worst(ROWS[:5], None, [Answer("t", float(number), 1) for number in range(5)])
    assert ([row.score for row in found.best], [row.score for row in found.worst]) == ([0, 1], [4, 3])
    assert found.best[0].base_answer is None


def test_only_rows_with_words_and_a_loss_are_shown():
    answers = [Answer(None, 9.0, 1), Answer("a", 2.0, 1), Answer("b"), Answer("c", 1.0, 1)]
    found = predictions.best_and_worst(ROWS[:4], None, answers)
    assert [row.tuned_answer for row in (*found.best, *found.worst)] == ["c", "a"]
    assert predictions.best_and_worst([], None, []).best == ()


def test_of_a_long_prompt_the_end_is_shown():
    rows: list[Row] = [PromptRow(prompt="begin" + "x" * 3000 + "end?", completion="y")] * 2
    shown = predictions.best_and_worst(rows, None, [Answer("a", 1.0, 1), Answer("b", 2.0, 1)]).best[0]
    assert len(shown.prompt) == predictions.LONGEST
    assert shown.prompt.endswith("end?")
