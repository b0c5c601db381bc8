"""Answers on the disk: every one at once, what a crash leaves is mended, and nothing of others is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.errors import ConfigurationError, RunFolderError, StorageError
from tunewright.data.reading import read_rows
from tunewright.data.rows import PreferenceRow
from tunewright.run.ranking import Question, Ranking, questions_of
from tunewright.run.ranking.candidates import Answer, Asked, Candidates
from tunewright.run.ranking.journal import Sitting, log_of, opened

OUT, LOG = Path("pairs.jsonl"), Path("pairs.log.jsonl")
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say \N{SNOWMAN}\u2028 and more"}]


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def questions(share: float = 0.0, talks: bool = True) -> tuple[Question, ...]:
    rows = [Asked(f"prompt {number}", (Answer(f"good {number}", "good"), Answer(f"bad {number}", "bad"))) for number in range(5)]
    if talks:
        rows[4] = Asked(TURNS, (Answer("yes\n\nreally", "good"), Answer("no", "bad")), ({"name": "tool"},))
    return questions_of(Candidates(tuple(rows)), repeat_share=share).asked


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line] if path.exists() else []


def prefer_good(sitting: Sitting, count: int) -> None:
    for _ in range(count):
        question = sitting.ranking.current
        assert question is not None
        assert sitting.give(question.id, "left" if question.left.source == "good" else "right")


def test_pairs_are_what_a_tuning_reads() -> None:
    with opened(OUT, questions()) as journal:
        prefer_good(Sitting(Ranking(questions()), journal), 5)
    rows = read_rows("pairs.jsonl").rows
    assert len(rows) == 5
    for row in rows:
        assert isinstance(row, PreferenceRow)
        assert row.chosen[:3] in ("goo", "yes")
        assert row.rejected[:2] in ("ba", "no")
        assert row.metadata["chosen_source"] == "good"
    (told,) = [row for row in rows if isinstance(row, PreferenceRow) and row.tools]
    assert [(one.role, one.content) for one in told.messages] == [(one["role"], one["content"]) for one in TURNS]
    # Which side was left is kept for every pair.
    sides = {one.id: "chosen" if one.left.source == "good" else "rejected" for one in questions()}
    assert {line["id"]: line["left"] for line in lines(OUT)} == sides
    assert set(sides.values()) == {"chosen", "rejected"}


def test_texts_alone_are_written_as_texts() -> None:
    asked = questions(talks=False)
    with opened(OUT, asked) as journal:
        prefer_good(Sitting(Ranking(asked), journal), 5)
    assert all(isinstance(line[key], str) for line in lines(OUT) for key in ("prompt", "chosen", "rejected"))
    with (
        pytest.raises(ConfigurationError, match="holds pairs of texts, and these prompts are conversations"),
        opened(OUT, questions()),
    ):
        pass


def test_what_is_no_preference_stands_in_the_log_only() -> None:
    with opened(OUT, questions()) as journal:
        sitting = Sitting(Ranking(questions()), journal)
        for choice in ("tie", "skip", "both_bad"):
            question = sitting.ranking.current
            assert question is not None
            sitting.give(question.id, choice)
        assert journal.pairs() == 0
    assert not OUT.exists()
    assert [line["answer"] for line in lines(LOG)] == ["tie", "skip", "both_bad"]
    assert set(lines(LOG)[0]) >= {"id", "answer", "prompt", "left", "right"}


def test_it_goes_on_where_it_stopped() -> None:
    for count in (2, 3):
        with opened(OUT, questions()) as journal:
            sitting = Sitting(Ranking(questions(), journal.before), journal)
            prefer_good(sitting, count)
    assert sitting.ranking.current is None
    assert len(lines(OUT)) == len(lines(LOG)) == 5


def test_taking_back_removes_the_pair_also_of_an_earlier_sitting() -> None:
    with opened(OUT, questions()) as journal:
        prefer_good(Sitting(Ranking(questions()), journal), 2)
    with opened(OUT, questions()) as journal:
        sitting = Sitting(Ranking(questions(), journal.before), journal)
        assert sitting.take_back()
        assert sitting.take_back()
        assert not sitting.take_back()
        assert lines(OUT) == []
        prefer_good(sitting, 1)
    assert len(lines(OUT)) == 1
    with opened(OUT, questions()) as journal:
        assert len(journal.before) == 1


def test_an_answer_to_another_question_changes_nothing() -> None:
    with opened(OUT, questions()) as journal:
        sitting = Sitting(Ranking(questions()), journal)
        assert not sitting.give("another", "left")
    assert not LOG.exists()
    assert not OUT.exists()


def test_a_repetition_is_logged_and_no_second_pair() -> None:
    with opened(OUT, questions()) as journal:
        sitting = Sitting(Ranking(questions(1.0)), journal)
        prefer_good(sitting, 10)
    assert len(lines(LOG)) == 10
    assert len(lines(OUT)) == 5


@pytest.mark.parametrize("talks", [False, True])
def test_pairs_of_others_stay_and_their_kind_is_taken(talks: bool) -> None:
    told = [{"role": "assistant", "content": "a"}] if talks else "a"
    other = json.dumps({"prompt": "p", "chosen": told, "rejected": told})
    OUT.write_text(other)  # without an end of the line
    asked = questions(talks=False)
    with opened(OUT, asked) as journal:
        sitting = Sitting(Ranking(asked), journal)
        prefer_good(sitting, 1)
        assert len(lines(OUT)) == 2
        assert isinstance(lines(OUT)[1]["chosen"], list) == talks
        sitting.take_back()
    assert lines(OUT) == [json.loads(other)]


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_log_that_a_crash_has_cut_loses_the_last_answer_only(cut: int) -> None:
    with opened(OUT, questions()) as journal:
        prefer_good(Sitting(Ranking(questions()), journal), 2)
    whole = LOG.read_bytes()
    LOG.write_bytes(whole + whole.splitlines()[0][:cut])
    with opened(OUT, questions()) as journal:
        assert len(journal.before) == 2
        prefer_good(Sitting(Ranking(questions(), journal.before), journal), 1)
    assert len(lines(LOG)) == 3


@pytest.mark.parametrize("kept", [0, 25])
def test_a_crash_between_log_and_pair_is_mended(kept: int) -> None:
    with opened(OUT, questions()) as journal:
        prefer_good(Sitting(Ranking(questions()), journal), 2)
    before = OUT.read_bytes()
    first, second = before.splitlines(keepends=True)
    OUT.write_bytes(first + second[:kept])
    with opened(OUT, questions()) as journal:
        assert len(journal.before) == 2
    assert OUT.read_bytes() == before


def test_a_crash_between_taking_back_and_the_pair_is_mended() -> None:
    with opened(OUT, questions()) as journal:
        sitting = Sitting(Ranking(questions()), journal)
        prefer_good(sitting, 2)
        before = OUT.read_bytes()
        sitting.take_back()
    OUT.write_bytes(before)
    with opened(OUT, questions()) as journal:
        assert len(journal.before) == 1
    assert len(lines(OUT)) == 1


def test_a_pair_that_was_removed_by_hand_does_not_come_back() -> None:
    with opened(OUT, questions()) as journal:
        prefer_good(Sitting(Ranking(questions()), journal), 3)
    OUT.write_text("".join(json.dumps(line) + "\n" for line in lines(OUT)[1:]))
    with opened(OUT, questions()):
        pass
    assert len(lines(OUT)) == 2


def test_an_answer_that_cannot_be_written_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(OUT, questions()) as journal:
        sitting = Sitting(Ranking(questions()), journal)
        prefer_good(sitting, 1)

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        question = sitting.ranking.current
        assert question is not None
        with pytest.raises(StorageError, match=r"pairs\.log\.jsonl: could not be written \(No space left on device\)"):
            sitting.give(question.id, "left")
        assert sitting.ranking.current == question


def test_only_one_ranking_writes() -> None:
    with opened(OUT, questions()) as journal:
        prefer_good(Sitting(Ranking(questions()), journal), 1)
        with pytest.raises(RunFolderError, match=r"pairs\.jsonl: another ranking writes to it"), opened(OUT, questions()):
            pass
    with opened(OUT, questions()):
        pass


def test_places_that_cannot_be_used_are_refused() -> None:
    Path("rows.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    Path("text.jsonl").write_text("not JSON\n")
    Path("rows.csv").write_text("a,b\n")
    for place, part in {
        "pairs.csv": "pairs are written as JSON Lines",
        "nowhere/pairs.jsonl": "there is no such folder",
        "rows.jsonl": "rows.jsonl:1: holds rows that are no pairs",
        "text.jsonl": "text.jsonl:1: holds rows that are no pairs",
    }.items():
        with pytest.raises(ConfigurationError, match=part), opened(Path(place), questions()):
            pass
        assert not log_of(Path(place)).exists()
    LOG.write_text('{"id": 1}\n{"id": "b", "answer": "left"}\n')
    with pytest.raises(StorageError, match=r"pairs\.log\.jsonl:1: is damaged"), opened(OUT, questions()):
        pass
