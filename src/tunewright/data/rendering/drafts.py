"""Between a row and its tokens: a draft (pieces of text), a line (tokens with weights), and how a line is cut to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunewright.data.forest import Segment, Tree, single
from tunewright.data.rendering.encoding import Encoding, Piece
from tunewright.data.rendering.refusals import Refusal, RowRefused


@dataclass(frozen=True)
class Rendered:
    """A row as the model sees it.

    Args:
        tree: its tokens and, for each, the weight with which it is learned.
        truncated: how many tokens were cut away.
        where: file and line of the row.
        answer_cut: how many of the tokens cut away would have been learned.
        ended: the row teaches where its last answer ends.
        control: control tokens that the row spelt and that were written as plain characters.
        row: the index of the row in the list that was rendered.
        notes: what else was decided for this row.
        conversation: it went through the chat template.
    """

    tree: Tree
    truncated: int = 0
    where: str = ""
    answer_cut: int = 0
    ended: bool = True
    control: int = 0
    row: int = 0
    notes: tuple[str, ...] = ()
    conversation: bool = False


@dataclass(frozen=True)
class Draft:
    """A row as pieces of text.

    Args:
        pieces: in their order; the tokens of one never depend on a later one.
        seam: the index of the piece that the last answer begins with; `len(pieces)` when there is no answer yet.
        head: ids in front of the first piece.
        tail: ids behind the last piece.
        tail_weight: how much the tokens of the tail count.
        ended: the last answer ends with a trained end token.
        control: control tokens neutralised.
        notes: what the report should say about how the row was rendered.
        conversation: it went through the chat template.
    """

    pieces: tuple[Piece, ...]
    seam: int
    head: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    tail_weight: float = 0.0
    ended: bool = True
    control: int = 0
    notes: tuple[str, ...] = ()
    conversation: bool = False


@dataclass(frozen=True)
class Line:
    """A draft as tokens.

    Args:
        tokens: ids.
        weights: one for each token.
        seam: the index of the first token of the last answer.
        head: how many tokens at the front are never cut.
        cut: tokens that were cut away.
        answer_cut: how many of those would have been learned.
        ended: the last answer's end token is among the tokens and learned.
    """

    tokens: list[int]
    weights: list[float]
    seam: int
    head: int
    cut: int = 0
    answer_cut: int = 0
    ended: bool = True

    @property
    def trained(self) -> int:
        """How many tokens are learned."""
        return sum(weight > 0 for weight in self.weights)


def lines(drafts: Sequence[Draft], encoding: Encoding) -> list[Line]:
    """The lines of several drafts, with one call of the tokenizer."""
    encoded = iter(encoding.encode([piece for draft in drafts for piece in draft.pieces]))
    return [_line(draft, [next(encoded) for _ in draft.pieces], encoding) for draft in drafts]


def _line(draft: Draft, encoded: list[tuple[list[int], list[float]]], encoding: Encoding) -> Line:
    tokens = list(draft.head)
    weights = [0.0] * len(tokens)
    seam = -1
    for index, (ids, own) in enumerate(encoded):
        if index == draft.seam:
            seam = len(tokens)
        tokens += ids
        weights += own
    if seam < 0:
        seam = len(tokens)
    head = len(draft.head)
    if not head and tokens and tokens[0] == encoding.bos:
        head = 1  # the template wrote it
    # A row that writes its own end token (control_tokens: keep) needs no second one.
    tail = () if draft.tail and tokens[-len(draft.tail) :] == list(draft.tail) else draft.tail
    tokens += tail
    weights += [draft.tail_weight] * len(tail)
    return Line(tokens, weights, seam, head, ended=draft.ended)


def one_bos(line: Line, bos: int | None) -> Line:
    """`line`, after checking that it does not begin with two beginning-of-sequence tokens.

    Raises:
        RowRefused: it does; a base has never seen that, and answers worse for it without any error.
    """
    if bos is not None and line.tokens[:2] == [bos, bos]:
        problem = f"the row begins with two beginning-of-sequence tokens (id {bos}): one is written in the text and one is added"
        raise RowRefused(Refusal("doubled_bos", f"{problem}; take it out of the row or of the template"))
    return line


def fitted(line: Line, limit: int | None, truncate: Literal["prompt", "refuse", "answer"]) -> Line:
    """`line` cut to `limit` tokens.

    Raises:
        RowRefused: it is too long and may not be cut, or its answer alone does not fit.
    """
    total = len(line.tokens)
    if limit is None or total <= limit:
        return line
    if truncate == "refuse":
        message = f"the row has {total:,} tokens, max_tokens is {limit:,} and truncate is 'refuse'"
        raise RowRefused(refusal_with_sizes("too_long", message, line))
    if truncate == "answer":
        lost = sum(weight > 0 for weight in line.weights[limit:])
        return replace(
            line,
            tokens=line.tokens[:limit],
            weights=line.weights[:limit],
            cut=line.cut + total - limit,
            answer_cut=line.answer_cut + lost,
            ended=False,
        )
    return without_oldest(line, total - limit, limit)


def without_oldest(line: Line, count: int, limit: int) -> Line:
    """`line` without the `count` oldest tokens of its prompt; the head stays, and so does the last token of the prompt.

    Raises:
        RowRefused: the prompt is not that long.
    """
    spare = max(0, line.seam - line.head - 1)
    if count > spare:
        answer = len(line.tokens) - line.seam
        message = f"the answer has {answer:,} tokens and leaves no room for a prompt within max_tokens {limit:,}"
        raise RowRefused(refusal_with_sizes("answer_too_long", message, line))
    first, last = line.head, line.head + count
    return replace(
        line,
        tokens=line.tokens[:first] + line.tokens[last:],
        weights=line.weights[:first] + line.weights[last:],
        seam=line.seam - count,
        cut=line.cut + count,
        answer_cut=line.answer_cut + sum(weight > 0 for weight in line.weights[first:last]),
    )


def refusal_with_sizes(reason: str, message: str, line: Line) -> Refusal:
    """A refusal that carries the lengths from which the audit says what would fit."""
    return Refusal(reason, message, prompt_tokens=line.seam, answer_tokens=len(line.tokens) - line.seam)


def fitted_sides(line: Line, limit: int | None, encoding: Encoding, truncate: Literal["prompt", "refuse", "answer"]) -> Line:
    """`line` for an encoder-decoder, where prompt and answer have `limit` tokens each.

    Raises:
        RowRefused: one of the two is too long and may not be cut.
    """
    if limit is None:
        return line
    answer = len(line.tokens) - line.seam
    over = line.seam - line.head + len(encoding.prefix) + len(encoding.suffix) - limit
    if truncate == "refuse" and (over > 0 or answer > limit):
        message = f"the prompt has {line.seam:,} tokens and the answer {answer:,}, max_tokens is {limit:,} and truncate is 'refuse'"
        raise RowRefused(refusal_with_sizes("too_long", message, line))
    if answer > limit:
        if truncate == "prompt":
            message = f"the answer has {answer:,} tokens and does not fit into max_tokens {limit:,}"
            raise RowRefused(refusal_with_sizes("answer_too_long", message, line))
        line = fitted(line, line.seam + limit, "answer")
    return without_oldest(line, over, limit) if over > 0 else line


def as_tree(line: Line, encoding: Encoding, row: int, *, joined: bool) -> Tree:
    """A line as a tree: one segment, or the wrapped input of an encoder with the answer as its child."""
    line = without_rest(line)
    if joined:
        weights = (0.0, *line.weights[1:])  # the first token of a root has nothing before it and is never learned
        return single(tuple(line.tokens), weights[: len(line.tokens)], row=row)
    source = (*encoding.prefix, *line.tokens[line.head : line.seam], *encoding.suffix)
    answer = tuple(line.tokens[line.seam :])
    return Tree((Segment(source, None, row=row), Segment(answer, 0, tuple(line.weights[line.seam :]), row=row)))


def without_rest(line: Line) -> Line:
    """`line` up to its last learned token: what a template writes behind that would be computed for nothing."""
    end = next((index for index in range(len(line.tokens), 0, -1) if line.weights[index - 1] > 0), len(line.tokens))
    return line if end == len(line.tokens) else replace(line, tokens=line.tokens[:end], weights=line.weights[:end])
