"""Log-probabilities of targets that gradients flow through, for losses that are not one sum of them: preferences, policies, KL.

    log p_n = l_n[y_n] - logsumexp(l_n),   H_n = -sum_v p_nv log p_nv,   l_n = shape(W h_n + b)
    d log p_n / d l_nv = [v = y_n] - p_nv,   d H_n / d l_nv = -p_nv (log p_nv + H_n)

What the loss does with log p is known only after all of them. There are two ways around that, with a chunk of logits at most:

- *Ahead*, for log p under a frozen head: d log p_n / d h_n is made in the forward pass, since the loss can only multiply it by a
  number for each n. Two matrix products, and what is kept is [N, D].
- *Again*, where the head is trained or entropies are differentiated: logits that fit one chunk are kept (two products for a frozen
  head, three for a trained one); more are made again chunk by chunk in the backward pass, which is one product more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunewright.engine.loss import (
    PLAIN,
    Gradients,
    Shape,
    blocks,
    chunk_rows,
    chunks,
    product_dtype,
    softmax_of,
    subtract_one_hot,
    to_slopes,
    wanting,
)
from tunewright.engine.products import multiply

LOWEST = -1e4  # of log p inside entropies: exp of it is 0, and 0 times it is 0, where -inf would make a NaN


class TokenScores(NamedTuple):
    """What is known about N targets.

    Args:
        log_probability_N: log p(target), float32 (float64 for float64 hidden states); differentiable.
        entropy_N: of the whole distribution at the target, in nats; differentiable; None when not asked for.
        top1_N: whether no token is more probable than the target; None when not asked for.
    """

    log_probability_N: Tensor
    entropy_N: Tensor | None = None
    top1_N: Tensor | None = None


def joined(parts: Sequence[TokenScores]) -> TokenScores:
    """The scores of several stretches of targets as one."""
    first = parts[0]
    return TokenScores(
        torch.cat([part.log_probability_N for part in parts]),
        None if first.entropy_N is None else torch.cat([part.entropy_N for part in parts if part.entropy_N is not None]),
        None if first.top1_N is None else torch.cat([part.top1_N for part in parts if part.top1_N is not None]),
    )


def _scores(z_NV: Tensor, bias_V: Tensor | None, targets_N: Tensor, shape: Shape, wanted: tuple[bool, bool]) -> TokenScores:
    """Log p(target), entropy and top-1 of one chunk; z is left as it is."""
    entropy, top1 = wanted
    work = torch.promote_types(z_NV.dtype, torch.float32)
    found: list[list[Tensor]] = [[], [], []]
    scratch = None
    for rows in blocks(z_NV):
        index_N1 = targets_N[rows, None]
        block_NV = z_NV[rows].to(work) if bias_V is None else z_NV[rows].to(work) + bias_V
        logits_NV = shape.apply(block_NV)
        scratch = torch.empty_like(logits_NV) if scratch is None else scratch[: len(logits_NV)]
        peaks = softmax_of(logits_NV, index_N1, scratch)
        found[0].append(peaks.log_probability_N)
        if entropy:
            below_NV = (logits_NV - peaks.largest_N[:, None]).clamp_min_(LOWEST)
            found[1].append(-(torch.linalg.vecdot(scratch, below_NV) + peaks.log_share_N))
        if top1:
            found[2].append(peaks.target_N >= peaks.largest_N)
    empty = z_NV.new_zeros(0, dtype=work)
    log_probability_N = torch.cat(found[0]) if found[0] else empty
    entropy_N = (torch.cat(found[1]) if found[1] else empty) if entropy else None
    top1_N = (torch.cat(found[2]) if found[2] else empty.bool()) if top1 else None
    return TokenScores(log_probability_N, entropy_N, top1_N)


class _Told(NamedTuple):
    """What the loss says about a chunk: its slopes in log p and (where entropies were asked for and used) in entropy."""

    by_log_probability_N: Tensor
    by_entropy_N: Tensor | None
    entropy_N: Tensor | None

    def at(self, part: slice) -> _Told:
        return _Told(*(None if value is None else value[part] for value in self))  # pyright: ignore[reportArgumentType]


def _slopes(z_NV: Tensor, bias_V: Tensor | None, targets_N: Tensor, shape: Shape, told: _Told) -> Tensor:
    """d loss / d z of one chunk, in the dtype of z, without the factors that `_factors` gives."""
    work = torch.promote_types(z_NV.dtype, torch.float32)
    slope_NV = torch.empty_like(z_NV)
    scratch = None
    for rows in blocks(z_NV):
        index_N1 = targets_N[rows, None]
        block_NV = z_NV[rows].to(work) if bias_V is None else z_NV[rows].to(work) + bias_V
        logits_NV, bend_NV = shape.bent(block_NV)
        scratch = torch.empty_like(logits_NV) if scratch is None else scratch[: len(logits_NV)]
        if told.by_entropy_N is None or told.entropy_N is None:
            torch.softmax(logits_NV, dim=1, out=scratch)
            subtract_one_hot(scratch, index_N1)
        else:
            _mixed(logits_NV, index_N1, told.at(rows), scratch)
        slope_NV[rows] = scratch if bend_NV is None else scratch.mul_(bend_NV)
    return slope_NV


def _mixed(logits_NV: Tensor, index_N1: Tensor, told: _Told, out_NV: Tensor) -> None:
    """p (g + h (log p + H)) - g [target], with g and h the slopes in log p and entropy: minus d loss / d logits."""
    assert told.by_entropy_N is not None
    assert told.entropy_N is not None
    log_p_NV = torch.log_softmax(logits_NV, dim=1).clamp_min_(LOWEST)
    torch.exp(log_p_NV, out=out_NV)
    log_p_NV.add_(told.entropy_N[:, None]).mul_(told.by_entropy_N[:, None]).add_(told.by_log_probability_N[:, None])
    out_NV.mul_(log_p_NV)
    out_NV.scatter_add_(1, index_N1, -told.by_log_probability_N[:, None])


def _factors(told: _Told, shape: Shape) -> Tensor:
    """What every row of `_slopes` is still to be multiplied by."""
    if told.by_entropy_N is None:
        return told.by_log_probability_N * -shape.slope
    return torch.full_like(told.by_log_probability_N, -shape.slope)


def _told(grads: tuple[Tensor | None, ...], targets_N: Tensor, entropy_N: Tensor | None) -> _Told:
    by_log_probability_N, by_entropy_N = grads[:2]
    if by_log_probability_N is None:
        by_log_probability_N = torch.zeros_like(targets_N, dtype=torch.float32 if by_entropy_N is None else by_entropy_N.dtype)
    return _Told(by_log_probability_N, by_entropy_N, entropy_N)


class _Ahead(torch.autograd.Function):
    """Log p alone, under a head that is not trained."""

    @staticmethod
    def forward(
        context: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, shape: Shape
    ) -> Tensor:
        low = product_dtype(hidden_ND)
        found = []
        with torch.autocast(hidden_ND.device.type, enabled=False):
            own_ND, own_VD = hidden_ND.to(low), weight_VD.to(low)
            slopes_ND = torch.empty_like(own_ND)
            for part in chunks(len(hidden_ND), chunk_rows(len(weight_VD))):
                z_NV = multiply(own_ND[part], own_VD.T)
                found.append(to_slopes(z_NV, bias_V, targets_N[part], shape))
                slopes_ND[part] = multiply(z_NV, own_VD)
        context.save_for_backward(slopes_ND)
        context.slope, context.dtype = shape.slope, hidden_ND.dtype
        return torch.cat(found) if found else hidden_ND.new_zeros(0, dtype=torch.promote_types(low, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slopes_ND,) = context.saved_tensors
        return (slopes_ND * (grad_N * -context.slope)[:, None]).to(context.dtype), None, None, None, None


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        asked: tuple[Shape, tuple[bool, bool]],
    ) -> tuple[Tensor | None, ...]:
        shape, wanted = asked
        low = product_dtype(hidden_ND)
        size = chunk_rows(len(weight_VD))
        found: list[TokenScores] = []
        z_NV = hidden_ND.new_zeros(0, len(weight_VD), dtype=low)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            own_ND, own_VD = hidden_ND.to(low), weight_VD.to(low)
            # No targets are one chunk too.
            for part in chunks(len(hidden_ND), size) if len(hidden_ND) else [slice(0, 0)]:
                z_NV = multiply(own_ND[part], own_VD.T)
                found.append(_scores(z_NV, bias_V, targets_N[part], shape, wanted))
        results = joined(found)
        context.shape, context.low, context.size = shape, low, size
        kept_NV = z_NV if any(context.needs_input_grad) and len(found) == 1 else None
        context.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, results.entropy_N, kept_NV)
        context.set_materialize_grads(False)
        if results.top1_N is not None:
            context.mark_non_differentiable(results.top1_N)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden_ND, weight_VD, bias_V, targets_N, entropy_N, kept_NV = context.saved_tensors
        told = _told(grads, targets_N, entropy_N)
        needed = context.needs_input_grad[:3]
        made = Gradients(hidden_ND, weight_VD, bias_V, needed, _factors(told, context.shape))
        with torch.autocast(hidden_ND.device.type, enabled=False):
            own_ND, own_VD = hidden_ND.to(context.low), weight_VD.to(context.low)
            for part in chunks(len(hidden_ND), context.size):
                z_NV = multiply(own_ND[part], own_VD.T) if kept_NV is None else kept_NV
                slope_NV = _slopes(z_NV, bias_V, targets_N[part], context.shape, told.at(part))
                made.add(part, slope_NV, own_ND[part], own_VD)
        return (*made.done(), None, None)


class _LogitScores(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, logits_NV: Tensor, targets_N: Tensor, shape: Shape, wanted: tuple[bool, bool]
    ) -> tuple[Tensor | None, ...]:
        with torch.autocast(logits_NV.device.type, enabled=False):
            results = _scores(logits_NV, None, targets_N, shape, wanted)
        context.shape = shape
        context.save_for_backward(logits_NV, targets_N, results.entropy_N)
        context.set_materialize_grads(False)
        if results.top1_N is not None:
            context.mark_non_differentiable(results.top1_N)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logits_NV, targets_N, entropy_N = context.saved_tensors
        told = _told(grads, targets_N, entropy_N)
        with torch.autocast(logits_NV.device.type, enabled=False):
            slope_NV = _slopes(logits_NV, None, targets_N, context.shape, told)
            slope_NV *= _factors(told, context.shape)[:, None]
        return slope_NV, None, None, None


def linear_token_scores(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    targets_N: Tensor,
    shape: Shape = PLAIN,
    wanted: tuple[bool, bool] = (False, False),
) -> TokenScores:
    """The scores of N targets under a linear head; differentiable once, with respect to the first three.

    Args:
        hidden_ND: hidden states that predict the targets; products run in its dtype (autocast's inside autocast), sums in float32.
        weight_VD, bias_V: the head.
        targets_N: token ids.
        shape: what the family does to the logits, and the temperature.
        wanted: whether entropies and whether top-1 are asked for.
    """
    hidden_ND, weight_VD, bias_V = wanting(hidden_ND, weight_VD, bias_V)
    trained = weight_VD.requires_grad or (bias_V is not None and bias_V.requires_grad)
    if hidden_ND.requires_grad and not trained and wanted == (False, False):
        return TokenScores(_Ahead.apply(hidden_ND, weight_VD, bias_V, targets_N, shape))
    return TokenScores(*_Again.apply(hidden_ND, weight_VD, bias_V, targets_N, (shape, wanted)))


def token_scores_of_logits(
    logits_NV: Tensor, targets_N: Tensor, *, entropy: bool = False, top1: bool = False, temperature: float = 1.0
) -> TokenScores:
    """The same from logits that exist already: encoder-decoders, and heads that ours does not reproduce."""
    return TokenScores(*_LogitScores.apply(logits_NV, targets_N, Shape(temperature=temperature), (entropy, top1)))
