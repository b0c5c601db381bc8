"""Trees that begin alike become one tree, so that what they share is computed once: the shots of a benchmark, a system prompt.

The result computes the same: a segment sees the same tokens at the same positions, whoever else stands behind them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from tunewright.data.forest import Segment, Tree

LEAST = 16  # tokens from which a common beginning is worth a segment of its own
NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class Shared:
    """One tree in place of several.

    Args:
        tree: the common beginning as the root, and every member behind it: what is left of its root, then its other segments.
            A tree that shares nothing stands as it was.
        members: indexes of the trees that it stands for.
    """

    tree: Tree
    members: tuple[int, ...]


def shared(trees: Sequence[Tree], token_budget: int, least: int = LEAST, edges: Mapping[int, int] = NOTHING) -> list[Shared]:
    """Trees of equal beginnings merged, every tree in exactly one of the results.

    Trees are taken in the order of their tokens, and each joins those before it unless that saves less than staying apart. Roots
    that a head is to read keep to themselves, since it reads whole segments; so does everything from a root's first target on.

    Args:
        trees: of any tunings; those of different ones share nothing.
        token_budget: tokens that a merged tree may have.
        least: shortest common beginning that is made a root.
        edges: for some tunings, how many of a prompt's last tokens no other prompt may share (`Lanes.edges`).
    """
    order = sorted(range(len(trees)), key=lambda index: (trees[index].tuning, trees[index].segments[0].tokens))
    groups: list[list[int]] = []
    prefix = saved = size = 0  # of the last group: tokens it may share, those it saves so far, those it has
    for place, index in enumerate(order):
        tree, reach = trees[index], _reach(trees[index], edges)
        ahead = _common(tree, trees[order[place + 1]]) if place + 1 < len(order) else 0
        if groups:
            common = min(prefix, reach, _common(trees[groups[-1][-1]], tree))
            gain = len(groups[-1]) * common - saved
            # What the tree would save with the next one in a group of their own must not be more than both save here.
            if common >= least and gain + min(common, ahead) >= ahead and size + tree.size - gain <= token_budget:
                groups[-1].append(index)
                prefix, saved, size = common, saved + gain, size + tree.size - gain
                continue
        groups.append([index])
        prefix, saved, size = reach, 0, tree.size
    return [_merged(trees, members, edges) for members in groups]


def _reach(tree: Tree, edges: Mapping[int, int]) -> int:
    """How many tokens of the root may be shared: those before its first target, all but the last or the last few of a prompt."""
    root = tree.segments[0]
    if root.read_whole:
        return 0
    first = next((place for place, weight in enumerate(root.targets) if weight > 0), len(root.tokens))
    return max(0, min(first - edges.get(tree.tuning, 0), len(root.tokens) - 1))


def _common(one: Tree, other: Tree) -> int:
    """Tokens with which both roots begin."""
    if one.tuning != other.tuning:
        return 0
    left, right = one.segments[0].tokens, other.segments[0].tokens
    length = min(len(left), len(right))
    if left[:length] == right[:length]:
        return length
    return next(place for place in range(length) if left[place] != right[place])


def _merged(trees: Sequence[Tree], members: Sequence[int], edges: Mapping[int, int]) -> Shared:
    if len(members) == 1:
        return Shared(trees[members[0]], tuple(members))
    first, last = trees[members[0]], trees[members[-1]]
    cut = min(
        _common(first, last), *(_reach(trees[index], edges) for index in members)
    )  # sorted: what the outer two share, all share
    segments = [Segment(first.segments[0].tokens[:cut], tuning=first.tuning, row=first.segments[0].row)]
    for index in sorted(members):
        root, *others = trees[index].segments
        begin = len(segments)
        segments.append(replace(root, tokens=root.tokens[cut:], parent=0, targets=root.targets[cut:]))
        segments += [replace(segment, parent=begin + (segment.parent or 0)) for segment in others]
    return Shared(Tree(tuple(segments)), tuple(sorted(members)))
