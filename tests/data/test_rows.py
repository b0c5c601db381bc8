"""The rows: what makes two of them the same, and what each shape asks and answers."""

from dataclasses import replace

import pytest

from tunewright.data.rows import (
    ChatRow,
    JudgedRow,
    LabelRow,
    Message,
    PreferenceRow,
    PromptRow,
    RankingRow,
    RatingRow,
    Row,
    TextRow,
)

USER, ANSWER = Message(role="user", content="2+2?"), Message(role="assistant", content="4")
ROWS = {
    "prompt_completion": PromptRow(prompt="ask", completion="say"),
    "chat": ChatRow(messages=(USER, ANSWER), tools=({"name": "add"},)),
    "text_label": LabelRow(text="fine", label="good", second_text="and more"),
    "text": TextRow(text="once"),
    "preference": PreferenceRow(messages=(USER,), chosen="4", rejected="5"),
    "unpaired_preference": JudgedRow(messages=(USER,), completion="5", label=False),
    "ranking": RankingRow(messages=(USER,), answers=("4", "four", "5")),
    "rating": RatingRow(messages=(USER,), answers=("4", "5"), scores=(3.0, 1.0)),
}
# Leakage checks, splits and resumed runs rest on these hashes: a change here breaks every folder already on a disk.
KEYS = {
    "prompt_completion": "8b2c10757aa1aef80b5647e867ec9ee0",
    "chat": "22aa7ec8fd2b18039ab5245772f4fc3b",
    "text_label": "db92041da07ddd5f24991bb37fdff61b",
    "text": "21e569780284a86ff4fb4183bdcfed43",
    "preference": "a0b30a572ceb6e770d2cc30c772bb20f",
    "unpaired_preference": "3689f74136efee0fa2c0c3aa7876490f",
    "ranking": "555d4a4825f43b0970baafdc695a700c",
    "rating": "a70747095b9c0160bdbae895dcee6654",
}


@pytest.mark.parametrize("shape", ROWS)
def test_a_key_is_the_same_in_every_version(shape: str):
    assert ROWS[shape].shape == shape
    assert ROWS[shape].key() == KEYS[shape]


@pytest.mark.parametrize("shape", ROWS)
@pytest.mark.parametrize("origin", [{"where": "other.jsonl:9"}, {"group": "an author"}, {"metadata": {"id": 7}}], ids=str)
def test_a_key_does_not_know_where_a_row_came_from(shape: str, origin: dict):
    moved = replace(ROWS[shape], **origin)
    assert moved.key() == ROWS[shape].key()
    assert not set(origin) & set(moved.content())


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        *((shape, {"weight": 0.5}) for shape in ROWS),
        ("prompt_completion", {"prompt": "ask "}),
        ("prompt_completion", {"completion": "Say"}),
        ("chat", {"tools": ()}),
        ("chat", {"messages": (USER, replace(ANSWER, weight=0.0))}),
        ("chat", {"messages": (USER, replace(ANSWER, extra={"name": "bob"}))}),
        ("chat", {"messages": (ANSWER, USER)}),
        ("text_label", {"label": "bad"}),
        ("text_label", {"second_text": ""}),
        ("text", {"text": "twice"}),
        ("preference", {"chosen": "5", "rejected": "4"}),
        ("unpaired_preference", {"label": True}),
        ("ranking", {"answers": ("four", "4", "5")}),
        ("rating", {"scores": (3.0, 2.0)}),
    ],
    ids=str,
)
def test_a_key_sees_every_change_of_the_content(shape: str, change: dict):
    assert replace(ROWS[shape], **change).key() != ROWS[shape].key()


def test_equal_words_in_another_shape_are_another_row():
    assert PromptRow(prompt="a", completion="b").key() != LabelRow(text="a", label="b").key()
    assert PromptRow(prompt="ab", completion="").key() != PromptRow(prompt="a", completion="b").key()


def test_a_key_does_not_depend_on_the_order_of_json_keys():
    one = ChatRow(messages=(USER,), tools=({"name": "add", "strict": True},))
    other = ChatRow(messages=(USER,), tools=({"strict": True, "name": "add"},))
    assert one.key() == other.key()


def test_a_lone_surrogate_has_a_key_too():
    keys = {TextRow(text=text).key() for text in ("\ud800", "\udfff", "?", "")}
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("row", "asked", "wanted"),
    [
        (ROWS["prompt_completion"], "ask", "say"),
        (ROWS["chat"], "user: 2+2?", "4"),
        (ROWS["text_label"], "fine\nand more", "good"),
        (LabelRow(text="alone", label="x"), "alone", "x"),
        (ROWS["text"], "once", ""),
        (ROWS["preference"], "user: 2+2?", "4"),
        (ROWS["unpaired_preference"], "user: 2+2?", "undesirable: 5"),
        (ROWS["ranking"], "user: 2+2?", '["4", "four", "5"]'),
        (ROWS["rating"], "user: 2+2?", '["4", "5"]'),
    ],
    ids=str,
)
def test_what_is_asked_and_what_is_wanted(row: Row, asked: str, wanted: str):
    assert (row.input_text(), row.target_text()) == (asked, wanted)


def test_a_chat_asks_all_that_stands_before_its_last_answer():
    more, thanks = Message(role="user", content="3+3?"), Message(role="user", content="thanks")
    row = ChatRow(messages=(USER, ANSWER, more, replace(ANSWER, content="6"), thanks))
    assert row.input_text() == "user: 2+2?\nassistant: 4\nuser: 3+3?"
    assert row.target_text() == "6"


def test_a_chat_without_an_answer_is_all_input():
    row = ChatRow(messages=(Message(role="system", content="be brief"), USER))
    assert row.input_text() == "system: be brief\nuser: 2+2?"
    assert row.target_text() == ""
