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
    """Queries folded, [N, G * D]; keys and values as they stand, [K, T, D], and folded, [apart, D]."""

    query_ND: Tensor
    key_KTD: Tensor
    value_KTD: Tensor
    folded_keys: Tensor
    folded_values: Tensor

    def for_scores(self) -> _Rows:
        """Queries and keys as scores are computed from them: in float32, for a score of 20 in bfloat16 is wrong by up to 0.06."""
        if self.query_ND.dtype.itemsize > 2:
            return self
        return self._replace(query_ND=self.query_ND.float(), key_KTD=self.key_KTD.float(), folded_keys=self.folded_keys.float())

    def query(self, block: Block, heads: int) -> Tensor:
        """[count * K, L * G, D]."""
        return self.query_ND[block.folded].view(heads * block.count, -1, self.key_KTD.shape[2])

    def keys(self, block: Block, values: bool = False) -> Tensor:
        """[count * K, C, D] keys (or values): a view wherever the block's keys stand in one run."""
        if block.own is None:
            folded = self.folded_values if values else self.folded_keys
            return folded[block.folded].view(-1, block.length, folded.shape[1])
        whole_KTD = self.value_KTD if values else self.key_KTD
        heads, _, width = whole_KTD.shape
        start, stop = block.own
        if block.count == 1:
            own = whole_KTD[:, start:stop]
            context = [whole_KTD[:, low:high] for low, high in block.context]
            return torch.cat([*context, own], dim=1) if context else own
        own = whole_KTD[:, start : start + block.count * block.length].unflatten(1, (block.count, block.length))
        context = [whole_KTD[:, None, low:high].expand(-1, block.count, -1, -1) for low, high in block.context]
        return torch.cat([*context, own], dim=2).view(heads * block.count, block.columns, width)


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
            weights = _weights(exact, block, options, _dropped(rows, block, options, heads))
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
        rows, made = _Rows(*saved[:5]), saved[5:]
        (_, heads, total, _), (_, key_heads, _, value_width) = context.shapes
        grad_NV = _rows_of(grad.to(rows.query_ND.dtype), key_heads).index_select(0, plan.fold_N)
        if plan.padding is not None:
            grad_NV.index_fill_(0, plan.padding, 0)
        slopes = _Slopes(rows, plan, heads)
        exact = rows.for_scores() if made and made[0] is None else rows
        for number, block in enumerate(plan.blocks):
            plain, kept, tanh = made[3 * number : 3 * number + 3]
            weights = _weights(exact, block, options, kept) if plain is None else Weights(plain, kept, tanh)
            slope = grad_NV[block.folded].view(key_heads * block.count, -1, value_width)
            slopes.add(block, weights, slope, options)
        return (*slopes.done(total), None, None)


def _rows_of(states_1THD: Tensor, key_heads: int) -> Tensor:
    """[1, T, H, D] as [T * K, G * D]; a view where the memory lies in this order, which is how projections leave it."""
    return states_1THD.reshape(states_1THD.shape[1] * key_heads, -1)


def _fold(query: Tensor, key: Tensor, value: Tensor, plan: Plan) -> _Rows:
    """Everything in the order of the plan, in the dtype of keys and values."""
    key_heads = key.shape[1]
    query_ND = _rows_of(query.transpose(1, 2), key_heads).index_select(0, plan.fold_N).to(key.dtype)
    index = plan.fold_N[: plan.apart]
    folded = [_rows_of(states.transpose(1, 2), key_heads).index_select(0, index) for states in (key, value)]
    return _Rows(query_ND, key[0], value[0], *folded)


def _weights(rows: _Rows, block: Block, options: Options, kept: Tensor | None) -> Weights:
    """The softmax of a block, in the dtype of the values; `rows` as they are for scores."""
    heads, dtype = rows.key_KTD.shape[0], rows.value_KTD.dtype
    query = rows.query(block, heads)
    scores = query.new_empty((*query.shape[:2], block.columns))
    torch.baddbmm(scores, query, rows.keys(block).transpose(1, 2), beta=0, alpha=options.scale, out=scores)
    tanh = None
    if options.softcap is not None:
        tanh = scores.div_(options.softcap).tanh_()
        scores = tanh * options.softcap
    if block.mask is not None:
        parted = scores.view(heads, block.count, block.length, -1, block.columns)
        parted[..., block.columns - block.mask.shape[-1] :].add_(block.mask)
    return Weights(torch.softmax(scores, -1, out=scores).to(dtype), kept, None if tanh is None else tanh.to(dtype))


