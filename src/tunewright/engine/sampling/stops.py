"""Stop strings: the text of an answer is read as it is written, also where a stop string spans tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoding gives for a character of which not all bytes are there
LONGEST = 8  # tokens after which bytes that make no character are taken as they are


class Listener:
    """Reads one answer.

    Args:
        decode: token ids to text, special tokens included (a stop string may name one).
        stops: what ends the answer; the one that appears first counts.
    """

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._longest = max(map(len, self._stops))
        self._tokens: list[int] = []
        self._text = ""
        # Tokens [start, read) are known as text; decoding begins at `start`, since a token's text depends on the one before it.
        self._start = self._read = 0

    def hears(self, token: int) -> str | None:
        """The text before a stop string if `token` completes one, else None."""
        self._tokens.append(token)
        known = self._decode(self._tokens[self._start : self._read])
        text = self._decode(self._tokens[self._start :])
        if (
            text.endswith(UNFINISHED) and len(self._tokens) - self._read < LONGEST
        ):  # the next token completes the character; what stands before it is looked at now
            return self._found(self._text + text[len(known) :].rstrip(UNFINISHED), len(self._text))
        before, self._text = len(self._text), self._text + text[len(known) :]
        self._start, self._read = self._read, len(self._tokens)
        return self._found(self._text, before)

    def _found(self, text: str, new: int) -> str | None:
        begin = max(0, new - self._longest + 1)
        places = [place for stop in self._stops if (place := text.find(stop, begin)) >= 0]
        return text[: min(places)] if places else None

    def tokens_of(self, text: str) -> int:
        """How many of the tokens it takes to write `text`, which the answer begins with."""
        if not text:
            return 0
        count = len(self._tokens)
        while count > 1 and self._decode(self._tokens[: count - 1]).startswith(text):
            count -= 1
        return count
