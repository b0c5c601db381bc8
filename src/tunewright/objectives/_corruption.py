"""Texts with a part hidden: what is hidden is drawn anew in every epoch, and is always the same where something is measured.

A row's text becomes windows of tokens. A `Corrupted` tree holds such a window and who corrupts it, so that it can be drawn again
(`Tree.redrawn`): training draws from (seed, epoch, tree), however a step is cut. The draw that a tree is planted with depends on
the row's content alone; evaluations use it, so base and tuned model are asked for the same tokens, in every run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from tunewright.core.seeds import derive
from tunewright.data.forest import Segment, Tree
from tunewright.data.rows import ChatRow, LabelRow, PromptRow, Row, TextRow

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered, Renderer

ROWS: tuple[type[Row], ...] = (TextRow, LabelRow, PromptRow, ChatRow)
"""Rows that hold text; nothing but the text is looked at."""


@dataclass(frozen=True)
class Window:
    """A stretch of a text, as the tokenizer cuts it.

    Args:
        tokens: ids, with nothing around them.
        words: for each token the number of its word, rising.
        weight: how much its row counts.
        row: the index of the row.
    """

    tokens: tuple[int, ...]
    words: tuple[int, ...]
    weight: float = 1.0
    row: int = 0


class Corruption(ABC):
    """How a window is corrupted."""

    @abstractmethod
    def problem(self, window: Window) -> str:
        """Why nothing of the window could be learned, in words; empty where something can."""

    @abstractmethod
    def segments(self, window: Window, seed: int) -> tuple[Segment, ...]:
        """The window with a part of it hidden; as many tokens whatever the seed."""


@dataclass(frozen=True)
class Corrupted(Tree):
    """A tree of a window of which a part is hidden."""

    window: Window
    corruption: Corruption

    @property
    def varies(self) -> bool:
        return True

    def redrawn(self, seed: int) -> Tree:
        return replace(self, segments=self.corruption.segments(self.window, seed))


def planted(rows: Sequence[Row], renderer: Renderer, corruption: Corruption, room: int | None) -> list[Rendered | Refusal]:
    """Rows as corrupted trees, one for each window of at most `room` tokens, or the reasons why they cannot be; in order."""
    found: list[Rendered | Refusal] = []
    for number, row in enumerate(rows):
        found.extend(_planted(row, number, renderer, corruption, room))
    return found


def _planted(row: Row, number: int, renderer: Renderer, corruption: Corruption, room: int | None) -> list[Rendered | Refusal]:
    from tunewright.data.rendering import Refusal, Rendered

    text = text_of(row)
    if not isinstance(row, ROWS) or not text.strip() or row.weight <= 0:
        problem = f"a row of shape '{row.shape}' holds no text" if not isinstance(row, ROWS) else "the text is empty"
        problem = f"no token of the row would be learned (its weight is {row.weight:g})" if row.weight <= 0 else problem
        return [Refusal("shape" if not isinstance(row, ROWS) else "nothing_trained", problem, row.where, number)]
    tokens, places = renderer.encoding.located(text)
    words, control = words_of(text, places), renderer.encoding.guard(text, trusted=False)[1]
    windows = [
        Window(tuple(tokens[start:stop]), tuple(words[start:stop]), row.weight, number) for start, stop in cuts(len(tokens), room)
    ]
    problems = [corruption.problem(window) for window in windows]
    if not windows or all(problems):
        return [Refusal("nothing_trained", problems[0] if problems else "the text has no tokens", row.where, number)]
    seeds = [derive(0, "measured", row.key(), place) for place in range(len(windows))]
    trees = [
        Corrupted(corruption.segments(window, seed), window, corruption)
        for window, seed, problem in zip(windows, seeds, problems, strict=True)
        if not problem
    ]
    return [Rendered(tree, where=row.where, row=number, control=control) for tree in trees]


def text_of(row: Row) -> str:
    """All text of a row; a label is none."""
    if isinstance(row, ChatRow):
        return "\n".join(message.content for message in row.messages)
    if isinstance(row, PromptRow):
        return f"{row.prompt}\n{row.completion}" if row.completion.strip() else row.prompt
    return row.input_text()


def cuts(count: int, room: int | None) -> list[tuple[int, int]]:
    """Where each window begins and ends: as few as hold `count` tokens, all about equally long."""
    windows = 1 if room is None else -(-count // room)
    edges = [count * number // max(1, windows) for number in range(windows + 1)]
    return list(pairwise(edges)) if count else []


def words_of(text: str, places: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the number of its word; `places` say where in the text each begins and ends.

    A word is a run of letters and digits; any other character, and any ideograph, is a word of its own. So it does not matter how
    a tokenizer marks what continues a word.
    """
    words: list[int] = []
    end = 0
    for start, stop in places:
        # Tokens of one character (its bytes) have the same place; a space that belongs to a token begins a word.
        continues = bool(words) and (start < end or (start == end and _joined(text[start - 1 : start], text[start : start + 1])))
        words.append(words[-1] if continues else (words[-1] + 1 if words else 0))
        end = max(end, stop)
    return words


def _joined(before: str, after: str) -> bool:
    return all(one.isalnum() and not "\u3040" <= one <= "\u9fff" for one in (before, after))
