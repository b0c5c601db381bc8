"""Preference pairs in every layout that files have."""

import pytest

from tunewright.data.shapes import RowProblem, room
from tunewright.data.sources import Record


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def read(shape="preference", **value):
    return room[shape]().row(Record(value, "f:1"))


LAYOUTS = {
    "texts": {"prompt": "Q", "chosen": "A", "rejected": "B"},
    "messages": {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
    "prompt text, answers with the prompt": {
        "prompt": "Q",
        "chosen": [user("Q"), assistant("A")],
        "rejected": [user("Q"), assistant("B")],
    },
    "prompt inside messages": {"chosen": [user("Q"), assistant("A")], "rejected": [user("Q"), assistant("B")]},
    "prompt inside transcripts": {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
    "transcript as prompt": {"prompt": "Human: Q\n\nAssistant:", "chosen": "A", "rejected": "B"},
    "prompt inside texts": {"chosen": "Q\nA", "rejected": "Q\nB"},
}


@pytest.mark.parametrize("value", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_the_same_row(value):
    row = read(**value)
    assert [(message.role, message.content) for message in row.messages] == [("user", "Q")]
    assert (row.chosen, row.rejected) == ("A", "B")
    assert row.key() == read(**LAYOUTS["texts"]).key()


def test_transcripts_become_turns():
    row = read(prompt="Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", chosen="d", rejected="e")
    assert [message.role for message in row.messages] == ["user", "assistant", "user"]


def test_openai_keeps_tools():
    row = read(
        "openai_preference",
        input={"messages": [user("Q")], "tools": [{"type": "function"}]},
        preferred_output=[assistant("A")],
        non_preferred_output=[assistant("B")],
    )
    assert row.tools == ({"type": "function"},)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "A "}, "same_answers"),
        ({"prompt": "Q", "chosen": "A", "rejected": None}, "null"),
        ({"prompt": None, "chosen": "A", "rejected": "B"}, "null"),
        ({"prompt": "Q", "chosen": [assistant("A")], "rejected": "B"}, "wrong_type"),
        ({"prompt": "Q", "chosen": [user("other"), assistant("A")], "rejected": [user("Q"), assistant("B")]}, "different_prompts"),
        ({"chosen": [user("Q"), assistant("A")], "rejected": [user("R"), assistant("B")]}, "different_prompts"),
        ({"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: R\n\nAssistant: B"}, "different_prompts"),
        ({"chosen": "The answer is A", "rejected": "The answer is B"}, "no_prompt"),
        ({"chosen": [assistant("A")], "rejected": [assistant("B")]}, "no_prompt"),
        ({"prompt": "Q", "chosen": [user("A")], "rejected": [assistant("B")]}, "answer_not_one_message"),
    ],
)
def test_pairs_that_prefer_nothing_or_do_not_belong_together(value, kind):
    with pytest.raises(RowProblem) as caught:
        read(**value)
    assert caught.value.kind == kind


def test_openai_input_must_hold_messages():
    with pytest.raises(RowProblem, match="'input' must be an object with 'messages', it is text"):
        read("openai_preference", input="Q", preferred_output=[assistant("A")], non_preferred_output=[assistant("B")])
