"""The names under which files hold a text, or a pair of texts, that something is said about."""

from __future__ import annotations

PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text", "second_text"),
)
SINGLE = ("text", "sentence")


def text_keys(pairs: tuple[tuple[str, str], ...], single: tuple[str, ...], said: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The alternatives of a shape: every pair, then every single text, each with every column of what is said about it."""
    return (
        *((first, second, column) for first, second in pairs for column in said),
        *((text, column) for text in single for column in said),
    )
