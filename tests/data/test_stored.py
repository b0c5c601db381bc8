"""Rows as a run keeps them: written and read back without a difference, and damage named by its line."""

import json
from pathlib import Path

import pytest

from tunewright.core.errors import StorageError
from tunewright.data.rows import (
    ChatRow,
    JudgedRow,
    LabelRow,
    LabelsRow,
    Message,
    NumberRow,
    PreferenceRow,
    PromptRow,
    QuestionRow,
    RankingRow,
    RatingRow,
    Row,
    SoftLabelRow,
    TagsRow,
    TextRow,
)
from tunewright.data.stored import read_rows, write_rows

CALL = {"tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]}
TALK = (
    Message(role="system", content=""),
    Message(role="user", content="2+2?"),
    Message(role="assistant", content="4", weight=0.0, extra=CALL),
)
ROWS = [
    PromptRow(prompt="ask", completion="say", where="a.jsonl:1", group="g", weight=0.25, metadata={"id": [1, None, {"b": 2.5}]}),
    ChatRow(messages=TALK, tools=({"type": "function", "function": {"name": "add"}},), where="a.jsonl:2"),
    LabelRow(text="one", second_text="two", label="003"),
    SoftLabelRow(text="one", label="b", distribution={"a": 0.1, "b": 0.9}),
    TextRow(text="  white space\t\r\n stays \n"),
    PreferenceRow(messages=TALK[:2], chosen="4", rejected="5", tools=({"name": "add"},)),
    JudgedRow(messages=TALK[:2], completion="4", label=True, tools=({"name": "add"},)),
    RankingRow(messages=TALK[:2], answers=("4", "5", "")),
    RatingRow(messages=TALK[:2], answers=("4", "5"), scores=(0.5, -2.0), metadata={"ranks": [1, 2]}),
    LabelsRow(text="one", second_text="two", labels=("b", "a")),
    NumberRow(text="one", values=(0.1, -3.0), names=("price", "size")),
    TagsRow(tokens=("New", "York"), tags=("B-LOC", "I-LOC")),
    QuestionRow(question="who?", context="ann ran", answers=("ann", "ann ran"), starts=(0, 0)),
]
# Every one of these has broken a line-based format before: str.splitlines cuts at most of them.
HARD = ["\u2028", "\u2029", "\x85", "\x0b\x0c\x1c", "\r", "\x00", "\ufeffbom", "𝄞 é e\u0301", '"\\n"', "\ud800 alone", "a\udfff"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.shape)
def test_every_shape_comes_back_as_it_was(row: Row, tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", [row])
    (back,) = read_rows(tmp_path / "rows.jsonl")
    assert back == row
    assert type(back) is type(row)
    assert back.key() == row.key()


@pytest.mark.parametrize("text", HARD, ids=ascii)
def test_hard_characters_come_back_as_they_were(text: str, tmp_path: Path):
    rows = [TextRow(text=text, metadata={text: text}), PromptRow(prompt="next", completion=text)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_the_order_stays_and_people_can_read_the_file(tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", [*ROWS, *ROWS[::-1], TextRow(text="grün 猫")])
    assert read_rows(tmp_path / "rows.jsonl")[:-1] == [*ROWS, *ROWS[::-1]]
    assert "grün 猫" in (tmp_path / "rows.jsonl").read_text(encoding="utf-8")


def test_no_rows_are_an_empty_file(tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", [])
    assert (tmp_path / "rows.jsonl").read_bytes() == b""
    assert read_rows(tmp_path / "rows.jsonl") == []


@pytest.mark.parametrize(
    "damage",
    [
        '{"shape": "text", "text": "cut',
        json.dumps({"shape": "poem", "text": "x"}),
        json.dumps({"text": "no shape"}),
        json.dumps({"shape": "text", "text": "x", "colour": "red"}),
        json.dumps({"shape": "prompt_completion", "prompt": "no completion"}),
        json.dumps({"shape": "chat", "messages": [{"role": "user"}]}),
        json.dumps({"shape": "chat", "messages": 5}),
        "[1, 2]",
        "7",
    ],
)
def test_a_damaged_line_is_named_with_its_number(damage: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:2], "", damage, *lines[2:]]))
    with pytest.raises(StorageError, match="is damaged") as caught:
        read_rows(path)
    assert caught.value.where == f"{path}:4"  # empty lines count as lines, as in an editor
