"""The journal of answers: what is on the disk, what a cut-off line costs, and whose file it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunewright.core.errors import ConfigurationError, StorageError
from tunewright.run.answering.journal import Journal, Said

ASKED = {"model": "teacher", "temperature": 0.5, "stops": ("a",)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def test_answers_are_on_the_disk_before_anything_else_happens(out: Path) -> None:
    journal = Journal(out, ASKED)
    journal.add((0, 0), Said("yes"))
    journal.add((3, 1), Said("a", distribution={"a": 0.75, "b": 0.25}))
    journal.add((1, 0), Said("cut", finished=False))
    journal.add((2, 0), Said(why=("refused", "no")))  # asked again next time
    lines = [json.loads(line) for line in journal.path.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"asked": {**ASKED, "stops": ["a"]}}
    assert lines[1:] == [[[0, 0], "yes", True, None], [[3, 1], "a", True, {"a": 0.75, "b": 0.25}], [[1, 0], "cut", False, None]]
    assert not out.exists()


def test_another_goes_on_where_the_first_stopped(out: Path) -> None:
    first = Journal(out, ASKED)
    first.add((0, 0), Said("yes"))
    first.add((0, 1), Said("mit Umlaut: ä\u2028🙂"))
    first.close(finished=False)
    second = Journal(out, dict(reversed(ASKED.items())))
    assert second.resumed == 2
    assert second.done == {(0, 0): Said("yes"), (0, 1): Said("mit Umlaut: ä\u2028🙂")}
    second.add((0, 0), Said("no"))  # what is there stays
    second.add((1, 0), Said("more"))
    second.close(finished=False)
    assert {place: said.text for place, said in Journal(out, ASKED).done.items()}[0, 0] == "yes"
    assert len(Journal(out, ASKED).done) == 3


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_is_asked_for_again(out: Path, cut: int) -> None:
    journal = Journal(out, ASKED)
    for number in range(3):
        journal.add((number, 0), Said(f"answer {number}"))
    journal.close(finished=False)
    journal.path.write_bytes(journal.path.read_bytes()[:-cut])
    again = Journal(out, ASKED)
    assert sorted(again.done) == [(0, 0), (1, 0)]
    again.add((2, 0), Said("again"))
    again.close(finished=False)
    assert Journal(out, ASKED).done[2, 0] == Said("again")


def test_a_file_of_another_request_is_left_alone(out: Path) -> None:
    Journal(out, ASKED).close(finished=False)
    before = out.with_name("answers.jsonl.part").read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        Journal(out, {**ASKED, "temperature": 1.0})
    assert "temperature was 0.5, now it is 1.0" in caught.value.problem
    assert "remove the file" in caught.value.hint
    assert out.with_name("answers.jsonl.part").read_bytes() == before


@pytest.mark.parametrize("text", ["not json\n", "{}\n", '{"asked": {}}\n17\n', '{"asked": {}}\n[[0, 0], "a"]\n'])
def test_a_damaged_file_is_named_with_its_line(out: Path, text: str) -> None:
    place = out.with_name("answers.jsonl.part")
    place.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"line {text.count(chr(10))} is damaged"):
        Journal(out, {})
    assert place.read_text(encoding="utf-8") == text


def test_a_finished_journal_is_gone(out: Path) -> None:
    journal = Journal(out, ASKED)
    journal.close(finished=True)
    assert not journal.path.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        Journal(tmp_path / "nowhere" / "answers.jsonl", ASKED)
