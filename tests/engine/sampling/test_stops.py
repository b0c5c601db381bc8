"""Stop strings in answers whose tokens cut words, characters and stop strings anywhere."""

from collections.abc import Sequence

import pytest

from tunewright.engine.sampling.stops import Listener
from tunewright.testing.tiny import byte_tokenizer

WORDS = ["", "Ans", "wer: 4", "2\n", "\nQ", "uestion", "\n\n", "\n", " end", "wer: 42\n\nQ"]


def spell(tokens: Sequence[int]) -> str:
    return "".join(WORDS[token] for token in tokens)


def hear(tokens: Sequence[int], *stops: str) -> tuple[str | None, int, int]:
    """The text before the stop string, the tokens that it takes, and how many tokens were heard."""
    listener = Listener(spell, stops)
    for count, token in enumerate(tokens, 1):
        text = listener.hears(token)
        if text is not None:
            return text, listener.tokens_of(text), count
    return None, len(tokens), len(tokens)


@pytest.mark.parametrize(
    ("tokens", "stops", "wanted"),
    [
        ([1, 2, 3, 4, 5], ("\n\nQ",), ("Answer: 42", 3, 4)),  # the last of the three also holds the beginning of the stop string
        ([1, 2, 3, 4, 5], ("\n",), ("Answer: 42", 3, 3)),
        ([1, 2, 6, 4], ("\n\n",), ("Answer: 4", 2, 3)),
        ([1, 9, 5], ("\n\n", "42"), ("Answer: ", 2, 2)),  # the first to appear counts, also within one token
        ([1, 2, 3], ("Ans",), ("", 0, 1)),
        ([1, 2, 3, 7, 5], ("\n\nA", "never"), (None, 5, 5)),
        ([0, 0, 1, 0, 6], ("\n\n",), ("Ans", 3, 5)),  # tokens without text
        ([5, 8, 5, 8], ("on end question", "end"), ("uestion ", 2, 2)),
    ],
)
def test_the_text_before_a_stop_string(tokens: list[int], stops: tuple[str, ...], wanted: tuple[str | None, int, int]):
    assert hear(tokens, *stops) == wanted


@pytest.mark.parametrize(
    ("text", "stop", "before"), [("caf\u00e9 \u2603!", "\u2603", "caf\u00e9 "), ("\u2603\u2603x", "\u2603x", "\u2603")]
)
def test_characters_of_several_tokens(text: str, stop: str, before: str):
    tokenizer = byte_tokenizer()
    listener = Listener(tokenizer.decode, (stop,))
    heard = [found for token in tokenizer(text).input_ids if (found := listener.hears(token)) is not None]
    assert heard[0] == before
    assert listener.tokens_of(before) == len(before.encode())


def test_an_unfinished_character_does_not_hide_a_stop_string():
    tokenizer = byte_tokenizer()
    # A token of `.` and the first byte of a snowman would be heard as one; here they come one after the other.
    ids = tokenizer("a. \u2603").input_ids
    listener = Listener(tokenizer.decode, (". ",))
    assert [listener.hears(token) for token in ids[:3]] == [None, None, "a"]
    assert Listener(lambda tokens: "end\N{REPLACEMENT CHARACTER}" if tokens else "", ("end",)).hears(1) == ""


def test_no_stop_string_is_missed_however_text_is_cut():
    tokenizer = byte_tokenizer()
    ids = tokenizer("one, two, three. Four").input_ids
    for stop in (",", ", t", "two", "ee. F", "Four", "r"):
        listener = Listener(tokenizer.decode, (stop,))
        text = next(found for token in ids if (found := listener.hears(token)) is not None)
        assert text == "one, two, three. Four".split(stop, 1)[0]
