"""Where tokens stand in their prompts, for tunings that change the first or the last of a prompt's tokens only.

The prompt of a path is what comes before the path's first target; with no target at all it is everything (a text to classify).
Virtual tokens, whose ids are negative, are no part of it and do not count. A token that several paths share has one place; where
it would be among the last tokens of one prompt and not of another, the paths are laid out apart (`disagreeing`).

Shape suffix: T flat tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tunewright.data.forest import Segment, Tree
from tunewright.engine.batch import Batch
from tunewright.models.lanes import Places

OUTSIDE = -1
Marks = tuple[list[int], list[int]]
"""For each token that is not virtual: tokens of the prompt before and after it, both OUTSIDE where it is of no prompt."""


def of_prompt(tokens: Sequence[int]) -> Marks:
    """The marks of a prompt that stands alone."""
    return _marks(tokens, len(tokens), 0, 0)


def of_path(tree: Tree, leaf: int) -> Marks:
    """The marks of everything on the way from the root of `tree` to `leaf`."""
    tokens: list[int] = []
    end: int | None = None
    for index in tree.path(leaf):
        segment = tree.segments[index]
        inside = _inside(segment)
        if end is None and inside < len(segment.tokens):
            end = len(tokens) + inside
        tokens += segment.tokens
    return _marks(tokens, len(tokens) if end is None else end, 0, 0)


def of_segments(tree: Tree) -> list[Marks]:
    """The marks of every segment of a tree whose paths agree."""
    before, after = _before(tree), _after(tree)
    marks = []
    for index, segment in enumerate(tree.segments):
        end = 0 if before[index] is None else _inside(segment)
        behind = 0 if end < len(segment.tokens) else after[index][0]
        marks.append(_marks(segment.tokens, end, before[index] or 0, behind))
    return marks


def agree(tree: Tree, edge: int) -> bool:
    """Whether each shared token has one place, as far as the last `edge` tokens of a prompt are told apart."""
    if len(tree.segments) == 1 or edge == 0:
        return True
    before, after = _before(tree), _after(tree)
    for index, segment in enumerate(tree.segments):
        end = _inside(segment)
        ahead = before[index]
        if ahead is None or end < len(segment.tokens) or ahead + _counted(segment.tokens) == 0:
            continue  # its prompt has ended, or nothing of a prompt stands here
        if len({min(count, edge) for count in after[index]}) > 1:
            return False
    return True


def _inside(segment: Segment) -> int:
    """How many of a segment's tokens stand before its first target."""
    return next((place for place, weight in enumerate(segment.targets) if weight > 0), len(segment.tokens))


def _counted(tokens: Iterable[int]) -> int:
    return sum(token >= 0 for token in tokens)


def _before(tree: Tree) -> list[int | None]:
    """For each segment: the tokens of the prompt before it; None where the prompt has ended by then."""
    found: list[int | None] = []
    for segment in tree.segments:
        if segment.parent is None:
            found.append(0)
            continue
        above, parent = tree.segments[segment.parent], found[segment.parent]
        ended = parent is None or _inside(above) < len(above.tokens)
        found.append(None if parent is None or ended else parent + _counted(above.tokens))
    return found


def _after(tree: Tree) -> list[list[int]]:
    """For each segment: how many tokens of the prompt follow behind it on the ways to its leaves, each number once."""
    found: list[list[int]] = [[] for _ in tree.segments]
    for index in range(len(tree.segments) - 1, -1, -1):
        segment = tree.segments[index]
        found[index] = sorted(set(found[index])) or [0]
        if segment.parent is not None:
            end = _inside(segment)
            own = _counted(segment.tokens[:end])
            found[segment.parent] += [own] if end < len(segment.tokens) else [own + count for count in found[index]]
    return found


def _marks(tokens: Sequence[int], end: int, ahead: int, behind: int) -> Marks:
    """Of tokens whose prompt ends at `end`, with `ahead` of its tokens before these and `behind` after them."""
    inside = _counted(tokens[:end])
    rest = [OUTSIDE] * (_counted(tokens) - inside)
    total = ahead + inside + behind
    left = list(range(ahead, ahead + inside))
    return left + rest, [total - 1 - place for place in left] + rest


def disagreeing(trees: Sequence[Tree], edges: Mapping[int, int]) -> frozenset[int]:
    """The numbers of the trees in which a shared token has two places, so that they are laid out path by path.

    Args:
        edges: for the tunings that ask, how many of a prompt's last tokens they tell apart (`Lanes.edges`).
    """
    if not edges:
        return frozenset()
    return frozenset(number for number, tree in enumerate(trees) if not agree(tree, edges.get(tree.tuning, 0)))


def placed(batch: Batch, trees: Sequence[Tree], edges: Mapping[int, int]) -> Batch:
    """A batch that was just made of `trees`, with its `places`."""
    if batch.source_BT is not None:
        assert batch.source_mask_BT is not None
        marks = [of_prompt(tree.segments[0].tokens) for tree in trees for _ in tree.leaves()]
        return replace(batch, places=at(batch.source_BT, marks, batch.source_mask_BT))
    apart = disagreeing(trees, edges) if batch.mask_BT is None else range(len(trees))
    marks = []
    for number, tree in enumerate(trees):
        marks += [of_path(tree, leaf) for leaf in tree.leaves()] if number in apart else of_segments(tree)
    return replace(batch, places=at(batch.tokens_BT, marks, batch.mask_BT))


def at(tokens_BT: Tensor, marks: Iterable[Marks], mask_BT: Tensor | None = None) -> Places:
    """The marks of everything that stands in a batch, in order, as tensors over all of its positions.

    What stands behind all that has marks fills up a row and belongs to no prompt.

    Args:
        tokens_BT: with virtual tokens wherever they stand; of the marks they need none.
        mask_BT: 0 at padding, which has no marks either.
    """
    real_T = (tokens_BT >= 0).flatten()
    if mask_BT is not None:
        real_T &= mask_BT.flatten() > 0
    left: list[int] = []
    right: list[int] = []
    for one, other in marks:
        left += one
        right += other
    ahead_T, behind_T = (torch.full((len(real_T),), OUTSIDE, device=real_T.device) for _ in range(2))
    stands_K = real_T.nonzero()[: len(left), 0]
    ahead_T[stands_K] = torch.tensor(left, device=real_T.device)
    behind_T[stands_K] = torch.tensor(right, device=real_T.device)
    return Places(ahead_T, behind_T)


def nowhere(count: int, device: torch.device) -> Places:
    """The places of tokens that belong to no prompt: those that are being written."""
    outside_T = torch.full((count,), OUTSIDE, device=device)
    return Places(outside_T, outside_T)
