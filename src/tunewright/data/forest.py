"""The forest: what a batch is.

A batch is one row of tokens cut into *segments*. A segment may have a *parent*: it attends to its ancestors and causally to
itself, and its positions go on from its parent's end. Nothing else is visible to it. A *tree* is one segment without a parent and
everything below it; it is the unit that is planned, packed and never cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Segment:
    """A run of tokens.

    Args:
        tokens: token ids.
        parent: index, within its tree, of the segment that this one continues; None for the root.
        targets: for each token, the weight with which it is learned (0: only read); empty means all 0. The first token of a
            root has nothing before it and cannot be a target.
        tuning: which tuning of a bank owns the segment.
        label: the class index that a task head should give this segment; None where no head reads it.
        values: the numbers that a task head should give this segment (0 or 1 a label, the targets of a regression).
        tags: for each token, what a task head should give it: a class, or the marks of a span; -1: nothing. Empty means all -1.
        row: the index, in the caller's list, of the row that this segment was made from.
    """

    tokens: tuple[int, ...]
    parent: int | None = None
    targets: tuple[float, ...] = ()
    tuning: int = 0
    label: int | None = None
    values: tuple[float, ...] = ()
    tags: tuple[int, ...] = ()
    row: int = 0

    @property
    def read_whole(self) -> bool:
        """Whether a task head reads the segment, so that it cannot be cut."""
        return self.label is not None or bool(self.values or self.tags)

    @property
    def trained(self) -> int:
        """How many tokens carry a loss."""
        return sum(weight > 0 for weight in self.targets)


@dataclass(frozen=True)
class Tree:
    """Segments in an order where parents stand before their children; the first is the root."""

    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        for index, segment in enumerate(self.segments):
            if (segment.parent is None) != (index == 0) or (segment.parent is not None and segment.parent >= index):
                raise ValueError(f"segment {index} of a tree has parent {segment.parent}; parents stand before children")
            if segment.targets and len(segment.targets) != len(segment.tokens):
                raise ValueError(f"segment {index} has {len(segment.tokens)} tokens and {len(segment.targets)} target weights")
            if segment.tags and len(segment.tags) != len(segment.tokens):
                raise ValueError(f"segment {index} has {len(segment.tokens)} tokens and {len(segment.tags)} tags")
            if segment.parent is None and segment.targets and segment.targets[0] > 0:
                raise ValueError("the first token of a root cannot be a target: nothing stands before it")
            if segment.tuning != self.segments[0].tuning:
                raise ValueError(f"segment {index} of a tree is of tuning {segment.tuning}, its root of {self.segments[0].tuning}")

    @property
    def varies(self) -> bool:
        """Whether a part of it is drawn, so that each epoch learns from another tree of the same size."""
        return False

    def redrawn(self, seed: int) -> Tree:
        """The tree with what is drawn in it drawn from `seed`; one in which nothing is drawn stays as it is."""
        return self

    @property
    def tuning(self) -> int:
        """The tuning of a bank that owns the tree."""
        return self.segments[0].tuning

    def owned_by(self, tuning: int) -> Tree:
        """The same tree as a tuning's own."""
        return Tree(tuple(replace(segment, tuning=tuning) for segment in self.segments))

    @property
    def size(self) -> int:
        """Tokens in all segments."""
        return sum(len(segment.tokens) for segment in self.segments)

    @property
    def trained(self) -> int:
        """Tokens that carry a loss."""
        return sum(segment.trained for segment in self.segments)

    def path(self, index: int) -> list[int]:
        """Indexes from the root down to segment `index`, both included."""
        chain: list[int] = []
        here: int | None = index
        while here is not None:
            chain.append(here)
            here = self.segments[here].parent
        return chain[::-1]

    def depth(self, index: int) -> int:
        """How many tokens stand before segment `index` on its path: its first position."""
        return sum(len(self.segments[ancestor].tokens) for ancestor in self.path(index)[:-1])

    def leaves(self) -> list[int]:
        """Indexes of the segments that nothing continues."""
        parents = {segment.parent for segment in self.segments}
        return [index for index in range(len(self.segments)) if index not in parents]


def single(tokens: tuple[int, ...], targets: tuple[float, ...] = (), *, label: int | None = None, row: int = 0) -> Tree:
    """A tree of one segment: a plain supervised example."""
    return Tree((Segment(tokens, None, targets, label=label, row=row),))


@dataclass(frozen=True)
class Forest:
    """The trees of one batch, packed into one row of tokens."""

    trees: tuple[Tree, ...]

    @property
    def size(self) -> int:
        """Tokens in the row."""
        return sum(tree.size for tree in self.trees)

    @property
    def trained(self) -> int:
        """Tokens that carry a loss."""
        return sum(tree.trained for tree in self.trees)
