"""What is compared: answers of one file, of a run, of two runs; what is left out, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import DataError, RunFolderError
from tunewright.data.rows import ChatRow, Message, PromptRow, Row
from tunewright.data.stored import write_rows
from tunewright.run.ranking.candidates import Answer, read_candidates


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: Sequence[dict[str, Any]]) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def chat(number: int, where: str) -> ChatRow:
    asked = (Message(role="system", content="Be brief."), Message(role="user", content=f"What is {number}?"))
    return ChatRow(messages=(*asked, Message(role="assistant", content=f"It is {number}.")), where=where)


def run(name: str, rows: Sequence[Row], **answers: Sequence[str | None]) -> Path:
    folder = Path(name)
    lines = [
        {"where": row.where, "prompt": row.input_text()} | {key: many[place] for key, many in answers.items()}
        for place, row in enumerate(rows)
    ]
    write(f"{name}/predictions/test.jsonl", lines)
    (folder / "data").mkdir()
    write_rows(folder / "data" / "test.jsonl", rows)
    (folder / "run.yaml").write_text("seed: 1\n")
    return folder


CHATS = [chat(number, f"chat.jsonl:{number}") for number in range(3)]
LISTS: dict[str, dict[str, Any]] = {
    "texts": {"responses": ["one", "two", "three"]},
    "objects": {"answers": [{"text": "one", "source": "x"}, {"response": "two", "model": "y"}, {"content": "three"}]},
    "columns": {"base": "one", "tuned": "two"},
}
SOURCES = {"texts": ["answer 1", "answer 2", "answer 3"], "objects": ["x", "y", "answer 3"], "columns": ["base", "tuned"]}


@pytest.mark.parametrize("kind", LISTS)
def test_answers_of_one_file(kind: str) -> None:
    found = read_candidates(write("a.jsonl", [{"prompt": "p", **LISTS[kind]}]))
    (asked,) = found.asked
    assert asked.prompt == "p"
    assert [one.text for one in asked.answers] == ["one", "two", "three"][: len(SOURCES[kind])]
    assert [one.source for one in asked.answers] == SOURCES[kind]
    assert found.notes == ()


def test_columns_that_are_named() -> None:
    path = write("a.jsonl", [{"prompt": "p", "mine": "one", "yours": "two", "responses": ["no", "nor this"]}])
    assert read_candidates(path, columns=("mine", "yours")).asked[0].answers == (Answer("one", "mine"), Answer("two", "yours"))
    assert [one.text for one in read_candidates(path, columns=("responses",)).asked[0].answers] == ["no", "nor this"]


def test_a_conversation_keeps_its_turns_and_tools() -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "bye"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    (asked,) = read_candidates(write("a.jsonl", [{"messages": turns, "tools": tools, "responses": ["a", "b"]}])).asked
    assert asked.prompt == turns
    assert asked.tools == tuple(tools)


def test_a_run_compares_its_base_with_what_it_was_tuned_to() -> None:
    (first, *_) = read_candidates(run("one", CHATS, base=["b", "b", "b"], tuned=["t", "t", "t"])).asked
    # What is kept as a text in the predictions is a conversation again.
    assert first.prompt == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 0?"}]
    assert first.answers == (Answer("b", "base"), Answer("t", "tuned"))


def test_two_runs_are_paired_by_prompt_whatever_their_order() -> None:
    run("one", CHATS, tuned=["0", "1", "2"])
    run("two", [*CHATS[::-1], chat(9, "chat.jsonl:9")], tuned=["II", "I", "O", "IX"])
    found = read_candidates(Path("one"), Path("two"))
    assert [[one.text for one in asked.answers] for asked in found.asked] == [["0", "O"], ["1", "I"], ["2", "II"]]
    assert [one.source for one in found.asked[0].answers] == ["one", "two"]
    assert found.notes == ("1 of 4 prompts are answered by two only and left out",)


def test_a_prompt_that_stands_twice_is_counted_through() -> None:
    rows = [{"prompt": "p", "answer": text} for text in ("first", "second")]
    found = read_candidates(write("a.jsonl", rows), write("b.jsonl", rows))
    assert [[one.text for one in asked.answers] for asked in found.asked] == [["first"] * 2, ["second"] * 2]


def test_a_run_and_a_file_of_predictions_meet_as_conversations() -> None:
    run("one", CHATS, tuned=["0", "1", "2"])
    file = write("other.jsonl", [{"prompt": row.input_text(), "mine": "x"} for row in CHATS])
    for places, columns in (((Path("one"), file), ("tuned", "mine")), ((file, Path("one")), ("mine", "tuned"))):
        found = read_candidates(*places, columns)
        assert len(found.asked) == 3
        assert isinstance(found.asked[0].prompt, list)


def test_runs_of_one_name_are_told_apart() -> None:
    rows = [PromptRow(prompt="p", completion="c", where="p.jsonl:1")]
    (asked,) = read_candidates(run("a/same", rows, tuned=["1"]), run("b/same", rows, tuned=["2"])).asked
    assert [one.source for one in asked.answers] == ["a/same", "b/same"]
    (asked,) = read_candidates(Path("a/same"), Path("a/same")).asked
    assert len({one.source for one in asked.answers}) == 2


def test_rows_that_cannot_be_compared_are_told() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "good", "responses": ["a", "b"]},
        {"prompt": "one only", "responses": ["a"]},
        {"prompt": 3, "responses": ["a", "b"]},
        {"responses": ["a", "b"]},
        {"prompt": "null", "responses": ["a", None]},
        {"prompt": "none"},
    ]
    path = write("a.jsonl", rows)
    with path.open("a") as file:
        file.write("{broken\n")
    found = read_candidates(path)
    assert [asked.prompt for asked in found.asked] == ["good"]
    (note,) = found.notes
    assert note.startswith("6 rows cannot be compared and are left out; the first, a.jsonl:2: ")
    assert note.endswith("'responses' must be a list of two answers or more, it is a list of 1")


def test_answers_that_were_not_written_are_left_out() -> None:
    found = read_candidates(run("one", CHATS, base=["b", "b", None], tuned=["t", "t", None]))
    assert len(found.asked) == 2
    assert found.notes[0].endswith("'base' must be text, it is null")


REFUSED = {
    "nowhere.jsonl": ("nowhere.jsonl: there is no such file",),
    "plain": ("plain: is not a run folder (it has no run.yaml)", "a file with prompts and answers"),
    "early": ("early: the run has no predictions to compare", "tunewright resume early"),
    "words.jsonl": ("words.jsonl:1: no column holds answers", "found: prompt, said", "responses", "--answers COLUMN"),
    "bad.jsonl": ("bad.jsonl:1: has no row that can be compared: there is no 'prompt'",),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused(name: str) -> None:
    Path("plain").mkdir()
    Path("early").mkdir()
    Path("early/run.yaml").write_text("seed: 1\n")
    write("words.jsonl", [{"prompt": "p", "said": "a"}])
    write("bad.jsonl", [{"question": "p", "responses": ["a", "b"]}])
    with pytest.raises((DataError, RunFolderError)) as caught:
        read_candidates(Path(name))
    for part in REFUSED[name]:
        assert part in str(caught.value)


def test_two_places_without_a_prompt_in_common_are_refused() -> None:
    one, other = (write(f"{name}.jsonl", [{"prompt": name, "answer": "x"}]) for name in ("a", "b"))
    with pytest.raises(DataError, match=r"b\.jsonl: answers no prompt that the first one answers"):
        read_candidates(one, other)
    with pytest.raises(DataError, match="--answers: 3 columns of answers for two places"):
        read_candidates(one, other, ("a", "b", "c"))
    with pytest.raises(DataError, match="no column holds answers that can be compared; found: prompt, said"):
        read_candidates(one, write("c.jsonl", [{"prompt": "a", "said": "x"}]))
