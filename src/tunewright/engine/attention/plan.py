"""The pieces of a layout as index tensors and masks, ready for products of matrices; made once a layout and kept on it.

Shape suffixes: T tokens of the row, K key heads, G query heads that share one, L rows and C keys of a block, D head width,
N folded rows.

Queries are *folded*: one copy brings the rows of every block together, key head by key head, so that a block is a plain batch of
products [count * K, L * G, D] x [count * K, D, C] and grouped-query attention needs no repeated keys. Runs of different lengths are
padded to the longest of their bucket; padded rows are computed and never read. Keys are gathered when a block needs them, unless
they stand in one run, which is a view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tunewright.engine.attention.pieces import OVERHEAD, Cut, Piece, Run, buckets, cut
from tunewright.engine.layout import Layout, Marks, visible

LARGEST = 1 << 18  # query-key pairs of a block that runs with different keys are joined to: scores live one block at a time
GATHER = 8  # query-key pairs whose arithmetic takes about as long as gathering a key that could have been a view


@dataclass(frozen=True)
class Block:
    """One batch of products.

    Args:
        folded: its rows among the folded ones.
        places: where the gradients of its keys are written: count * K * C of them.
        count: runs of rows, each with its own keys.
        length, columns: rows of a run, and the keys that they are multiplied with.
        own: the keys of the only run where they stand side by side in the row, else None.
        index: for each of its keys (key head, run, column), where it stands among T * K; None where `own` says it.
        mask: [count or 1, length or 1, 1, masked columns] in float32 at least, 0 where a key is seen and -inf where not; for the
            last columns only. None: all are seen.
    """

    folded: slice
    places: slice
    count: int
    length: int
    columns: int
    own: Run | None
    index: Tensor | None
    mask: Tensor | None


@dataclass(frozen=True)
class Plan:
    """What attention over one layout computes.

    Args:
        blocks: all of them.
        fold_N: for each folded row, where it stands among T * K (token by token, key head by key head).
        unfold: for each of the T * K, its folded row.
        seen: the places of the gradients of each of the T * K, one bag behind the other; bags: where each bag begins.
        places: how many places there are.
        padding: folded rows that nobody reads; None where there are none.
        area: query-key pairs computed for one head, padding included.
        dtype: what products run in.
    """

    blocks: tuple[Block, ...]
    fold_N: Tensor
    unfold: Tensor
    seen: Tensor
    bags: Tensor
    places: int
    padding: Tensor | None
    area: int
    dtype: torch.dtype


class _Asking(NamedTuple):
    """A run of rows and the runs of keys that it looks at.

    Args:
        start, length: of the rows.
        keys: runs of keys, in order; columns: how many keys these are.
        clear: how many of the first keys every row sees.
    """

    start: int
    length: int
    keys: tuple[Run, ...]
    columns: int
    clear: int


def plan_of(layout: Layout, causal: bool, window: int | None, key_heads: int, like: Tensor) -> Plan:
    """The plan of a layout, on the device and in the dtype of `like`."""
    key = ("plan", causal, window, key_heads, like.device, like.dtype)
    return layout.derived(key, lambda: _Drawing(layout, causal, window, key_heads, like).plan())


class _Drawing:
    """A plan in the making."""

    def __init__(self, layout: Layout, causal: bool, window: int | None, key_heads: int, like: Tensor) -> None:
        self.layout, self.causal, self.window, self.key_heads, self.like = layout, causal, window, key_heads, like
        self.marks: Marks = layout.marks(torch.device("cpu"))
        half = like.dtype.itemsize == 2
        # Softmax over a number of columns that is not a multiple of the vector width is up to three times slower.
        # Products in half precision are so fast that calls weigh more, and tiles may be larger. oneDNN, which computes them, also
        # compiles each new shape (about 0.3 ms): round lengths come again.
        self.step, self.tile, self.overhead = (32, 128, 4 * OVERHEAD) if half else (16, 64, OVERHEAD)
        self.blocks: list[Block] = []
        self.folds: list[Tensor] = []
        self.real: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.rows, self.places = 0, 0

    def plan(self) -> Plan:
        """All blocks, and the indexes that they share."""
        pieces = cut(self.layout, Cut(self.causal, self.window, self.tile))
        alone = [piece for piece in pieces if piece.apart]
        for chosen in buckets([piece.length for piece in alone], self.step):
            self._apart([alone[index] for index in chosen])
        for asking in _grouped([run for piece in pieces if not piece.apart for run in _askings(piece)], self.step, self.overhead):
            self._behind(asking)
        slots = self.layout.total * self.key_heads
        nothing = torch.zeros(0, dtype=torch.long)
        fold_N = torch.cat([nothing, *self.folds])
        used = torch.cat([nothing.bool(), *self.real]).nonzero()[:, 0]
        unfold = torch.empty(slots, dtype=torch.long)
        unfold[fold_N[used]] = used
        padding = None
        if len(used) < len(fold_N):
            unread = torch.ones(len(fold_N), dtype=torch.bool)
            unread[used] = False
            padding = self._placed(unread.nonzero()[:, 0])
        slot_P = torch.cat([nothing, *self.keys])
        sizes = torch.bincount(slot_P, minlength=slots)
        return Plan(
            blocks=tuple(self.blocks),
            fold_N=self._placed(fold_N),
            unfold=self._placed(unfold),
            seen=self._placed(slot_P.argsort(stable=True)),
            bags=self._placed(sizes.cumsum(0) - sizes),
            places=self.places,
            padding=padding,
            area=sum(block.count * block.length * block.columns for block in self.blocks),
            dtype=self.like.dtype,
        )

    def _placed(self, index: Tensor) -> Tensor:
        return index.to(self.like.device)

    def _slots(self, tokens_nX: Tensor) -> Tensor:
        """Where tokens stand among T * K, in the order key head, run, token."""
        return (tokens_nX * self.key_heads + torch.arange(self.key_heads)[:, None, None]).flatten()

    def _add(self, rows_nL: Tensor, real_nL: Tensor, keys_nC: Tensor, seen: Tensor, own: Run | None = None) -> None:
        """Add a block of these rows and keys; `seen` is [n or 1, L or 1, columns], of the last columns only."""
        (count, length), columns = rows_nL.shape, keys_nC.shape[1]
        slots = self._slots(keys_nC)
        self.folds.append(self._slots(rows_nL))
        self.real.append(real_nL.expand(self.key_heads, *real_nL.shape).flatten())
        self.keys.append(slots)
        folded = slice(self.rows, self.rows + self.key_heads * count * length)
        places = slice(self.places, self.places + len(slots))
        self.rows, self.places = folded.stop, places.stop
        index = self._placed(slots) if own is None else None
        self.blocks.append(Block(folded, places, count, length, columns, own, index, self._mask(seen)))

    def _apart(self, pieces: Sequence[Piece]) -> None:
        """Runs that see nothing but themselves, padded to one length."""
        longest = max(piece.length for piece in pieces)
        length = -(-longest // self.step) * self.step
        starts_n1, lengths_n1 = torch.tensor([(piece.rows[0], piece.length) for piece in pieces])[:, :, None].unbind(1)
        inside_L = torch.arange(length)
        rows_nL = starts_n1 + inside_L.minimum(lengths_n1 - 1)
        real_nL = inside_L < lengths_n1
        if self.causal and all(piece.plain for piece in pieces):
            seen = inside_L[:, None] >= inside_L[None, :]  # what is padded stands behind, where nobody looks
            if self.window is not None:
                seen = seen & (inside_L[:, None] - inside_L[None, :] < self.window)
            seen = seen[None]
        elif self.window is None and all(piece.plain for piece in pieces):
            seen = real_nL[:, None, :]
        else:
            seen = visible(self.marks, rows_nL[:, :, None], rows_nL[:, None, :], self.causal, self.window) & real_nL[:, None, :]
        self._add(rows_nL, real_nL, rows_nL, seen)

    def _behind(self, asking: Sequence[_Asking]) -> None:
        """Rows that look at keys before them: runs of about one length, or one whose keys stand side by side."""
        first = asking[0]
        columns = -(-max(one.columns for one in asking) // self.step) * self.step
        if len(asking) == 1 and len(first.keys) == 1:
            start = first.keys[0][0]
            stop = start + columns  # a few more keys, which are masked, make the columns a round number
            stop = stop if stop <= self.layout.total else first.keys[0][1]
            rows_nL, keys_nC = torch.arange(first.start, first.start + first.length)[None], torch.arange(start, stop)[None]
            seen = visible(self.marks, rows_nL[:, :, None], keys_nC[:, None, first.clear :], self.causal, self.window)
            self._add(rows_nL, torch.ones_like(rows_nL, dtype=torch.bool), keys_nC, seen, own=(start, stop))
            return
        length = -(-max(one.length for one in asking) // (self.step // 2)) * (self.step // 2)
        inside_L, inside_C = torch.arange(length), torch.arange(columns)
        lengths_n1, columns_n1 = torch.tensor([(one.length, one.columns) for one in asking])[:, :, None].unbind(1)
        rows_nL = torch.tensor([[one.start] for one in asking]) + inside_L.minimum(lengths_n1 - 1)
        standing = [torch.cat([torch.arange(*run) for run in one.keys]) for one in asking]
        keys_nC = torch.stack([keys_C[inside_C.clamp(max=len(keys_C) - 1)] for keys_C in standing])
        clear = min(one.clear for one in asking)
        seen = visible(self.marks, rows_nL[:, :, None], keys_nC[:, None, clear:], self.causal, self.window)
        self._add(rows_nL, inside_L < lengths_n1, keys_nC, seen & (inside_C < columns_n1)[:, None, clear:])

    def _mask(self, seen: Tensor) -> Tensor | None:
        """[count or 1, L or 1, C] booleans as what is added to scores, [count or 1, L or 1, 1, C]."""
        if bool(seen.all()):
            return None
        dtype = torch.float32 if self.like.dtype.itemsize == 2 else self.like.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        return self._placed(mask[:, :, None])


def _askings(piece: Piece) -> Iterator[_Asking]:
    """The runs of rows of a piece."""
    for number in range(piece.count):
        moved = number * piece.length
        keys = (*piece.context, (piece.own[0] + moved, piece.own[1] + moved))
        yield _Asking(piece.rows[0] + moved, piece.length, keys, sum(stop - start for start, stop in keys), piece.clear)


def _grouped(askings: Sequence[_Asking], step: int, overhead: int) -> Iterator[list[_Asking]]:
    """Runs that become one block: those of about one size, while padding costs less than the calls of one more block."""
    group: list[_Asking] = []
    length, columns, padding = 0, 0, 0
    for asking in sorted(askings, key=lambda one: (-(-one.columns // step), one.length), reverse=True):
        longer, wider = max(length, asking.length), max(columns, asking.columns)
        joined = (len(group) + 1) * longer * wider
        padding += joined - len(group) * length * columns - asking.length * asking.columns
        padding += GATHER * asking.columns if len(asking.keys) == 1 else 0
        if group and (padding > overhead or joined > LARGEST):
            yield group
            group, longer, wider, padding = [], asking.length, asking.columns, 0
        group.append(asking)
        length, columns = longer, wider
    if group:
        yield group
