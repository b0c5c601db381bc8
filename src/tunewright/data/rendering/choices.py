"""One prompt with several possible answers, and whole texts for task heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tunewright.data.forest import Segment, Tree, single
from tunewright.data.rendering.drafts import Draft, Rendered, lines, one_bos, refusal_with_sizes, without_oldest, without_rest
from tunewright.data.rendering.encoding import Encoding
from tunewright.data.rendering.refusals import Refusal, RowRefused
from tunewright.data.rows import LabelRow


class Choices(NamedTuple):
    """A prompt with its answers as a tree, and how many tokens of the prompt were cut away."""

    tree: Tree
    cut: int


def choices(
    drafts: Sequence[Draft], encoding: Encoding, limit: int | None, *, joined: bool, row: int = 0, cuts: bool = True
) -> Choices:
    """Drafts of the same prompt with different answers, as one tree: the prompt is the root, every answer a child of it.

    The prompt is cut, oldest part first, so that the longest answer fits; with `cuts` off the row is refused instead.

    Raises:
        RowRefused: the drafts do not share a prompt, an answer has no tokens, the answers alone do not fit, or nothing may be cut.
    """
    ready = [without_rest(line) for line in lines(drafts, encoding)]
    root = ready[0].tokens[: ready[0].seam]
    one_bos(ready[0], encoding.bos)
    for line in ready:
        if line.tokens[: line.seam] != root:
            raise RowRefused(Refusal("mask", "the prompt depends on the answer that follows it"))
        if line.seam == len(line.tokens):
            raise RowRefused(Refusal("empty_answer", "an answer to choose from is empty"))
    longest = max(ready, key=lambda line: len(line.tokens))
    answer = len(longest.tokens) - longest.seam
    added = 0 if joined else len(encoding.prefix) + len(encoding.suffix)
    over = 0 if limit is None else (len(longest.tokens) if joined else longest.seam - longest.head + added) - limit
    if limit is not None and not joined and answer > limit:
        message = f"the longest answer has {answer:,} tokens, max_tokens is {limit:,}"
        raise RowRefused(refusal_with_sizes("answer_too_long", message, longest))
    if limit is not None and over > 0 and not cuts:
        message = f"the row has {len(longest.tokens):,} tokens, max_tokens is {limit:,} and truncate is 'refuse'"
        raise RowRefused(refusal_with_sizes("too_long", message, longest))
    if limit is not None and over > 0:
        shorter = without_oldest(longest, over, limit)
        root = shorter.tokens[: shorter.seam]
    if not joined:
        root = [*encoding.prefix, *root[longest.head :], *encoding.suffix]
    children = (Segment(tuple(line.tokens[line.seam :]), 0, tuple(line.weights[line.seam :]), row=row) for line in ready)
    return Choices(Tree((Segment(tuple(root), None, row=row), *children)), max(0, over))


def whole_text(row: LabelRow, encoding: Encoding, limit: int | None, label: int | None, index: int = 0) -> Rendered:
    """A labelled text with the tokens that the tokenizer puts around it, its end cut off where it is too long."""
    text, control = encoding.guard(row.text, trusted=False)
    second, more = encoding.guard(row.second_text, trusted=False)
    tokens, cut = encoding.wrapped(text, second, limit)
    if not tokens:
        raise RowRefused(Refusal("nothing_trained", "the text is empty", row.where, index))
    tree = single(tuple(tokens), label=label, row=index)
    return Rendered(tree, cut, row.where, ended=False, control=control + more, row=index)
