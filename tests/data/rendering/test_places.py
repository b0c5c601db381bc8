"""Where tokens stand in their text: words with real sub-tokens, and windows of a context."""

import pytest

from tunewright.data.rendering import Renderer, Rendering
from tunewright.data.rendering.places import Window, windows, words
from tunewright.testing.tiny import byte_tokenizer


def renderer(kind: str = "encoder", **settings) -> Renderer:
    return Renderer(byte_tokenizer(kind), kind, 512, Rendering(**settings))  # type: ignore[arg-type]


def test_words_know_their_first_and_last_token():
    """One token a byte and one in front; `ö` has two bytes, an empty word none."""
    found = words(["ab", "ö", "", "c"], renderer())
    assert found.first == (1, 4, None, 8)
    assert found.last == (2, 5, None, 8)
    assert (len(found.tokens), found.cut) == (1 + 8 + 1, 0)


def test_a_word_that_spells_a_control_token_is_characters():
    found = words(["x", "</s>", "y"], renderer())
    assert len(found.tokens) == 2 + len("x </s> y")
    assert found.tokens.count(2) == 1  # the tokenizer's own at the end
    assert (found.first, found.last) == ((1, 3, 8), (1, 6, 8))


def test_too_many_words_lose_their_end():
    found = words(["abc", "def"], renderer(max_tokens=7))
    assert (found.first, found.last, found.cut) == ((1, 5), (3, 5), 2)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_a_window_holds_the_question_and_says_where_the_context_stands(kind: str):
    (window,) = windows("q?", "ab c", renderer(kind), 2)
    found = renderer(kind)
    assert found.encoding.decode(window.tokens[window.begin : window.begin + 4]) == "ab c"
    assert window.span(3, 4) == (window.begin + 3, window.begin + 3)
    assert window.span(0, 4) == (window.begin, window.begin + 3)
    assert window.begin == (2 if kind == "encoder" else 3)  # a line break between them where the tokenizer has nothing


def test_a_span_that_is_not_all_here_is_none():
    window = Window((9, 9, 9), 1, ((4, 6), (6, 9)))
    assert window.span(4, 9) == (1, 2)
    assert window.span(5, 7) == (1, 2)  # tokens may begin before the span
    assert window.span(2, 6) is None
    assert window.span(6, 10) is None
    assert window.span(20, 21) is None
