"""A forest row cut into pieces of attention: which rows ask, and which keys they may look at. Pure arithmetic on a layout.

A *piece* is a run of rows and the runs of keys that at least one of them sees. A short tree is one piece that sees itself; long
segments are cut every few rows (the tile), so that causal attention does not compute what it would mask away; short siblings that
stand side by side are joined, because they look at the same keys before them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tunewright.engine.layout import Layout

Run = tuple[int, int]

JOIN = 64  # rows up to which siblings become one piece: each then also computes, and masks, the keys of the others
OVERHEAD = 2048  # query-key pairs (times heads) whose arithmetic takes about as long as the calls of one block


@dataclass(frozen=True)
class Piece:
    """Rows that attend together.

    Args:
        rows: the run of rows that ask; with `count` above 1 the first of as many runs of equal length, one behind the other.
        context: runs of keys before `own` that every run of rows shares.
        own: the last run of keys; equal to `rows` where `count` is above 1, and moves along with it.
        plain: the rows are one whole segment (or the beginning of one), or several equal ones.
        clear: how many of the first keys every row sees whole, so that no mask is needed there.
        count: how many runs of rows.
    """

    rows: Run
    context: tuple[Run, ...]
    own: Run
    plain: bool
    clear: int
    count: int = 1

    @property
    def length(self) -> int:
        """Rows of one run."""
        return self.rows[1] - self.rows[0]

    @property
    def apart(self) -> bool:
        """Whether the rows see nothing but each other."""
        return not self.context and self.own == self.rows and self.count == 1


class Cut(NamedTuple):
    """How a layout is cut.

    Args:
        causal: rows see what stands before them, not behind.
        window: positions that a row sees, itself included; None for all.
        tile: rows of a piece at most: many make few, large products, few make little that is computed and masked away.
    """

    causal: bool
    window: int | None
    tile: int


def cut(layout: Layout, how: Cut) -> list[Piece]:
    """All pieces of a layout: every row stands in exactly one."""
    pieces: list[Piece] = []
    farthest = max((depth + own for depth, own in zip(layout.depths, layout.lengths, strict=True)), default=0)
    if how.window is not None and how.window >= farthest:
        how = how._replace(window=None)
    for tree in _trees(layout):
        size = sum(layout.lengths[index] for index in tree)
        if 0 < size <= how.tile and not layout.paths[tree[0]]:
            start = layout.starts[tree[0]]
            whole = (start, start + size)
            pieces.append(Piece(whole, (), whole, len(tree) == 1, 0))
        elif size:
            pieces.extend(_side_by_side(_of_tree(layout, tree, how)))
    return pieces


def _trees(layout: Layout) -> Iterator[Sequence[int]]:
    """Segments of each tree; one that does not stand in one run with its root is given apart, as if it were a tree."""
    tree: list[int] = []
    for index, path in enumerate(layout.paths):
        if tree and (not path or path[0] != tree[0]):
            yield tree
            tree = []
        tree.append(index)
    if tree:
        yield tree


def _of_tree(layout: Layout, tree: Sequence[int], how: Cut) -> Iterator[Piece]:
    """The pieces of a tree that is too long to be one."""
    filled = [index for index in tree if layout.lengths[index]]
    place = 0
    while place < len(filled):
        unit = [filled[place]]
        place += 1
        while layout.paths[unit[0]] and place < len(filled) and _joins(layout, unit, filled[place]):
            unit.append(filled[place])
            place += 1
        context = _merged([_span(layout, ancestor) for ancestor in layout.paths[unit[0]]])
        own = (layout.starts[unit[0]], layout.starts[unit[-1]] + layout.lengths[unit[-1]])
        if len(unit) > 1:
            yield _trimmed(Piece(own, context, own, False, _size(context)), layout, how)
            continue
        for rows in _tiles(own, how.tile):
            keys = (own[0], rows[1]) if how.causal else own
            clear = _size(context) + (rows[0] - own[0] if how.causal else own[1] - own[0])
            yield _trimmed(Piece(rows, context, keys, True, clear), layout, how)


def _joins(layout: Layout, unit: list[int], other: int) -> bool:
    """Whether `other` is one more sibling, standing right behind, and all of them are still short."""
    end = layout.starts[unit[-1]] + layout.lengths[unit[-1]]
    beside = layout.paths[other] == layout.paths[unit[0]] and layout.starts[other] == end
    return beside and end + layout.lengths[other] - layout.starts[unit[0]] <= JOIN


def _tiles(run: Run, tile: int) -> Iterator[Run]:
    """The run in pieces of about equal length of at most `tile`; all but the last are multiples of 16."""
    length = run[1] - run[0]
    number = -(-length // tile)
    size = min(tile, -(-length // number // 16) * 16) if number > 1 else length
    for start in range(run[0], run[1], size):
        yield start, min(start + size, run[1])


def _trimmed(piece: Piece, layout: Layout, how: Cut) -> Piece:
    """The piece without the keys that stand too far away for all of its rows."""
    if how.window is None:
        return piece
    window = how.window
    first, last = (_position(layout, row) for row in (piece.rows[0], piece.rows[1] - 1))
    runs = []
    for start, stop in (*piece.context, piece.own):
        # Positions go on through the runs of one path, so what is out of reach is the beginning of some runs (and the end of one).
        low = max(start, start + first - window + 1 - _position(layout, start))
        high = stop if how.causal or not piece.plain else min(stop, start + last + window - _position(layout, start))
        if low < high:
            runs.append((low, high))
    return replace(piece, context=tuple(runs[:-1]), own=runs[-1], clear=0)


def _position(layout: Layout, row: int) -> int:
    index = bisect_right(layout.starts, row) - 1
    return layout.depths[index] + row - layout.starts[index]


def _side_by_side(pieces: Iterable[Piece]) -> list[Piece]:
    """Equal siblings, one behind the other, become one piece."""
    done: list[Piece] = []
    for piece in pieces:
        before = done[-1] if done else None
        if before is not None and _is_twin(before, piece):
            done[-1] = replace(before, count=before.count + 1)
        else:
            done.append(piece)
    return [_flat(piece) for piece in done]


def _is_twin(before: Piece, piece: Piece) -> bool:
    alone = piece.plain and piece.own == piece.rows and before.own == before.rows and bool(piece.context)
    same = piece.context == before.context and piece.length == before.length and piece.clear == before.clear
    return alone and before.plain and same and before.rows[0] + before.count * before.length == piece.rows[0]


def _flat(piece: Piece) -> Piece:
    """The piece with a context that touches its own keys made one run with them: one view instead of a copy of two."""
    if piece.count > 1 or not piece.context or piece.context[-1][1] != piece.own[0]:
        return piece
    return replace(piece, context=piece.context[:-1], own=(piece.context[-1][0], piece.own[1]))


def _span(layout: Layout, index: int) -> Run:
    return layout.starts[index], layout.starts[index + 1]


def _merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Runs in order, with those that touch made one and empty ones left out."""
    merged: list[Run] = []
    for start, stop in runs:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        elif stop > start:
            merged.append((start, stop))
    return tuple(merged)


