"""Noise on the input embeddings of the rows that are trained on (NEFTune).

Shape suffixes: B sequences, T tokens of a sequence, D width, S segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor

from tunewright.engine.around import Around, Forward
from tunewright.engine.batch import Batch
from tunewright.engine.layout import Layout
from tunewright.engine.virtual.entrance import entry
from tunewright.models import Model


class EmbeddingNoise:
    """Stands around an input embedding: e + u, u uniform in +-alpha / sqrt(L D), within `during` and where gradients are made.

    L is the length of the longest sequence that a token is part of: its row's, and for a prompt with several answers that of the
    prompt with the longest one. Padding, fillers and virtual tokens do not count in it, and virtual tokens get none. Of an
    encoder-decoder, what the encoder reads is changed. The draws come from torch's generator, like those of dropout.

    Source: Jain et al., "NEFTune", arXiv 2310.05914, algorithm 1; `transformers.integrations.neftune` for one row.

    Args:
        model: with everything that is attached to its embedding; `remove` takes the noise off.
        alpha: the size.
    """

    def __init__(self, model: Model, alpha: float) -> None:
        self.alpha = alpha
        self._batch: Batch | None = None
        self._around = Around(entry(model), lambda plain: lambda ids: self._embedded(plain, ids))

    def remove(self) -> None:
        """Take it off."""
        self._around.remove()

    @contextmanager
    def during(self, batch: Batch) -> Iterator[None]:
        """Inside, passes over `batch` are noisy."""
        before, self._batch = self._batch, batch.whole
        try:
            yield
        finally:
            self._batch = before

    def _embedded(self, plain: Forward, ids_BT: Tensor) -> Tensor:
        embedded_BTD: Tensor = plain(ids_BT)
        batch = self._batch
        if batch is None or not torch.is_grad_enabled() or not _reads(batch, ids_BT):
            return embedded_BTD
        # A token of a row of L tokens may move by alpha / sqrt(L D) in each direction.
        sizes_BT = self.alpha / (lengths_of(batch).clamp_min(1) * embedded_BTD.shape[-1]).sqrt()
        sizes_BT = sizes_BT.masked_fill(ids_BT < 0, 0.0)
        noise_BTD = torch.empty_like(embedded_BTD, dtype=torch.float32).uniform_(-1, 1) * sizes_BT[..., None]
        return embedded_BTD + noise_BTD.to(embedded_BTD.dtype)


def _reads(batch: Batch, ids_BT: Tensor) -> bool:
    """Whether these ids are what the batch gives to read: decoders of encoder-decoders may share the embedding."""
    asked = batch.tokens_BT if batch.source_BT is None else batch.source_BT
    return asked.data_ptr() == ids_BT.data_ptr() and asked.shape == ids_BT.shape  # families reshape what they are given


def lengths_of(batch: Batch) -> Tensor:
    """For each token that a batch gives to read, the tokens of the longest sequence that it is part of: [B, T], float32."""
    if batch.layout is not None:
        return _of_segments(batch.layout, batch.tokens_BT[0] >= 0)[None]
    mask_BT = batch.mask_BT if batch.source_BT is None else batch.source_mask_BT
    assert mask_BT is not None
    ids_BT = batch.tokens_BT if batch.source_BT is None else batch.source_BT
    return (mask_BT * (ids_BT >= 0)).sum(1, keepdim=True).float().expand_as(ids_BT)


def _of_segments(layout: Layout, real_T: Tensor) -> Tensor:
    starts = layout.starts
    passed = [0, *real_T.cumsum(0).tolist()]
    own = [passed[stop] - passed[start] for start, stop in pairwise(starts)]
    longest = [0] * len(own)
    for number, path in enumerate(layout.paths):
        whole = own[number] + sum(own[above] for above in path)
        for one in (number, *path):
            longest[one] = max(longest[one], whole)
    lengths_S = torch.tensor(longest, dtype=torch.float32)
    return lengths_S.repeat_interleave(torch.tensor(layout.lengths)).to(real_T.device)
