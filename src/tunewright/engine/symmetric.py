"""How far two passes of one language head are from each other, without ever building `[tokens, vocabulary]` whole.

With p = softmax(a) and q = softmax(b) of N targets with weights w:

    total = sum_n w_n J_n,   J = (KL(p || q) + KL(q || p)) / 2 = sum_v (p_v - q_v)(a_v - b_v) / 2
    2 dJ / da_v = p_v - q_v + p_v (d_v - sum_u p_u d_u),   2 dJ / db_v = q_v - p_v - q_v (d_v - sum_u q_u d_u),   d = a - b

The normalisers of both cancel, so no logarithm is taken. Gradients flow into both sides and are made in the forward pass, chunk by
chunk, as in `loss`.

Source: Liang et al., "R-Drop", arXiv 2106.14448, equation 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tunewright.engine.head import LanguageHead
from tunewright.engine.loss import Gradients, Shape, blocks, chunk_rows, chunks, product_dtype, wanting
from tunewright.engine.products import multiply


def symmetric_kl(one_NV: Tensor, other_NV: Tensor) -> Tensor:
    """J of two sets of logits, [N], float32; differentiable."""
    one_NV, other_NV = one_NV.float(), other_NV.float()
    return ((one_NV.softmax(1) - other_NV.softmax(1)) * (one_NV - other_NV)).sum(1) / 2


def _to_slopes(one_NV: Tensor, other_NV: Tensor, bias_V: Tensor | None, shape: Shape) -> Tensor:
    """Write 2 dJ / dz (without the shape's slope) of a chunk over each z; returns 2 J, [N]."""
    work = torch.promote_types(one_NV.dtype, torch.float32)
    found = []
    for rows in blocks(one_NV):
        sides = [side[rows].to(work) if bias_V is None else side[rows].to(work) + bias_V for side in (one_NV, other_NV)]
        (a_NV, bend_a), (b_NV, bend_b) = (shape.bent(side) for side in sides)
        p_NV, q_NV, d_NV = a_NV.softmax(1), b_NV.softmax(1), a_NV - b_NV
        apart_NV = p_NV - q_NV
        found.append(torch.linalg.vecdot(apart_NV, d_NV))
        slope_a = (d_NV - torch.linalg.vecdot(p_NV, d_NV)[:, None]).mul_(p_NV).add_(apart_NV)
        slope_b = (d_NV - torch.linalg.vecdot(q_NV, d_NV)[:, None]).mul_(q_NV).add_(apart_NV).neg_()
        one_NV[rows] = slope_a if bend_a is None else slope_a.mul_(bend_a)
        other_NV[rows] = slope_b if bend_b is None else slope_b.mul_(bend_b)
    return torch.cat(found)


class _LinearSymmetric(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        one_ND: Tensor,
        other_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        goal: tuple[Tensor, Shape],
    ) -> Tensor:
        weights_N, shape = goal
        low, half_N = product_dtype(one_ND), weights_N / 2
        need_one, need_other, *need_head = context.needs_input_grad[:4]
        total = one_ND.new_zeros((), dtype=torch.promote_types(low, torch.float32))
        with torch.autocast(one_ND.device.type, enabled=False):
            own_VD = weight_VD.to(low)
            made = Gradients(one_ND, weight_VD, bias_V, (need_one, *need_head), half_N * shape.slope)
            made_other = Gradients(other_ND, weight_VD, bias_V, (need_other, *need_head), half_N * shape.slope)
            for part in chunks(len(one_ND), chunk_rows(len(weight_VD))):
                a_ND, b_ND = one_ND[part].to(low), other_ND[part].to(low)
                a_NV, b_NV = multiply(a_ND, own_VD.T), multiply(b_ND, own_VD.T)
                total += (_to_slopes(a_NV, b_NV, bias_V, shape) * half_N[part]).sum()
                made.add(part, a_NV, a_ND, own_VD)
                made_other.add(part, b_NV, b_ND, own_VD)
        (hidden, weight, bias), (other, more_weight, more_bias) = made.done(), made_other.done()
        weight = weight if weight is None or more_weight is None else weight + more_weight
        bias = bias if bias is None or more_bias is None else bias + more_bias
        context.gradients = hidden, other, weight, bias
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scaled = (None if gradient is None else gradient * grad.to(gradient.dtype) for gradient in context.gradients)
        return (*scaled, None)


def passes_apart(head: LanguageHead, one_ND: Tensor, other_ND: Tensor, weights_N: Tensor) -> Tensor:
    """The weighted sum of J over N targets of two passes; a number, differentiable once.

    Args:
        head: the head that reads both.
        one_ND, other_ND: hidden states that predict the same targets.
        weights_N: float32 weights.
    """
    shape, plain = Shape(head.scale, head.cap), head.plain()
    if plain is not None:
        one_ND, weight_VD, bias_V = wanting(one_ND, plain.weight, plain.bias)
        return _LinearSymmetric.apply(one_ND, other_ND, weight_VD, bias_V, (weights_N, shape))

    def total(a_ND: Tensor, b_ND: Tensor, part: slice) -> Tensor:
        return (symmetric_kl(head.logits(a_ND), head.logits(b_ND)) * weights_N[part]).sum()

    step = chunk_rows(head.linear(one_ND[:1]).shape[-1])
    parts = [checkpoint(total, one_ND[part], other_ND[part], part, use_reentrant=False) for part in chunks(len(one_ND), step)]
    return torch.stack(parts).sum()