def _dropped(rows: _Rows, block: Block, options: Options, heads: int) -> Tensor | None:
    """Which weights stay, drawn at random."""
    if not options.dropout:
        return None
    shape = (rows.key_KTD.shape[0] * block.count, block.length * heads // rows.key_KTD.shape[0], block.columns)
    return torch.empty(shape, dtype=torch.bool, device=rows.query_ND.device).bernoulli_(1 - options.dropout)


def _thinned(weights: Weights, options: Options) -> Tensor:
    """The weights with what is dropped at zero and the rest scaled up."""
    if weights.kept is None:
        return weights.plain
    return (weights.plain * weights.kept).mul_(1 / (1 - options.dropout))


class _Slopes:
    """The gradients of queries, keys and values while blocks add to them."""

    def __init__(self, rows: _Rows, plan: Plan, heads: int) -> None:
        self.rows, self.plan, self.heads = rows, plan, heads
        self.query_ND = torch.empty_like(rows.query_ND)
        widths = (rows.key_KTD.shape[2], rows.value_KTD.shape[2])
        # One row more than there are: where keys without a folded place find their zero.
        self.folded = [rows.query_ND.new_empty((plan.apart + 1, width)) for width in widths]
        for folded in self.folded:
            folded[plan.apart :].zero_()
        self.later: list[tuple[Block, Tensor, Tensor]] = []

    def add(self, block: Block, weights: Weights, slope: Tensor, options: Options) -> None:
        """What one block gives; `slope` is the gradient of its output, [count * K, L * G, D]."""
        rows = self.rows
        key_heads = rows.key_KTD.shape[0]
        query, keys = rows.query(block, key_heads), rows.keys(block)
        key_slope, value_slope = self._places(block, keys.shape[0])
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
        if block.own is not None:
            self.later.append((block, key_slope, value_slope))

    def _places(self, block: Block, batch: int) -> tuple[Tensor, Tensor]:
        """Where the gradients of the block's keys and values are written, [count * K, C, D]."""
        if block.own is None:
            one, other = (folded[block.folded].view(batch, block.columns, -1) for folded in self.folded)
        else:
            one, other = (folded.new_empty((batch, block.columns, folded.shape[1])) for folded in self.folded)
        return one, other

    def done(self, total: int) -> tuple[Tensor, Tensor, Tensor]:
        """The three gradients, [1, H, T, D] each."""
        query = self.query_ND.index_select(0, self.plan.unfold).view(1, total, self.heads, -1)
        key_heads = self.rows.key_KTD.shape[0]
        spread = [folded.index_select(0, self.plan.unfold_keys).view(total, key_heads, -1) for folded in self.folded]
        if self.later:  # sums of many parts are kept in float32
            spread = [states if states.dtype == torch.float64 else states.float() for states in spread]
        for block, *parts in self.later:
            for states_TKD, part in zip(spread, parts, strict=True):
                _add_runs(states_TKD, block, part)
        key, value = (states.unsqueeze(0).transpose(1, 2) for states in spread)
        return query.transpose(1, 2), key, value


def _add_runs(states_TKD: Tensor, block: Block, part: Tensor) -> None:
    """Add the gradients of a block's keys, [count * K, C, D], to the tokens that they stand at."""
    assert block.own is not None
    part_KnCD = part.view(-1, block.count, block.columns, part.shape[2])
    done = 0
    for start, stop in block.context:
        shared_KnCD = part_KnCD[:, :, done : done + stop - start]
        shared_KCD = shared_KnCD[:, 0] if block.count == 1 else shared_KnCD.sum(1, dtype=states_TKD.dtype)
        states_TKD[start:stop].add_(shared_KCD.transpose(0, 1))
        done += stop - start
    own_nCKD = part_KnCD[:, :, done:].permute(1, 2, 0, 3)
    start = block.own[0]
    states_TKD[start : start + block.count * own_nCKD.shape[1]].unflatten(0, (block.count, -1)).add_(own_nCKD)
