"""Texts whose tokens are asked where they stand: the words of a tagged sentence, the windows of a context with a question.

A task head that reads single tokens must know which characters each of them covers; these two say it, in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunewright.data.rendering.encoding import Encoding, Piece
from tunewright.data.rendering.refusals import Refusal, RowRefused
from tunewright.data.rendering.renderer import Renderer

LEAST_CONTEXT = 16  # tokens of a context in a window, below which a question leaves no room


@dataclass(frozen=True)
class Words:
    """Words as tokens.

    Args:
        tokens: ids, with what the tokenizer puts around a text.
        first, last: for each word the index of its first and of its last token; None where it has none of its own (it was cut
            off, or the tokenizer drops its characters).
        cut: tokens that were cut off the end.
    """

    tokens: tuple[int, ...]
    first: tuple[int | None, ...]
    last: tuple[int | None, ...]
    cut: int


@dataclass(frozen=True)
class Window:
    """A question with a part of its context.

    Args:
        tokens: ids, with what stands around and between the two.
        begin: the index of the context's first token.
        places: for each of the context's tokens in this window, the characters of the context that it covers.
    """

    tokens: tuple[int, ...]
    begin: int
    places: tuple[tuple[int, int], ...]

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """The indexes of the first and last token that cover the characters `start` to `end`; None where not all are here."""
        inside = [index for index, (first, last) in enumerate(self.places) if first < end and last > start and last > first]
        if not inside or self.places[inside[0]][0] > start or self.places[inside[-1]][1] < end:
            return None
        return self.begin + inside[0], self.begin + inside[-1]


def words(texts: Sequence[str], renderer: Renderer) -> Words:
    """Words, joined by spaces, as tokens that know their word; too many lose their end."""
    encoding = renderer.encoding
    ids, places = encoding.located(" ".join(texts))
    room = None if renderer.limit is None else max(0, renderer.limit - len(encoding.prefix) - len(encoding.suffix))
    kept = len(ids) if room is None else min(len(ids), room)
    first: list[int | None] = [None] * len(texts)
    last: list[int | None] = [None] * len(texts)
    begin, word = 0, 0
    for index, (start, end) in enumerate(places[:kept]):
        # Offsets may begin with the space before a word: what counts is where a token ends.
        while word < len(texts) and end > begin + len(texts[word]):
            begin, word = begin + len(texts[word]) + 1, word + 1
        if word == len(texts):
            break
        if start < end and end > begin:
            first[word] = len(encoding.prefix) + index if first[word] is None else first[word]
            last[word] = len(encoding.prefix) + index
    return Words((*encoding.prefix, *ids[:kept], *encoding.suffix), tuple(first), tuple(last), len(ids) - kept)


def windows(question: str, context: str, renderer: Renderer, overlap: int) -> list[Window]:
    """A question with its context, whole where it fits, else with overlapping parts of it.

    Encoders: as the tokenizer joins pairs. Decoders: the question, a line break, the context; so every token of the context has
    seen the question.

    Args:
        question: stands whole in every window.
        context: what is read for the answer.
        renderer: says how long a window may be (`rendering.max_tokens`).
        overlap: tokens that neighbouring windows share, at most half of what a window holds.

    Raises:
        RowRefused: the question leaves no room for a context, or the context has no token.
    """
    encoding = renderer.encoding
    before, between, behind = _around(encoding, renderer.kind)
    guarded, _ = encoding.guard(question.strip(), trusted=False)
    head = (*before, *encoding.encode([Piece(guarded, opens=True)])[0][0], *between)
    ids, places = encoding.located(context)
    if not ids:
        raise RowRefused(Refusal("nothing_trained", "the context is empty"))
    room = len(ids) if renderer.limit is None else renderer.limit - len(head) - len(behind)
    if room < min(len(ids), LEAST_CONTEXT):
        message = f"the question has {len(head):,} tokens; of {renderer.limit:,}, too few are left for its context"
        raise RowRefused(Refusal("too_long", message))
    stride = room - min(overlap, room // 2)
    found = []
    for start in range(0, len(ids), max(1, stride)):
        end = min(start + room, len(ids))
        found.append(Window((*head, *ids[start:end], *behind), len(head), tuple(places[start:end])))
        if end == len(ids):
            break
    return found


def _around(encoding: Encoding, kind: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    if kind == "encoder":
        return encoding.around_pair
    return encoding.prefix, tuple(encoding.ids("\n")), encoding.suffix
