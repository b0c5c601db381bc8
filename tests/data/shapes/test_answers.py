"""Judged answers, rankings and ratings in every layout that files have, and what cannot be one."""

import math

import pytest

from tunewright.core.errors import DataError
from tunewright.data.shapes import RowProblem, detect, room
from tunewright.data.sources import Record


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def read(shape, **value):
    return room[shape]().row(Record(value, "f:1"))


def found(**value):
    return detect([Record(value, "f:1")] * 2).name


def problem(shape, **value):
    with pytest.raises(RowProblem) as caught:
        read(shape, **value)
    return caught.value.kind, caught.value.message


JUDGED = {
    "texts": {"prompt": "Q", "completion": "A", "label": True},
    "messages": {"prompt": [user("Q")], "completion": [assistant("A")], "label": True},
    "one conversation": {"messages": [user("Q"), assistant("A")], "label": True},
    "messages and text": {"messages": [user("Q")], "response": "A", "thumbs_up": True},
    "words of a table": {"question": "Q", "answer": "A", "desirable": "True"},
    "transcript": {"prompt": "Human: Q\n\nAssistant:", "completion": "A", "kto_tag": True},
}
RANKED = {
    "in order": {"prompt": "Q", "answers": ["A", "B", "C"]},
    "messages": {"messages": [user("Q")], "responses": [[assistant("A")], [assistant("B")], [assistant("C")]]},
    "ranks": {"prompt": "Q", "answers": ["C", "A", "B"], "ranks": [3, 1, 2]},
    "a question with ranks": {"question": "Q", "completions": ["B", "A", "C"], "ranks": [2, 1, 3]},
    "ranks inside": {
        "prompt": "Q",
        "answers": [{"answer": "B", "rank": 5.0}, {"answer": "A", "rank": 2.0}, {"answer": "C", "rank": 7.0}],
    },
    "a table": {"prompt": "Q", "answers": '["B", "A", "C"]', "ranks": "[2, 1, 3]"},
}
RATED = {
    "numbers": {"prompt": "Q", "answers": ["C", "A", "B"], "scores": [1, 5, 3]},
    "ratings in words": {"instruction": "Q", "completions": ["A", "B", "C"], "ratings": ["5", "3", "1"]},
    "inside": {
        "prompt": "Q",
        "responses": [{"response": "B", "score": 3}, {"response": "A", "score": 5}, {"response": "C", "score": 1}],
    },
    "a table": {"prompt": "Q", "answers": '["A", "B", "C"]', "scores": "[5, 3, 1]"},
}


ANSWERED = "'prompt' ends with an answer; the answers to compare stand beside it"


@pytest.mark.parametrize("value", JUDGED.values(), ids=JUDGED)
def test_every_layout_of_a_judged_answer_is_the_same_row(value):
    row = read("unpaired_preference", **value)
    assert found(**value) == "unpaired_preference"
    assert row.key() == read("unpaired_preference", **JUDGED["texts"]).key()
    assert (row.completion, row.label, row.metadata) == ("A", True, {})
    assert [(message.role, message.content) for message in row.messages] == [("user", "Q")]


@pytest.mark.parametrize("value", RANKED.values(), ids=RANKED)
def test_every_layout_of_a_ranking_is_the_same_row(value):
    row = read("ranking", **value)
    assert found(**value) == "ranking"
    assert row.key() == read("ranking", **RANKED["in order"]).key()
    assert (row.answers, row.metadata) == (("A", "B", "C"), {})


@pytest.mark.parametrize("value", RATED.values(), ids=RATED)
def test_every_layout_of_ratings_is_the_same_row(value):
    row = read("rating", **value)
    assert found(**value) == "rating"
    assert row.key() == read("rating", **RATED["numbers"]).key()
    assert (row.answers, row.scores) == (("A", "B", "C"), (5.0, 3.0, 1.0))


def test_a_digit_judges_where_the_shape_was_asked_for():
    assert read("unpaired_preference", prompt="Q", completion="A", label=1).label is True
    assert read("unpaired_preference", prompt="Q", completion="A", label="0").label is False


@pytest.mark.parametrize("label", ["intent_3", 1, 0.5, None])
def test_a_label_that_names_a_class_judges_nothing(label):
    assert found(prompt="Q", completion="A", label=label) == "prompt_completion"


