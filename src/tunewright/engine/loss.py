"""Cross-entropy at the targets, without ever building `[tokens, vocabulary]` whole.

For targets n with weights w_n:  total = sum_n w_n * (logsumexp(W h_n + b) - (W h_n + b)[y_n]),  count = sum_n w_n.
The gradients are made in the forward pass, chunk by chunk (as in Liger and torchtune's chunked loss), so each chunk's logits
live only while they are used: two matrix products for a frozen head, three for a trained one, and no recomputation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK_BYTES = 64 << 20  # logits of one chunk in float32; large enough that products stay efficient


class Loss(NamedTuple):
    """A loss is always a sum and what it was summed over; the division happens once, for the whole optimizer step."""

    total: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (a tuple's own `count` is never asked)


def chunk_rows(vocabulary: int) -> int:
    """How many targets a chunk holds for a vocabulary of this size."""
    return max(16, CHUNK_BYTES // (4 * vocabulary))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, weights_N: Tensor
    ) -> Tensor:
        need_hidden, need_weight, need_bias = context.needs_input_grad[:3]
        weight = weight_VD.to(hidden_ND.dtype)
        grad_hidden = torch.empty_like(hidden_ND) if need_hidden else None
        grad_weight = torch.zeros_like(weight_VD) if need_weight else None
        grad_bias = torch.zeros_like(bias_V) if bias_V is not None and need_bias else None
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        step = chunk_rows(weight_VD.shape[0])
        for start in range(0, hidden_ND.shape[0], step):
            part = slice(start, start + step)
            logits_NV = (hidden_ND[part] @ weight.T).float()
            if bias_V is not None:
                logits_NV += bias_V
            index = targets_N[part, None]
            log_sum_N = logits_NV.logsumexp(dim=1)
            total += (weights_N[part] * (log_sum_N - logits_NV.gather(1, index)[:, 0])).sum()
            # d total / d logits = w (softmax - one-hot), written over the logits themselves
            slope_NV = logits_NV.sub_(log_sum_N[:, None]).exp_()
            slope_NV.scatter_add_(1, index, torch.full_like(index, -1, dtype=slope_NV.dtype))
            slope_NV *= weights_N[part, None]
            low_NV = slope_NV.to(hidden_ND.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = low_NV @ weight
            if grad_weight is not None:
                grad_weight += (low_NV.T @ hidden_ND[part]).to(grad_weight.dtype)
            if grad_bias is not None:
                grad_bias += slope_NV.sum(0)
        context.gradients = (grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scaled = (None if gradient is None else gradient * grad.to(gradient.dtype) for gradient in context.gradients)
        return (*scaled, None, None)


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, weights_N: Tensor) -> Loss:
    """The weighted cross-entropy of a linear head at N hidden states.

    Args:
        hidden_ND: hidden states that predict the targets; products run in its dtype, sums in float32.
        weight_VD, bias_V: the head.
        targets_N: token ids; weights_N: float32 weights.
    """
    total = _LinearCrossEntropy.apply(hidden_ND, weight_VD, bias_V, targets_N, weights_N)
    return Loss(total, weights_N.sum())


def weighted_cross_entropy(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor) -> Loss:
    """The same from logits that exist already: small heads, encoder-decoders."""
    losses_N = torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    return Loss((losses_N * weights_N).sum(), weights_N.sum())
