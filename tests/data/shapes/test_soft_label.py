"""Rows with a probability for each label: what is read, what is refused, and that they are kept as they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.reading import DataConfig, read
from tunewright.data.rows import LabelRow, SoftLabelRow
from tunewright.data.shapes import RowProblem, detect, room
from tunewright.data.sources import Record
from tunewright.data.stored import read_rows, write_rows

GOOD = {"text": "fir", "label": "a", "distribution": {"b": 0.25, "a": 0.75}, "id": 7}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def row(value: dict[str, Any]) -> LabelRow:
    return room["soft_label"]().row(Record(value, "f:1"))


def test_the_columns_tell_it():
    found = detect([Record(GOOD, "f:1")])
    assert (found.name, found.also) == ("soft_label", ("text_label",))
    assert detect([Record({"text": "fir", "distribution": {"a": 1.0}}, "f:1")]).name == "soft_label"
    assert detect([Record({"text": "fir", "label": "a"}, "f:1")]).name == "text_label"


def test_a_row_with_its_distribution():
    wanted = SoftLabelRow(text="fir", label="a", distribution={"a": 0.75, "b": 0.25}, where="f:1", metadata={"id": 7})
    assert row(GOOD) == wanted
    assert row(GOOD).classes() == ("a",)
    assert list(row(GOOD).distribution) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "label", "distribution"),
    [
        ({"distribution": {"a": 0.4, "b": 0.6}}, "b", {"a": 0.4, "b": 0.6}),
        ({"distribution": {"a": 0.5, "b": 0.5}, "label": "b"}, "b", {"a": 0.5, "b": 0.5}),
        ({"distribution": '{"a": 1, "b": 0}'}, "a", {"a": 1.0, "b": 0.0}),
        ({"distribution": {"1": 0.3332, "2": 0.3332, "3": 0.3332}, "label": 2}, "2", dict.fromkeys("123", 1 / 3)),
    ],
)
def test_other_ways_to_write_it(value: dict[str, Any], label: str, distribution: dict[str, float]):
    found = row({"text": "fir", **value})
    assert found.label == label
    assert found.distribution == pytest.approx(distribution)
    assert sum(found.distribution.values()) == pytest.approx(1, abs=1e-12)


def test_pairs():
    found = row({"premise": "p", "hypothesis": "h", "distribution": {"a": 1.0}})
    assert (found.text, found.second_text) == ("p", "h")


def test_a_row_without_a_distribution_is_certain():
    assert row({"text": "fir", "label": "a"}) == LabelRow(text="fir", label="a", where="f:1")


@pytest.mark.parametrize(
    ("distribution", "label", "kind"),
    [
        (None, None, "null"),
        ({}, None, "wrong_type"),
        ([0.5, 0.5], None, "wrong_type"),
        ("most likely a", None, "wrong_type"),
        ({"a": 0.5, "b": 0.2}, None, "not_one"),
        ({"a": 1.5, "b": -0.5}, None, "no_probability"),
        ({"a": "0.5", "b": 0.5}, None, "no_probability"),
        ({"a": float("nan"), "b": 0.5}, None, "no_probability"),
        ({" ": 0.5, "b": 0.5}, None, "empty_label"),
        ({"a": 0.5, "b": 0.5}, "c", "strange_label"),
        ({"a": 0.0, "b": 1.0}, "a", "strange_label"),
    ],
)
def test_what_is_no_distribution(distribution: Any, label: str | None, kind: str):
    with pytest.raises(RowProblem) as caught:
        row({"text": "fir", "label": label, "distribution": distribution})
    assert caught.value.kind == kind


def test_a_row_that_lacks_everything_is_told_what_it_lacks():
    with pytest.raises(RowProblem, match="missing") as caught:
        row({"text": "fir"})
    assert caught.value.kind == "missing_column"


def test_rows_are_kept_and_are_others_than_certain_ones(tmp_path: Path):
    rows = [row(GOOD), row({"text": "fir", "label": "a"})]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert rows[0].key() != rows[1].key()
    assert rows[1].key() == LabelRow(text="fir", label="a").key()


def test_a_test_file_may_be_labelled_by_hand(tmp_path: Path):
    words = [f"{first} {second}" for first in ("red", "blue", "old", "new") for second in ("cat", "dog", "house", "sea", "tree")]
    shares = [{"a": 0.8, "b": 0.2}, {"a": 0.1, "b": 0.9}]
    train = jsonl(tmp_path / "train.jsonl", [{"text": text, "distribution": shares[n % 2]} for n, text in enumerate(words)])
    test = jsonl(tmp_path / "test.jsonl", [{"text": "a green sky", "label": "a"}, {"text": "one more", "label": "b"}])
    found = read(DataConfig(train=train, test=test), 0)
    assert found.shape == "soft_label"
    assert {type(one) for one in found.train} == {SoftLabelRow}
    assert [type(one) for one in found.test] == [LabelRow, LabelRow]
