"""What holds for every shape: each entry of the room passes the same battery, with examples from its own documentation."""

import json
from dataclasses import FrozenInstanceError

import pytest

from tunewright.data.rows import (
    ChatRow,
    JudgedRow,
    LabelRow,
    LabelsRow,
    NumberRow,
    PreferenceRow,
    PromptRow,
    QuestionRow,
    RankingRow,
    RatingRow,
    SoftLabelRow,
    TagsRow,
    TextRow,
)
from tunewright.data.shapes import RowProblem, detect, room
from tunewright.data.sources import Record

USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
EXAMPLES = {
    "chat": ({"messages": [USER, ASSISTANT], "tools": [{"type": "function"}]}, ChatRow, "messages"),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        ChatRow,
        "conversations",
    ),
    "prompt_completion": ({"prompt": "Hi", "completion": "Hello"}, PromptRow, "completion"),
    "alpaca": ({"instruction": "Greet", "input": "", "output": "Hello"}, PromptRow, "output"),
    "text_label": ({"text": "Hi", "label": "greeting"}, LabelRow, "label"),
    "text": ({"text": "Hi"}, TextRow, "text"),
    "preference": ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}, PreferenceRow, "chosen"),
    "openai_preference": (
        {
            "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [ASSISTANT],
            "non_preferred_output": [{"role": "assistant", "content": "Go away"}],
        },
        PreferenceRow,
        "preferred_output",
    ),
    "unpaired_preference": ({"prompt": "Hi", "completion": "Hello", "label": True}, JudgedRow, "label"),
    "ranking": ({"prompt": "Hi", "answers": ["Hello", "Hm", "Go away"]}, RankingRow, "answers"),
    "rating": ({"prompt": "Hi", "answers": ["Hm", "Hello"], "scores": [2, 4.5]}, RatingRow, "scores"),
    "text_labels": ({"text": "Hi", "labels": ["greeting", "short"]}, LabelsRow, "labels"),
    "text_score": ({"text": "Hi", "score": 0.5}, NumberRow, "score"),
    "soft_label": ({"text": "Hi", "distribution": {"greeting": 0.75, "farewell": 0.25}}, SoftLabelRow, "distribution"),
    "tokens_tags": ({"tokens": ["Hi", "Ann"], "tags": ["O", "B-PER"]}, TagsRow, "tags"),
    "question_context": (
        {"question": "Who?", "context": "Hi Ann", "answers": {"text": ["Ann"], "answer_start": [3]}},
        QuestionRow,
        "answers",
    ),
}


@pytest.fixture(params=room.names())
def case(request):
    assert request.param in EXAMPLES, "a new shape needs an example here"
    value, kind, answer = EXAMPLES[request.param]
    return request.param, value, kind, answer


def test_its_own_rows_are_detected_and_read(case):
    name, value, kind, _ = case
    record = Record({**value, "source": "kept"}, "f.jsonl:3")
    detected = detect([record] * 3)
    assert detected.name == name
    assert detected.shape.title in detected.why
    row = detected.shape.row(record)
    assert type(row) is kind
    assert (row.where, row.metadata) == ("f.jsonl:3", {"source": "kept"})
    assert row.input_text()
    assert kind is TextRow or row.target_text()


def test_rows_are_frozen_hashable_by_content_and_json(case):
    name, value, _, _ = case
    shape = room[name]()
    row, again = shape.row(Record(value, "a:1")), shape.row(Record({**value, "other": 1}, "b:2"))
    assert row.key() == again.key()
    json.dumps(row.content(), allow_nan=False)
    with pytest.raises(FrozenInstanceError):
        row.where = "c:3"


def test_null_wrong_type_and_missing_are_row_problems(case):
    name, value, _, answer = case
    shape = room[name]()
    wrong = {"text_score": (True, "much"), "soft_label": (["a"], 3.5)}.get(name, ({"a": 1}, 3.5))
    for bad, kinds in ((None, {"null"}), *((bad, {"wrong_type"}) for bad in wrong)):
        with pytest.raises(RowProblem) as caught:
            shape.row(Record({**value, answer: bad}, "a:1"))
        assert caught.value.kind in kinds
        assert answer in caught.value.message
    with pytest.raises(RowProblem) as caught:
        shape.row(Record({key: item for key, item in value.items() if key != answer}, "a:1"))
    assert caught.value.kind == "missing_column"


def test_what_it_uses_is_what_it_reads(case):
    name, value, _, _ = case
    used = room[name]().uses(value)
    assert used
    assert set(used) <= set(value)
    assert not room[name]().uses({"unrelated": 1})
