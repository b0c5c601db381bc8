"""Forest attention as batched products of matrices: the way of CPUs.

For each block of a plan (rows Q, keys K, values V, scale s, mask M):  P = softmax(s Q K^T + M),  output P V.  Backward, with dO:
dV = P^T dO,  dP = dO V^T,  dS = P * (dP - rowsum(P * dP)),  dQ = s dS K,  dK = s dS^T Q.

Fused attention kernels for CPUs do the same arithmetic slower: much slower in bfloat16, and any mask stops them from skipping
work. The weights P are kept for the backward pass where rows see few keys, and made again where they see many, so memory stays in
proportion to the tokens. In half precision the scores and their softmax are computed in float32, everything else is not.

Cost: about 14 operations a query-key pair, head and head width, forward and backward; at most `KEEP` times the memory of the
queries besides what any attention keeps.

Source: softmax attention, Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762); capped scores, Gemma 2 (https://arxiv.org/abs/2408.00118).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tunewright.engine.attention.options import Options, compute_dtype
from tunewright.engine.attention.plan import Block, Plan, plan_of
from tunewright.engine.layout import Layout

KEEP = 6  # the weights are kept while rows see fewer keys than this many head widths, on average


class Weights(NamedTuple):
    """Of one block, each [count * K, L * G, C].

    Args:
        plain: the softmax.
        kept: True where a weight is not dropped; None without dropout.
        tanh: of the scores over the cap; None without a cap.
    """

    plain: Tensor
    kept: Tensor | None
    tanh: Tensor | None


def blockwise(query_1HTD: Tensor, key_1KTD: Tensor, value_1KTD: Tensor, layout: Layout, options: Options) -> Tensor:
    """Attention of a forest row: [1, T, H, D] contiguous, in the dtype of autocast where that is on."""
    like = value_1KTD.new_empty(0, dtype=compute_dtype(value_1KTD))
    plan = plan_of(layout, options.causal, options.window, key_1KTD.shape[1], like)
    return _Blockwise.apply(query_1HTD, key_1KTD, value_1KTD, plan, options)


class _Rows(NamedTuple):
    """Queries folded, [N, G * D]; keys and values as they stand, [T * K, D]."""

    query_ND: Tensor
    key_PD: Tensor
    value_PD: Tensor

    def for_scores(self) -> _Rows:
        """Queries and keys as scores are computed from them: in float32, for a score of 20 in bfloat16 is wrong by up to 0.06."""
        if self.query_ND.dtype.itemsize > 2:
            return self
        return self._replace(query_ND=self.query_ND.float(), key_PD=self.key_PD.float())

    def query(self, block: Block) -> Tensor:
        """[count * K, L * G, D]."""
        width = self.key_PD.shape[1]
        rows = block.length * self.query_ND.shape[1] // width
        return self.query_ND[block.folded].view(-1, rows, width)

    def keys(self, block: Block, values: bool = False) -> Tensor:
        """[count * K, C, D] keys (or values): a view where they stand in one run."""
        rows_PD = self.value_PD if values else self.key_PD
        if block.index is not None:
            return rows_PD.index_select(0, block.index).view(-1, block.columns, rows_PD.shape[1])
        assert block.own is not None
        heads = (block.places.stop - block.places.start) // block.columns
        start, stop = block.own
        return rows_PD.view(-1, heads, rows_PD.shape[1])[start:stop].transpose(0, 1)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, options: Options) -> Tensor:
        (_, heads, total, width), key_heads, value_width = query.shape, key.shape[1], value.shape[3]
        rows = _fold(query, key.to(plan.dtype), value.to(plan.dtype), plan)
        group = heads // key_heads
        folded = rows.query_ND.new_empty((len(plan.fold_N), group * value_width))
        keep = any(context.needs_input_grad[:3]) and plan.area <= KEEP * width * max(1, total)
        made: list[Tensor | None] = []
        exact = rows.for_scores()
        for block in plan.blocks:
            weights = _weights(exact, block, options, _dropped(rows, block, options))
            output = folded[block.folded].view(key_heads * block.count, -1, value_width)
            torch.bmm(_thinned(weights, options), rows.keys(block, values=True), out=output)
            made.extend(weights if keep else (None, weights.kept, None))
        context.save_for_backward(*rows, *made)
        context.plan, context.options, context.shapes = plan, options, (query.shape, value.shape)
        return folded.index_select(0, plan.unfold).view(1, total, heads, value_width)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        plan, options = context.plan, context.options
        saved = context.saved_tensors  # asked once: where activations are recomputed, a second time is an error
        rows, made = _Rows(*saved[:3]), saved[3:]
        (_, heads, total, _), (_, key_heads, _, value_width) = context.shapes
        grad_NV = _rows_of(grad.to(rows.query_ND.dtype), key_heads).index_select(0, plan.fold_N)
        if plan.padding is not None:
            grad_NV.index_fill_(0, plan.padding, 0)
        slopes = _Slopes(rows, plan)
        exact = rows.for_scores() if made and made[0] is None else rows
        for number, block in enumerate(plan.blocks):
            plain, kept, tanh = made[3 * number : 3 * number + 3]
            weights = _weights(exact, block, options, kept) if plain is None else Weights(plain, kept, tanh)
            slope = grad_NV[block.folded].view(key_heads * block.count, -1, value_width)
            slopes.add(block, weights, slope, options)
        return (*slopes.done(total, heads), None, None)


def _rows_of(states_1THD: Tensor, key_heads: int) -> Tensor:
    """[1, T, H, D] as [T * K, G * D]; a view where the memory lies in this order, which is how projections leave it."""
    return states_1THD.reshape(states_1THD.shape[1] * key_heads, -1)


def _fold(query: Tensor, key: Tensor, value: Tensor, plan: Plan) -> _Rows:
    """Everything in the order of the plan, in the dtype of keys and values."""
    query_ND, key_PD, value_PD = (_rows_of(states.transpose(1, 2), key.shape[1]) for states in (query, key, value))
    return _Rows(query_ND.index_select(0, plan.fold_N).to(key.dtype), key_PD, value_PD)


def _weights(rows: _Rows, block: Block, options: Options, kept: Tensor | None) -> Weights:
    """The softmax of a block, in the dtype of the values; `rows` as they are for scores."""
    dtype, query = rows.value_PD.dtype, rows.query(block)
    scores = query.new_empty((*query.shape[:2], block.columns))
    torch.baddbmm(scores, query, rows.keys(block).transpose(1, 2), beta=0, alpha=options.scale, out=scores)
    tanh = None
    if options.softcap is not None:
        tanh = scores.div_(options.softcap).tanh_()
        scores = tanh * options.softcap
    if block.mask is not None:
        parted = scores.view(-1, block.count, block.length, query.shape[1] // block.length, block.columns)
        parted[..., block.columns - block.mask.shape[-1] :].add_(block.mask)
    return Weights(torch.softmax(scores, -1, out=scores).to(dtype), kept, None if tanh is None else tanh.to(dtype))


def _dropped(rows: _Rows, block: Block, options: Options) -> Tensor | None:
    """Which weights stay, drawn at random."""
    if not options.dropout:
        return None
    shape = (*rows.query(block).shape[:2], block.columns)
    return torch.empty(shape, dtype=torch.bool, device=rows.query_ND.device).bernoulli_(1 - options.dropout)


def _thinned(weights: Weights, options: Options) -> Tensor:
    """The weights with what is dropped at zero and the rest scaled up."""
    if weights.kept is None:
        return weights.plain
    return (weights.plain * weights.kept).mul_(1 / (1 - options.dropout))


class _Slopes:
    """The gradients of queries, keys and values while blocks write theirs."""

    def __init__(self, rows: _Rows, plan: Plan) -> None:
        self.rows, self.plan = rows, plan
        self.query_ND = torch.empty_like(rows.query_ND)
        self.key, self.value = (rows.query_ND.new_empty((plan.places, one.shape[1])) for one in (rows.key_PD, rows.value_PD))

    def add(self, block: Block, weights: Weights, slope: Tensor, options: Options) -> None:
        """What one block gives; `slope` is the gradient of its output, [count * K, L * G, D]."""
        rows = self.rows
        query, keys = rows.query(block), rows.keys(block)
        key_slope, value_slope = (one[block.places].view(len(query), block.columns, -1) for one in (self.key, self.value))
        torch.bmm(_thinned(weights, options).transpose(1, 2), slope, out=value_slope)
        scores = torch.bmm(slope, rows.keys(block, values=True).transpose(1, 2))
        if weights.kept is not None:
            scores.mul_(weights.kept).mul_(1 / (1 - options.dropout))
        torch.ops.aten._softmax_backward_data.out(scores, weights.plain, -1, scores.dtype, grad_input=scores)
        if weights.tanh is not None:
            scores.addcmul_(scores * weights.tanh, weights.tanh, value=-1)
        query_slope = self.query_ND[block.folded].view(query.shape)
        torch.baddbmm(query_slope, scores, keys, beta=0, alpha=options.scale, out=query_slope)
        torch.baddbmm(key_slope, scores.transpose(1, 2), query, beta=0, alpha=options.scale, out=key_slope)

    def done(self, total: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """The three gradients, [1, H, T, D] each."""
        query_PD = self.query_ND.index_select(0, self.plan.unfold)
        # Each key's gradient is the sum of those that blocks have written for it, in float32 and rounded once.
        sums = [torch.embedding_bag(one, self.plan.seen, self.plan.bags)[0] for one in (self.key, self.value)]
        counts = (heads, len(query_PD) // total, len(query_PD) // total)
        query, key, value = (
            one.view(1, total, count, -1).transpose(1, 2) for one, count in zip((query_PD, *sums), counts, strict=True)
        )
        return query, key, value
