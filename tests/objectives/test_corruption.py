"""What corrupted texts share: words, windows, the text of a row."""

import pytest

from tunewright.data.rows import ChatRow, LabelRow, Message, PromptRow, Row, TextRow
from tunewright.objectives._corruption import cuts, text_of, words_of
from tunewright.testing.tiny import tiny


def places(text: str, *tokens: str) -> list[tuple[int, int]]:
    found, begin = [], 0
    for token in tokens:
        start = text.index(token, begin)
        found.append((start, start + len(token)))
        begin = start + len(token)
    return found


@pytest.mark.parametrize(
    ("text", "tokens", "words"),
    [
        ("playing well", ("play", "ing", "well"), [0, 0, 1]),
        ("playing well", ("play", "ing", " we", "ll"), [0, 0, 1, 1]),  # the space belongs to the word's token
        ("stop. don't", ("stop", ".", "don", "'", "t"), [0, 1, 2, 3, 4]),
        ("日本 go", ("日", "本", "go"), [0, 1, 2]),
        ("42nd", ("4", "2", "nd"), [0, 0, 0]),
        ("", (), []),
    ],
)
def test_words_are_runs_of_letters_and_digits(text: str, tokens: tuple[str, ...], words: list[int]):
    assert words_of(text, places(text, *tokens)) == words


def test_the_bytes_of_one_character_are_one_word():
    text = "aé b"
    found = tiny("bert").tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert len(found) == 5
    assert words_of(text, found) in ([0, 0, 0, 1, 2], [0, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("count", "room", "sizes"), [(10, None, [10]), (10, 10, [10]), (11, 10, [5, 6]), (0, 4, []), (9, 4, [3, 3, 3])]
)
def test_windows_are_few_and_even(count: int, room: int | None, sizes: list[int]):
    found = cuts(count, room)
    assert [stop - start for start, stop in found] == sizes
    assert [place for start, stop in found for place in range(start, stop)] == list(range(count))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (TextRow(text="a b"), "a b"),
        (LabelRow(text="one", second_text="two", label="same"), "one\ntwo"),
        (PromptRow(prompt="ask", completion="say"), "ask\nsay"),
        (PromptRow(prompt="ask", completion=""), "ask"),
        (ChatRow(messages=(Message(role="user", content="hi"), Message(role="assistant", content="ho"))), "hi\nho"),
    ],
)
def test_the_text_of_a_row_has_no_label(row: Row, text: str):
    assert text_of(row) == text