def _size(runs: Sequence[Run]) -> int:
    return sum(stop - start for start, stop in runs)


def buckets(lengths: Sequence[int], step: int) -> list[list[int]]:
    """Runs of different lengths dealt to products of one padded length, at the least cost.

    Padding costs arithmetic and every product costs its calls: over the distinct lengths (rounded up to `step`), the cheapest cut
    is found exactly.

    Args:
        lengths: of each run.
        step: padded lengths are multiples of it.

    Returns:
        Indexes into `lengths`, each once; the padded length of a bucket is its longest, rounded up to `step`.
    """
    by_size: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_size.setdefault(-(-length // step) * step, []).append(index)
    sizes = sorted(by_size)
    best: list[tuple[int, int]] = [(0, 0)]  # for the first n sizes: (cost, where its last bucket begins)
    for end in range(1, len(sizes) + 1):
        area = sizes[end - 1] ** 2
        options = []
        count = 0
        for begin in range(end - 1, -1, -1):
            count += len(by_size[sizes[begin]])
            options.append((best[begin][0] + OVERHEAD + count * area, begin))
        best.append(min(options))
    dealt: list[list[int]] = []
    end = len(sizes)
    while end:
        begin = best[end][1]
        dealt.append([index for size in sizes[begin:end] for index in by_size[size]])
        end = begin
    return dealt
