"""SQuAD's nested files: flattened to one record a question."""

import json
from pathlib import Path

import pytest

from tunewright.core.errors import DataError
from tunewright.data.reading import read_rows
from tunewright.data.rows import QuestionRow
from tunewright.data.sources import Problem, Record, records

ASKED = [
    {"id": "1", "question": "who?", "answers": [{"text": "ann", "answer_start": 3}]},
    {
        "id": "2",
        "question": "why?",
        "answers": [],
        "is_impossible": True,
        "plausible_answers": [{"text": "ran", "answer_start": 7}],
    },
]
FILE = {"version": "v2.0", "data": [{"title": "Ann", "paragraphs": [{"context": "so ann ran", "qas": ASKED}]}]}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("order", [("version", "data"), ("data", "version")])
def test_every_question_is_a_record(indent: int | None, order: tuple[str, str], tmp_path: Path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps({key: FILE[key] for key in order}, indent=indent))
    found = list(records(path))
    assert [item.where for item in found if isinstance(item, Record)] == [f"{path}:question 1", f"{path}:question 2"]
    loaded = read_rows(path)
    assert loaded.findings.shape == "question_context"
    assert [(row.question, row.answers, row.metadata) for row in loaded.rows if isinstance(row, QuestionRow)] == [
        ("who?", ("ann",), {"title": "Ann", "id": "1"}),
        ("why?", (), {"title": "Ann", "id": "2"}),
    ]


def test_an_answer_at_another_place_goes_to_the_ledger(tmp_path: Path):
    asked = [{"question": f"q{n}?", "answers": [{"text": "ann", "answer_start": 3 if n else 4}]} for n in range(30)]
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "so ann ran", "qas": asked}]}]}))
    loaded = read_rows(path)
    (drop,) = loaded.ledger
    assert (drop.kind, drop.where) == ("answer_not_there", f"{path}:question 1")
    assert "it stands at 3" in drop.message
    assert len(loaded.rows) == 29


def test_a_file_that_breaks_off_or_lacks_a_list(tmp_path: Path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(FILE)[:-9])
    with pytest.raises(DataError, match="begins as a SQuAD file does, but is not valid JSON"):
        list(records(path))
    path.write_text(json.dumps({"data": [{"title": "Ann", "sections": []}]}))
    with pytest.raises(DataError, match="a list 'paragraphs' is missing"):
        list(records(path))
    path.write_text(json.dumps({"data": [{"title": "A", "paragraphs": [{"context": "c", "qas": [{"id": 3}]}]}]}))
    assert isinstance(next(iter(records(path))), Problem)
