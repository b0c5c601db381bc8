"""The reference: who sees whom as one dense mask. Quadratic in the tokens of the whole row, for tests and explanations only."""

from __future__ import annotations

import torch
from torch import Tensor

from tunewright.engine.layout import Layout


def dense_mask(layout: Layout, causal: bool = True, window: int | None = None) -> Tensor:
    """A boolean [T, T] mask, True where the row's token may look at the column's.

    Written segment by segment from the definition, so that it shares nothing with what it checks.

    Args:
        layout: who sees whom.
        causal: a segment sees itself up to each token, not beyond.
        window: only tokens fewer than this many positions away; None for all.
    """
    total = sum(layout.lengths)
    starts = [sum(layout.lengths[:index]) for index in range(len(layout.lengths))]
    mask = torch.zeros((total, total), dtype=torch.bool)
    for index, length in enumerate(layout.lengths):
        rows = slice(starts[index], starts[index] + length)
        for ancestor in layout.paths[index]:
            mask[rows, starts[ancestor] : starts[ancestor] + layout.lengths[ancestor]] = True
        own = torch.ones((length, length), dtype=torch.bool)
        mask[rows, rows] = own.tril() if causal else own
    if window is None:
        return mask
    positions: list[int] = []
    for path, length in zip(layout.paths, layout.lengths, strict=True):
        depth = sum(layout.lengths[ancestor] for ancestor in path)
        positions.extend(range(depth, depth + length))
    place_T = torch.tensor(positions)
    return mask & ((place_T[:, None] - place_T[None, :]).abs() < window)