def test_accepted_answers_to_a_question_are_no_ranking():
    with pytest.raises(DataError, match="fit no known shape"):
        detect([Record({"question": "Q", "answers": ["A", "B"]}, "f:1")])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("maybe", "'label' must be true or false, it is the text 'maybe'"),
        (2, "'label' must be true or false, it is a number (2)"),
        (0.5, "'label' must be true or false, it is a number (0.5)"),
        (None, "'label' is null"),
        (["true"], "'label' must be true or false, it is a list"),
    ],
)
def test_labels_that_are_not_true_or_false(label, message):
    assert problem("unpaired_preference", prompt="Q", completion="A", label=label)[1] == message


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"messages": [assistant("A")], "label": True}, "no_prompt"),
        ({"messages": [user("Q")], "label": True}, "answer_not_one_message"),
        ({"prompt": None, "completion": "A", "label": True}, "null"),
        ({"prompt": "Q", "completion": None, "label": True}, "null"),
        ({"prompt": "Q", "completion": [user("A")], "label": True}, "answer_not_one_message"),
    ],
)
def test_judged_answers_without_prompt_or_answer(value, kind):
    assert problem("unpaired_preference", **value)[0] == kind


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        ({"answers": ["A"]}, "one_answer", "'answers' holds one answer; at least two can be compared"),
        ({"answers": []}, "one_answer", "'answers' holds no answer; at least two can be compared"),
        ({"answers": ["A", "B", "A "]}, "same_answers", "answers[0] and answers[2] are the same answer"),
        ({"answers": ["A", ""]}, "empty_answer", "answers[1] is empty"),
        ({"answers": ["A", None]}, "null", "answers[1] is null"),
        ({"answers": ["A", 3]}, "wrong_type", "answers[1] must be text, it is a number (3)"),
        ({"answers": "A or B"}, "wrong_type", "'answers' must be a list, it is text that is no JSON list"),
        ({"answers": ["A", "B"], "ranks": [1, 1]}, "tie", "'ranks' gives two answers the rank 1: they stand in no order"),
        ({"answers": ["A", "B"], "ranks": [1]}, "uneven", "'answers' holds 2 answers and 'ranks' 1 numbers for them"),
        ({"answers": ["A", "B"], "ranks": [1, math.nan]}, "non_finite_number", "'ranks' holds nan, not a finite number"),
        ({"answers": ["A", "B"], "ranks": [1, True]}, "wrong_type", "'ranks' must hold numbers, one is true or false (True)"),
        ({"answers": [{"answer": "A", "rank": 1}, {"answer": "B"}]}, "uneven", "1 of the 2 answers have a rank"),
        ({"answers": ["A", "B"], "prompt": None}, "null", "'prompt' is null"),
        ({"answers": ["A", "B"], "prompt": [user("Q"), assistant("X")]}, "answered", ANSWERED),
    ],
)
def test_rankings_that_put_no_order(more, kind, message):
    assert problem("ranking", **{"prompt": "Q", **more}) == (kind, message)


@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        ({"scores": [3, 3]}, "tie", "'scores' gives every answer 3: none is preferred"),
        ({"scores": [3, math.nan]}, "non_finite_number", "'scores' holds nan, not a finite number"),
        ({"scores": ["3", "inf"]}, "non_finite_number", "'scores' holds inf, not a finite number"),
        ({"scores": [3, "good"]}, "wrong_type", "'scores' must hold numbers, one is the text 'good'"),
        ({"scores": [3, None]}, "wrong_type", "'scores' must hold numbers, one is null"),
        ({"scores": [3, 1, 2]}, "uneven", "'answers' holds 2 answers and 'scores' 3 numbers for them"),
        ({"answers": ["A"], "scores": [3]}, "one_answer", "'answers' holds one answer; at least two can be compared"),
    ],
)
def test_ratings_that_prefer_nothing(more, kind, message):
    assert problem("rating", **{"prompt": "Q", "answers": ["A", "B"], **more}) == (kind, message)


def test_some_ratings_may_be_equal_and_the_first_stays_first():
    row = read("rating", prompt="Q", answers=["A", "B", "C"], scores=[2, 4, 2])
    assert (row.answers, row.scores) == (("B", "A", "C"), (4.0, 2.0, 2.0))


def test_tools_are_kept_and_other_columns_become_metadata():
    for shape, value in (
        ("ranking", RANKED["ranks inside"]),
        ("rating", RATED["inside"]),
        ("unpaired_preference", JUDGED["texts"]),
    ):
        row = read(shape, **value, tools=[{"type": "function"}], source="web")
        assert (row.tools, row.metadata) == (({"type": "function"},), {"source": "web"})
