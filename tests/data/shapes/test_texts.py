"""Prompts, instructions, labels."""

import pytest

from tunewright.data.rows import ChatRow
from tunewright.data.shapes import RowProblem, room
from tunewright.data.sources import Record


def read(shape, **value):
    return room[shape]().row(Record(value, "f:1"))


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ({"instruction": "Do", "input": "", "output": "x"}, "Do"),
        ({"instruction": "Do", "input": "this", "output": "x"}, "Do\n\nthis"),
        ({"instruction": "Do", "context": None, "response": "x"}, "Do"),
        ({"instruction": "Do", "context": "about", "response": "x"}, "Do\n\nabout"),
    ],
)
def test_instructions_and_their_inputs(value, prompt):
    row = read("alpaca", **value)
    assert (row.prompt, row.completion) == (prompt, "x")


@pytest.mark.parametrize(
    ("label", "text"), [(1, "1"), (0, "0"), (2.0, "2"), ("007", "007"), ("NA", "NA"), (True, "true"), (False, "false")]
)
def test_labels_become_words(label, text):
    assert read("text_label", text="a", label=label).label == text


@pytest.mark.parametrize("label", [0.5, ["a"], {"a": 1}])
def test_labels_that_are_no_classes(label):
    with pytest.raises(RowProblem, match="'label' must be a word or a whole number"):
        read("text_label", text="a", label=label)


def test_pairs_of_texts():
    row = read("text_label", premise="a", hypothesis="b", label=1)
    assert (row.text, row.second_text, row.label, row.input_text()) == ("a", "b", "1", "a\nb")


def test_prompt_and_completion_as_messages_learn_the_completion_only():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = read("prompt_completion", prompt=turns, completion=[{"role": "assistant", "content": "d"}])
    assert isinstance(row, ChatRow)
    assert [message.weight for message in row.messages] == [0, 0, 0, 1]


def test_missing_columns_are_named_with_those_there():
    with pytest.raises(RowProblem, match=r"the column 'completion' is missing \(it has prompt, id\)"):
        read("prompt_completion", prompt="a", id=1)
