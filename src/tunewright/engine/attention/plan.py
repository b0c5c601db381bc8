"""The pieces of a layout as index tensors and masks, ready for products of matrices; made once a layout and kept on it.

Shape suffixes: T tokens of the row, K key heads, G query heads that share one, L rows and C keys of a block, D head width,
N folded rows.

Queries are *folded*: one copy brings the rows of every block together, key head by key head, so that a block is a plain batch of
products [count * K, L * G, D] x [count * K, D, C] and grouped-query attention needs no repeated keys. Runs of different lengths are
padded to the longest of their bucket; padded rows are computed and never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunewright.engine.attention.pieces import Cut, Piece, Run, buckets, cut
from tunewright.engine.layout import Layout, Marks, visible


@dataclass(frozen=True)
class Block:
    """One batch of products.

    Args:
        folded: its rows among the folded ones.
        count: runs of rows, each with its own keys.
        length, columns: rows of a run, and the keys that they are multiplied with.
        context: runs of keys in the row that all runs share, before the own ones.
        own: the run of keys of the first (or only) run of rows; None where the keys are folded like the queries.
        mask: [count or 1, length or 1, 1, masked columns] in float32 at least, 0 where a key is seen and -inf where not; for the
            last columns only. None: all are seen.
    """

    folded: slice
    count: int
    length: int
    columns: int
    context: tuple[Run, ...]
    own: Run | None
    mask: Tensor | None


@dataclass(frozen=True)
class Plan:
    """What attention over one layout computes.

    Args:
        blocks: all of them, those with folded keys first.
        fold_N: for each folded row, where it stands among T * K (token by token, key head by key head).
        unfold: for each of the T * K, its folded row.
        apart: how many of the folded rows have folded keys: the first ones.
        unfold_keys: for each of the T * K, its folded key, or `apart` where it has none.
        padding: folded rows that nobody reads; None where there are none.
        area: query-key pairs computed for one head, padding included.
        dtype: what products run in.
    """

    blocks: tuple[Block, ...]
    fold_N: Tensor
    unfold: Tensor
    apart: int
    unfold_keys: Tensor
    padding: Tensor | None
    area: int
    dtype: torch.dtype


def plan_of(layout: Layout, causal: bool, window: int | None, key_heads: int, like: Tensor) -> Plan:
    """The plan of a layout, on the device and in the dtype of `like`."""
    key = ("plan", causal, window, key_heads, like.device, like.dtype)
    return layout.derived(key, lambda: _Drawing(layout, causal, window, key_heads, like).plan())


class _Drawing:
    """A plan in the making."""

    def __init__(self, layout: Layout, causal: bool, window: int | None, key_heads: int, like: Tensor) -> None:
        self.layout, self.causal, self.window, self.key_heads, self.like = layout, causal, window, key_heads, like
        self.marks: Marks = layout.marks(torch.device("cpu"))
        # Softmax over a number of columns that is not a multiple of the vector width is up to three times slower.
        # Products in half precision are so fast that calls weigh more, and tiles may be larger.
        self.step, self.tile = (32, 128) if like.dtype.itemsize == 2 else (16, 64)
        self.blocks: list[Block] = []
        self.folds: list[Tensor] = []
        self.real: list[Tensor] = []
        self.rows = 0

    def plan(self) -> Plan:
        """All blocks, and the indexes that they share."""
        pieces = cut(self.layout, Cut(self.causal, self.window, self.tile))
        alone = [piece for piece in pieces if piece.apart]
        for chosen in buckets([piece.length for piece in alone], self.step):
            self._apart([alone[index] for index in chosen])
        apart = self.rows
        for piece in pieces:
            if not piece.apart:
                self._behind(piece)
        places = self.layout.total * self.key_heads
        fold_N = torch.cat(self.folds) if self.folds else torch.zeros(0, dtype=torch.long)
        real_N = torch.cat(self.real) if self.real else torch.zeros(0, dtype=torch.bool)
        used = real_N.nonzero()[:, 0]
        unfold = torch.empty(places, dtype=torch.long)
        unfold[fold_N[used]] = used
        padding = (~real_N).nonzero()[:, 0] if len(used) < len(fold_N) else None
        return Plan(
            blocks=tuple(self.blocks),
            fold_N=self._placed(fold_N),
            unfold=self._placed(unfold),
            apart=apart,
            unfold_keys=self._placed(unfold.clamp(max=apart)),
            padding=None if padding is None else self._placed(padding),
            area=sum(block.count * block.length * block.columns for block in self.blocks),
            dtype=self.like.dtype,
        )

    def _placed(self, index: Tensor) -> Tensor:
        return index.to(self.like.device)

    def _fold(self, rows_nL: Tensor, real_nL: Tensor) -> slice:
        """Add rows, in the order key head, run, row."""
        heads_K = torch.arange(self.key_heads)
        self.folds.append((rows_nL * self.key_heads + heads_K[:, None, None]).flatten())
        self.real.append(real_nL.expand(self.key_heads, *real_nL.shape).flatten())
        start = self.rows
        self.rows += rows_nL.numel() * self.key_heads
        return slice(start, self.rows)

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
        folded = self._fold(rows_nL, real_nL)
        self.blocks.append(Block(folded, len(pieces), length, length, (), None, self._mask(seen)))

    def _behind(self, piece: Piece) -> None:
        """Rows that look at keys before them."""
        rows_nL = torch.arange(piece.rows[0], piece.rows[0] + piece.count * piece.length).view(piece.count, piece.length)
        own = piece.own
        columns = sum(stop - start for start, stop in (*piece.context, own))
        if piece.count == 1:  # a few more keys, which are masked, make the columns a round number
            wider = -columns % self.step
            wider = wider if own[1] + wider <= self.layout.total else 0
            own, columns = (own[0], own[1] + wider), columns + wider
        keys_C = torch.cat([torch.arange(start, stop) for start, stop in (*piece.context, own)])
        seen = visible(self.marks, rows_nL[0, :, None], keys_C[None, piece.clear :], self.causal, self.window)
        folded = self._fold(rows_nL, torch.ones_like(rows_nL, dtype=torch.bool))
        self.blocks.append(Block(folded, piece.count, piece.length, columns, piece.context, own, self._mask(seen[None])))

    def _mask(self, seen: Tensor) -> Tensor | None:
        """[count or 1, L or 1, C] booleans as what is added to scores, [count or 1, L or 1, 1, C]."""
        if bool(seen.all()):
            return None
        dtype = torch.float32 if self.like.dtype.itemsize == 2 else self.like.dtype
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))
        return self._placed(mask[:, :, None])
