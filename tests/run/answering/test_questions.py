"""What a teacher is asked: prompts, conversations and texts, with and without answers, and the lines that come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import DataError
from tunewright.data.reading import read_rows
from tunewright.data.rows import ChatRow, LabelRow, PromptRow, SoftLabelRow
from tunewright.run.answering.questions import Questions, as_messages, line, question, questions, told

HI = {"role": "user", "content": "Hi"}
BYE = {"role": "assistant", "content": "Bye"}


def read(tmp_path: Path, *rows: dict[str, Any] | str, texts: bool = False, columns: dict[str, str] | None = None) -> Questions:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows), encoding="utf-8")
    return questions(str(path), columns or {}, texts=texts)


def test_prompts_need_no_answer_and_keep_the_one_they_have(tmp_path: Path) -> None:
    (bare,) = read(tmp_path, {"prompt": "2+2", "id": 7}).rows
    assert isinstance(bare, PromptRow)
    assert (bare.prompt, bare.completion, bare.metadata) == ("2+2", "", {"id": 7})
    for answer in ("completion", "response"):
        (known,) = read(tmp_path, {"prompt": "2+2", answer: "4"}).rows
        assert known.target_text() == "4"  # for a grader; the teacher does not see it
        assert as_messages(known) == [{"role": "user", "content": "2+2"}]
        assert line(known, "5") == {"prompt": "2+2", "completion": "5"}
    assert line(bare, "4") == {"prompt": "2+2", "completion": "4", "id": 7}
    assert question(bare) == {"prompt": "2+2", "id": 7}


def test_conversations_end_before_the_last_answer(tmp_path: Path) -> None:
    long = [{"role": "system", "content": "Be brief."}, HI, {**BYE, "weight": 0}, {"role": "user", "content": "No?"}]
    open_row, closed = read(tmp_path, {"messages": long, "tools": [{"type": "f"}]}, {"messages": [*long, BYE], "id": 1}).rows
    assert isinstance(open_row, ChatRow)
    assert as_messages(open_row) == as_messages(closed) == [{key: one[key] for key in ("role", "content")} for one in long]
    assert closed.target_text() == "Bye"
    assert line(closed, "Yes") == {"messages": [*long, {"role": "assistant", "content": "Yes"}], "id": 1}
    assert line(open_row, "Yes")["tools"] == [{"type": "f"}]
    assert question(closed) == {"messages": long, "id": 1}


def test_a_prompt_may_be_a_list_of_messages(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"prompt": [HI]}).rows
    assert line(row, "Yes") == {"messages": [HI, {"role": "assistant", "content": "Yes"}]}


def test_a_file_of_both_becomes_conversations(tmp_path: Path) -> None:
    first, second = read(tmp_path, {"prompt": "2+2"}, {"messages": [HI]}).rows
    assert isinstance(first, ChatRow)
    assert isinstance(second, ChatRow)
    assert line(first, "4") == {"messages": [{"role": "user", "content": "2+2"}, {"role": "assistant", "content": "4"}]}


@pytest.mark.parametrize("row", [{"text": "red"}, {"text": "red", "label": "warm"}, {"prompt": "red"}])
def test_texts_to_classify_lose_their_label(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,) = read(tmp_path, {**row, "id": 3}, texts=True).rows
    assert isinstance(found, LabelRow)
    assert (found.text, found.label, found.metadata["id"]) == ("red", "", 3)
    written = line(found, "warm", {"cold": 0.1, "warm": 0.9})
    assert {key: written[key] for key in ("text", "label", "distribution")} == {
        "text": "red",
        "label": "warm",
        "distribution": {"cold": 0.1, "warm": 0.9},
    }


def test_pairs_of_texts_stay_pairs(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"text": "a", "second_text": "b"}, texts=True).rows
    assert line(found, "same") == {"text": "a", "second_text": "b", "label": "same"}


def test_texts_are_prompts_for_a_model_that_writes(tmp_path: Path) -> None:
    (found,) = read(tmp_path, {"text": "Once upon"}).rows
    assert line(found, "a time") == {"prompt": "Once upon", "completion": "a time"}


def test_columns_have_the_names_that_a_user_gives_them(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"question_de": "Wer?"}, columns={"question_de": "prompt"}).rows
    assert line(row, "Ich") == {"prompt": "Wer?", "completion": "Ich"}


def test_what_cannot_be_asked_is_in_the_ledger(tmp_path: Path) -> None:
    bad = [{"prompt": " "}, {"prompt": 3}, {"messages": []}, {"messages": [{"role": "usr", "content": "x"}]}, "{broken"]
    found = read(tmp_path, {"prompt": "good"}, *bad, {"messages": [BYE]})
    assert len(found.rows) == 1
    kinds = [drop.kind for drop in found.ledger]
    assert sorted(kinds) == sorted(["empty_prompt", "wrong_type", "no_messages", "unknown_role", kinds[0], "empty_prompt"])
    assert {drop.where.rpartition(":")[2] for drop in found.ledger} == {"2", "3", "4", "5", "6", "7"}


def test_a_file_without_a_question_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row can be asked") as caught:
        read(tmp_path, {"prompt": " "})
    assert "the prompt is empty" in caught.value.problem
    with pytest.raises(DataError, match="fit no known shape"):
        read(tmp_path, {"colour": "red"})
    with pytest.raises(DataError, match="nothing"):
        questions(str(tmp_path / "nothing.jsonl"), {}, texts=False)


def test_the_teacher_alone_sees_a_system_text(tmp_path: Path) -> None:
    plain, chat = (
        read(tmp_path, {"prompt": "2+2"}).rows[0],
        read(tmp_path, {"messages": [{**HI, "role": "system"}, HI, BYE]}).rows[0],
    )
    assert told(plain, "") is plain
    for row, last in ((plain, "2+2"), (chat, "Hi")):
        assert as_messages(told(row, "Short.")) == [{"role": "system", "content": "Short."}, {"role": "user", "content": last}]
    assert line(plain, "4") == {"prompt": "2+2", "completion": "4"}


def test_what_is_written_is_read_as_it_was_meant(tmp_path: Path) -> None:
    rows = {
        PromptRow: line(PromptRow(prompt="a", completion=""), "b"),
        ChatRow: line(ChatRow(messages=()), "b") | {"messages": [HI, BYE]},
        SoftLabelRow: line(LabelRow(text="t", label=""), "x", {"x": 2 / 3, "y": 1 / 3}),
    }
    for kind, row in rows.items():
        (tmp_path / "out.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        (found,) = read_rows(tmp_path / "out.jsonl").rows
        assert type(found) is kind
