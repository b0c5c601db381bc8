"""Rows for task heads: text_labels, text_score, tokens_tags and question_context, each value as files write it."""

from typing import Any

import pytest

from tunewright.data.rows import LabelsRow, NumberRow, QuestionRow, TagsRow
from tunewright.data.shapes import RowProblem, Shape, detect, room
from tunewright.data.sources import Record


def row(value: dict[str, Any], shape: str = "") -> Any:
    record = Record(value, "a.jsonl:1")
    found: Shape = room[shape]() if shape else detect([record]).shape
    return found.row(record)


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["old", "green"], ("old", "green")),
        ([], ()),
        ([3, "b"], ("3", "b")),
        ("old|green, dark", ("old", "green, dark")),
        ("old; green", ("old", "green")),
        ("old, green", ("old", "green")),
        ("old", ("old",)),
        ("", ()),
        ('["a|b", "c"]', ("a|b", "c")),
    ],
)
def test_sets_of_labels(labels: Any, wanted: tuple[str, ...]):
    found = row({"text": "fir", "labels": labels, "id": 7})
    assert found == LabelsRow(text="fir", labels=wanted, where="a.jsonl:1", metadata={"id": 7})
    assert found.has_answer()


@pytest.mark.parametrize(
    ("labels", "kind"), [(None, "null"), (["a", "a"], "label_twice"), (["a", " "], "empty_label"), ([True], "wrong_type")]
)
def test_sets_of_labels_that_are_none(labels: Any, kind: str):
    with pytest.raises(RowProblem) as caught:
        row({"text": "fir", "labels": labels}, "text_labels")
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("value", "wanted", "names"),
    [
        ({"score": 3}, (3.0,), ()),
        ({"target": "2.5"}, (2.5,), ()),
        ({"values": [1, 2.5]}, (1.0, 2.5), ()),
        ({"targets": {"price": 9.5, "size": 2}}, (9.5, 2.0), ("price", "size")),
    ],
)
def test_numbers(value: dict[str, Any], wanted: tuple[float, ...], names: tuple[str, ...]):
    assert row({"text": "fir", **value}) == NumberRow(text="fir", values=wanted, names=names, where="a.jsonl:1")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "null"), ("inf", "non_finite_number"), ("NaN", "non_finite_number"), ([], "no_number"), ([1, None], "null")],
)
def test_numbers_that_are_none(value: Any, kind: str):
    with pytest.raises(RowProblem) as caught:
        row({"text": "fir", "score": value}, "text_score")
    assert caught.value.kind == kind


def test_numbers_are_told_from_names():
    """Beside a label a score is a remark, a text under `target` is an answer, and pairs of texts are read as pairs."""
    assert detect([Record({"text": "a", "label": "x", "score": 0.9}, "a:1")]).name == "text_label"
    assert detect([Record({"text": "a", "target": "b"}, "a:1")]).name == "text"
    pair = row({"sentence1": "a", "sentence2": "b", "score": 4.2})
    assert (pair.text, pair.second_text, pair.values) == ("a", "b", (4.2,))
    assert detect([Record({"text": "a", "label": "x", "labels": ["x"]}, "a:1")]).name == "text_label"


@pytest.mark.parametrize(
    "value",
    [
        {"tokens": ["New", "York"], "tags": ["B-LOC", "I-LOC"]},
        {"words": "New York", "labels": "B-LOC I-LOC"},
        {"tokens": ["New", "York"], "ner_tags": ["B-LOC", "I-LOC"], "pos_tags": ["N", "N"]},
    ],
)
def test_words_and_tags(value: dict[str, Any]):
    found = row(value)
    assert (found.tokens, found.tags) == (("New", "York"), ("B-LOC", "I-LOC"))
    assert isinstance(found, TagsRow)
    assert (found.input_text(), found.target_text()) == ("New York", "B-LOC I-LOC")


@pytest.mark.parametrize(
    ("tokens", "tags", "kind"),
    [
        (["a"], [], "uneven"),
        ([], [], "no_tokens"),
        (["a"], ["B LOC"], "bad_tag"),
        (["a"], [None], "wrong_type"),
        (3, ["O"], "wrong_type"),
    ],
)
def test_words_and_tags_that_do_not_fit(tokens: Any, tags: Any, kind: str):
    with pytest.raises(RowProblem) as caught:
        row({"tokens": tokens, "tags": tags}, "tokens_tags")
    assert caught.value.kind == kind


ASKED = {"question": "who?", "context": "so ann ran, ann"}


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"answers": {"text": ["ann"], "answer_start": [3]}}, [("ann", 3)]),
        ({"answers": [{"text": "ann", "answer_start": 12}, {"text": "ann ran", "answer_start": 3}]}, [("ann", 12), ("ann ran", 3)]),
        ({"answers": ["ann"], "answer_start": 3}, [("ann", 3)]),
        ({"answer": "ann", "answer_start": "3"}, [("ann", 3)]),
        ({"answers": []}, []),
        ({"answers": {"text": [], "answer_start": []}}, []),
    ],
)
def test_questions(value: dict[str, Any], wanted: list[tuple[str, int]]):
    found = row(ASKED | value)
    assert isinstance(found, QuestionRow)
    assert list(zip(found.answers, found.starts, strict=True)) == wanted
    assert found.has_answer()
    assert found.accepted() == (tuple(answer for answer, _ in wanted) or ("",))


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        (
            {"text": ["ann"], "answer_start": [4]},
            "answer_not_there",
            "does not stand at 4 of the context, 'nn ' does; it stands at 3",
        ),
        ({"text": ["bob"], "answer_start": [3]}, "answer_not_there", "it stands nowhere in the context"),
        ({"text": ["ann"], "answer_start": [99]}, "answer_not_there", "the context ends before it"),
        ({"text": ["ann"], "answer_start": [-3]}, "answer_not_there", "does not stand at -3"),
        ({"text": ["ann"], "answer_start": []}, "uneven", "1 answers and 0 places"),
        ({"text": [" "], "answer_start": [2]}, "empty_answer", "an answer is empty"),
        ({"text": ["ann"], "answer_start": ["x"]}, "wrong_type", "a whole number"),
        (None, "null", "an empty list"),
        ("ann", "wrong_type", "'answers' must hold texts with their places"),
    ],
)
def test_answers_that_do_not_stand_where_they_should(answers: Any, kind: str, message: str):
    with pytest.raises(RowProblem, match=message) as caught:
        row(ASKED | {"answers": answers}, "question_context")
    assert caught.value.kind == kind


def test_a_question_with_an_answer_in_words_is_something_to_write():
    assert detect([Record({**ASKED, "answer": "ann did"}, "a:1")]).name == "prompt_completion"
