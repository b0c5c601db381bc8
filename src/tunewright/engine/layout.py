"""Who sees whom in a forest row: the segments, their ancestors, and what follows from them.

Shape suffixes: S segments, T tokens of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

Made = TypeVar("Made")


class Marks(NamedTuple):
    """Three numbers a token that decide who sees whom: see `visible`. All [T], int32.

    Args:
        position_T: tokens that stand before it on its path.
        enter_T: when a walk through the trees, parents before children, comes to its segment.
        leave_T: when that walk has seen everything below its segment.
    """

    position_T: Tensor
    enter_T: Tensor
    leave_T: Tensor


@dataclass(frozen=True)
class Layout:
    """Who sees whom in a forest row.

    Args:
        lengths: tokens of each segment, in the order in which they stand in the row.
        paths: for each segment, the indexes of its ancestors from the root down (empty for a root).
        filled: whether the last segment only fills the row up to a length that recurs, and nobody reads it.
        kept: what attention has derived from this layout; see `derived`.
    """

    lengths: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    filled: bool = False
    kept: dict[Hashable, object] = field(default_factory=dict, compare=False, repr=False)

    def derived(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once: every layer of a network asks for the same."""
        if key not in self.kept:
            self.kept[key] = make()
        return cast(Made, self.kept[key])

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where each segment starts in the row, and where the last one ends: S + 1 numbers."""
        return tuple(accumulate(self.lengths, initial=0))

    @property
    def total(self) -> int:
        """Tokens in the row."""
        return self.starts[-1]

    @cached_property
    def rooted(self) -> bool:
        """Whether no segment has a parent."""
        return not any(self.paths)

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """The position of each segment's first token: how many tokens its ancestors hold."""
        return tuple(sum(self.lengths[ancestor] for ancestor in path) for path in self.paths)

    @cached_property
    def walk(self) -> tuple[tuple[int, int], ...]:
        """(enter, leave) of each segment in a walk through the trees; `a` is `b` or above it when a.enter <= b.enter < a.leave."""
        children: list[list[int]] = [[] for _ in self.lengths]
        roots = []
        for index, path in enumerate(self.paths):
            (children[path[-1]] if path else roots).append(index)
        enter, leave = [0] * len(self.lengths), [0] * len(self.lengths)
        clock = 0
        waiting = [(index, False) for index in reversed(roots)]
        while waiting:
            index, done = waiting.pop()
            if done:
                leave[index] = clock
                continue
            enter[index] = clock
            clock += 1
            waiting.append((index, True))
            waiting.extend((child, False) for child in reversed(children[index]))
        return tuple(zip(enter, leave, strict=True))

    def marks(self, device: torch.device) -> Marks:
        """The marks of every token, on `device`."""

        def make() -> Marks:
            table = torch.tensor(
                [(depth - start, *walked) for depth, start, walked in zip(self.depths, self.starts[:-1], self.walk, strict=True)],
                dtype=torch.int32,
            ).reshape(-1, 3)
            spread_T3 = table.repeat_interleave(torch.tensor(self.lengths, dtype=torch.long), dim=0)
            places_T = torch.arange(self.total, dtype=torch.int32)
            position_T, enter_T, leave_T = (column.contiguous().to(device) for column in spread_T3.unbind(1))
            return Marks(position_T + places_T.to(device), enter_T, leave_T)

        return self.derived(("marks", device), make)


def visible(marks: Marks, rows: Tensor, columns: Tensor, causal: bool, window: int | None) -> Tensor:
    """Whether the tokens `rows` may look at the tokens `columns`: a boolean tensor of their broadcast shape.

    Segment a is segment b, or above it, where enter_a <= enter_b < leave_a: two comparisons instead of a table of segments, so the
    same formula serves a kernel that evaluates it token by token.

    Args:
        marks: of the layout.
        rows, columns: flat places in the row, integer tensors that broadcast.
        causal: only what stands at the same position or before.
        window: only what stands fewer than this many positions away; None for everything.
    """
    seen = (marks.enter_T[columns] <= marks.enter_T[rows]) & (marks.enter_T[rows] < marks.leave_T[columns])
    apart = marks.position_T[rows] - marks.position_T[columns]
    if causal:
        seen = seen & (apart >= 0)
    if window is not None:
        seen = seen & (apart < window) & (apart > -window)
    return seen
