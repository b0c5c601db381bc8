"""The words of an answer as SQuAD's evaluation takes them: lower case, without punctuation and without a, an, the."""

from __future__ import annotations

import re
import string

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def squad_words(text: str) -> list[str]:
    """The words of a text, normalised."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
