"""Chats in the words of OpenAI and of ShareGPT: what is kept, what is refused."""

import pytest

from tunewright.data.shapes import RowProblem, room
from tunewright.data.sources import Record

USER = {"role": "user", "content": "2+2?"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "add", "arguments": "{}"}}]}
DONE = {"role": "assistant", "content": "4"}


def read(shape, **value):
    return room[shape]().row(Record(value, "f:1"))


def test_weights_tools_and_extras_are_kept():
    tool = {"role": "tool", "tool_call_id": "1", "content": "4", "name": None}
    row = read(
        "chat", messages=[USER, CALL, tool, {**DONE, "weight": 0}, USER, {**DONE, "weight": 1}], tools=[{"type": "function"}]
    )
    assert [message.weight for message in row.messages] == [1, 1, 1, 0, 1, 1]
    assert row.messages[1].content == ""
    assert row.messages[1].extra == {"tool_calls": CALL["tool_calls"]}
    assert row.messages[2].extra == {"tool_call_id": "1"}
    assert row.tools == ({"type": "function"},)


def test_parts_of_text_are_joined():
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert read("chat", messages=[{"role": "user", "content": content}, DONE]).messages[0].content == "a\nb"


@pytest.mark.parametrize(
    ("messages", "kind", "part"),
    [
        ([{"role": "usr", "content": "a"}, DONE], "unknown_role", "'usr'; did you mean 'user'?"),
        ([{"content": "a"}, DONE], "unknown_role", "messages[0] has no role"),
        ([{"role": ["user"], "content": "a"}], "unknown_role", "messages[0]"),
        ([USER], "no_answer", "no assistant message"),
        ([], "no_messages", "empty list"),
        ("hello", "wrong_type", "must be a list of messages, it is text"),
        (["hello"], "wrong_type", "messages[0] must be an object"),
        ([{"role": "user"}, DONE], "missing_content", "messages[0] has no 'content'"),
        ([{"role": "user", "content": None}, DONE], "null", "messages[0].content is null"),
        ([{"role": "user", "content": 7}, DONE], "wrong_type", "a number (7)"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, DONE], "not_text", "image_url"),
        ([USER, {**DONE, "weight": 2}], "wrong_weight", "messages[1].weight"),
        ([USER, {**DONE, "weight": True}], "wrong_weight", "messages[1].weight"),
        ([USER, {**DONE, "weight": 0}], "nothing_to_learn", "weight 0"),
    ],
)
def test_broken_chats_are_refused_with_the_place(messages, kind, part):
    with pytest.raises(RowProblem) as caught:
        read("chat", messages=messages)
    assert caught.value.kind == kind
    assert part in caught.value.message


def test_tools_as_json_text_are_read_and_broken_ones_refused():
    assert read("chat", messages=[USER, DONE], tools='[{"type": "function"}]').tools == ({"type": "function"},)
    for tools in ("[{", {"a": 1}, ["x"]):
        with pytest.raises(RowProblem, match="tools"):
            read("chat", messages=[USER, DONE], tools=tools)


def test_sharegpt_words_are_translated():
    turns = [
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": "b"},
        {"from": "observation", "value": "c"},
        {"from": "gpt", "value": "d"},
    ]
    row = read("sharegpt", conversations=turns, system="Be brief")
    assert [message.role for message in row.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert row.messages[0].content == "Be brief"
    assert read("sharegpt", conversations=[USER, DONE]).target_text() == "4"


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        ([{"from": "humn", "value": "a"}], "unknown_role"),
        ([{"value": "a"}], "unknown_role"),
        ([{"from": "human"}], "missing_content"),
        ([{"from": "human", "value": None}, {"from": "gpt", "value": "b"}], "null"),
        ([{"from": "human", "value": "a"}], "no_answer"),
        (None, "null"),
    ],
)
def test_broken_sharegpt(turns, kind):
    with pytest.raises(RowProblem) as caught:
        read("sharegpt", conversations=turns)
    assert caught.value.kind == kind
