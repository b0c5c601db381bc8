import pytest

from tunewright.core.errors import DataError
from tunewright.data.shapes import detect
from tunewright.data.sources import Record


def records(*values):
    return [Record(value, f"f.jsonl:{line}") for line, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ("question answer id", "prompt_completion"),
        ("input output", "prompt_completion"),
        ("prompt response", "prompt_completion"),
        ("instruction input output", "alpaca"),
        ("instruction response context category", "alpaca"),
        ("sentence label idx", "text_label"),
        ("text intent domain", "text_label"),
        ("premise hypothesis label", "text_label"),
        ("sentence1 sentence2 label", "text_label"),
        ("text second_text label", "text_label"),
        ("text url timestamp", "text"),
        ("chosen rejected", "preference"),
        ("prompt chosen rejected messages score", "preference"),
        ("messages text", "chat"),
    ],
)
def test_columns_as_files_have_them(columns, name):
    assert detect(records(dict.fromkeys(columns.split(), "x"))).name == name


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (
            {"query": "a", "reply": "b"},
            ["found: query, reply", "{query: prompt, reply: completion}", "prompt_completion (prompt + completion)"],
        ),
        ({"id": 1, "section": "a", "dialogue": "b", "summary": "c"}, ["{dialogue: prompt, summary: completion}"]),
        ({"review": "a", "category": "b"}, ["{review: text, category: label}"]),
        ({"promt": "a", "completion": "b"}, ["{promt: prompt}"]),
        ({"dialog": [{}], "id": 1}, ["found: dialog (a list), id (a number)", "{dialog: messages}"]),
        ({"question": "a", "answers": ["b"]}, ["'answers' comes near to 'answer', but it holds a list"]),
        ({"name": "a", "instances": [{"input": "x"}]}, ["If 'instances' holds examples"]),
        ({"en": "a", "de": "b"}, ["--data.columns '{YOUR_COLUMN: prompt"]),
    ],
)
def test_what_fits_nothing_is_answered_with_what_was_probably_meant(value, parts):
    with pytest.raises(DataError) as caught:
        detect(records(value, value))
    assert str(caught.value).startswith("f.jsonl: the columns fit no known shape")
    for part in parts:
        assert part in str(caught.value)


def test_mixed_shapes_are_refused_with_their_counts():
    with pytest.raises(
        DataError, match=r"mixed: .*prompt_completion \(2 rows, first at f.jsonl:1\).*chat \(1 rows, first at f.jsonl:3\)"
    ):
        detect(records({"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}, {"messages": []}))


def test_a_tie_is_not_guessed():
    with pytest.raises(DataError, match=r"several shapes equally well. Allowed: prompt_completion, text_label"):
        detect(records({"question": "a", "answer": "b", "text": "c", "label": "d"}))


def test_rows_that_lost_a_column_do_not_make_a_second_shape():
    assert detect(records({"text": "a", "label": "b"}, {"text": "c"}, {"id": 1})).name == "text_label"


def test_other_fitting_shapes_are_named():
    detected = detect(records({"messages": [], "prompt": "a", "completion": "b"}))
    assert (detected.name, detected.also) == ("prompt_completion", ("chat",))
