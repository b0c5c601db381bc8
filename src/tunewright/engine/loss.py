"""Cross-entropy at the targets, without ever building `[tokens, vocabulary]` whole.

For targets n with weights w_n:  total = sum_n w_n * (logsumexp(l_n) - l_n[y_n]),  count = sum_n w_n,  l_n = shape(W h_n + b).
With label smoothing e, l_n[y_n] becomes (1 - e) l_n[y_n] + e mean_v l_n[v] (Szegedy et al., arXiv 1512.00567, section 7).
The gradients are made in the forward pass, chunk by chunk (as in Liger and torchtune's chunked loss), so each chunk's logits
live only while they are used: two matrix products for a frozen head, three for a trained one, and no recomputation. This is also
the fastest way where everything would fit, so there is no other: a chunk is walked through in blocks of rows that stay in the CPU's
cache, and each logit is exponentiated once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from tunewright.engine.batch import Batch

from tunewright.engine.products import multiply

CHUNK_BYTES = 64 << 20  # logits of one chunk in float32; large enough that products stay efficient
BLOCK_BYTES = 1 << 20  # float32 logits that are worked on at once on a CPU: they and their softmax fit its second-level cache


class Loss(NamedTuple):
    """A loss is always a sum and what it was summed over; the division happens once, for the whole optimizer step."""

    total: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (a tuple's own `count` is never asked)


@dataclass(frozen=True)
class Shape:
    """What stands between the product z = W h + b and the logits: cap * tanh(scale * z / cap) / temperature.

    Args:
        scale: the product is multiplied by it (Cohere, Granite).
        cap: bounds the logits softly (Gemma 2); None leaves them as they are.
        temperature: the logits are divided by it.
    """

    scale: float = 1.0
    cap: float | None = None
    temperature: float = 1.0

    @property
    def slope(self) -> float:
        """d logits / d z where nothing is capped."""
        return self.scale / self.temperature

    def apply(self, z_NV: Tensor) -> Tensor:
        """The logits; differentiable."""
        if self.cap is None:
            return z_NV if self.slope == 1.0 else z_NV * self.slope
        return torch.tanh(z_NV * (self.scale / self.cap)) * (self.cap / self.temperature)

    def bent(self, z_NV: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits, and the bend of the cap (1 - tanh^2; None without a cap), which times `slope` is d logits / d z."""
        if self.cap is None:
            return self.apply(z_NV), None
        logits_NV = self.apply(z_NV)
        return logits_NV, (logits_NV * (self.temperature / self.cap)).square_().neg_().add_(1.0)


PLAIN = Shape()


def chunk_rows(vocabulary: int) -> int:
    """How many targets a chunk holds for a vocabulary of this size."""
    return max(16, CHUNK_BYTES // (4 * vocabulary))


def chunks(rows: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `rows`."""
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def blocks(logits_NV: Tensor) -> Iterator[slice]:
    """The rows of a chunk, as many at a time as are best worked on at once on its device."""
    rows, vocabulary = logits_NV.shape
    return chunks(rows, max(1, BLOCK_BYTES // (4 * vocabulary)) if logits_NV.device.type == "cpu" else max(1, rows))


def product_dtype(tensor: Tensor) -> torch.dtype:
    """What a product of this tensor runs in here: autocast's dtype inside autocast, its own elsewhere."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


class Peaks(NamedTuple):
    """Of each row of logits: the target's logit, the largest logit, and the logarithm of the largest probability.

    log p(v) = (l_v - largest) + log_share for every token v.
    """

    target_N: Tensor
    largest_N: Tensor
    log_share_N: Tensor

    @property
    def log_probability_N(self) -> Tensor:
        """Log p(target)."""
        return self.target_N - self.largest_N + self.log_share_N


def softmax_of(logits_NV: Tensor, targets_N1: Tensor, out_NV: Tensor) -> Peaks:
    """Write softmax(logits) to `out_NV`.

    The largest probability gives the normaliser, so one exponential a logit is enough for p and log p.
    """
    largest_N = logits_NV.amax(dim=1)
    torch.softmax(logits_NV, dim=1, out=out_NV)
    return Peaks(logits_NV.gather(1, targets_N1)[:, 0], largest_N, out_NV.amax(dim=1).log_())


def subtract_one_hot(slope_NV: Tensor, targets_N1: Tensor) -> None:
    """slope[n, y_n] -= 1, in place."""
    slope_NV.scatter_add_(1, targets_N1, torch.full_like(targets_N1, -1, dtype=slope_NV.dtype))


class Learned(NamedTuple):
    """What a head is to say at N places: token ids, float32 weights, and the share of label smoothing."""

    targets_N: Tensor
    weights_N: Tensor
    smoothing: float = 0.0


class Gradients:
    """Adds up d/d hidden, d/d weight and d/d bias of a linear head, chunk by chunk; what nobody needs stays None.

    Args:
        needed: of hidden, weight and bias, which need a gradient.
        factors_N: every row of the slopes given to `add` is still to be multiplied by its factor. That is done at width D, after
            the product, and not at width V before it.
    """

    def __init__(
        self, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, needed: tuple[bool, ...], factors_N: Tensor
    ) -> None:
        need_hidden, self._need_weight, need_bias = needed
        self.factors_N = factors_N
        self.hidden = torch.empty_like(hidden_ND) if need_hidden else None
        self.bias = torch.zeros_like(bias_V, dtype=_at_least_float32(bias_V)) if bias_V is not None and need_bias else None
        self._weight: Tensor | None = None
        self._like = weight_VD, bias_V

    def add(self, part: slice, slope_NV: Tensor, hidden_ND: Tensor, weight_VD: Tensor) -> None:
        """Account for the rows `part`: d total / d z without its factors, in the dtype of products, and what z was made from."""
        factors_N1 = self.factors_N[part, None]
        if self.hidden is not None:
            torch.mul(multiply(slope_NV, weight_VD), factors_N1, out=self.hidden[part])
        if self._need_weight:
            # The factors go onto the narrow side; sums over chunks are float32 whatever products run in.
            change_VD = multiply(slope_NV.T, (hidden_ND * factors_N1).to(slope_NV.dtype))
            wide = _at_least_float32(change_VD)
            self._weight = change_VD.to(wide) if self._weight is None else self._weight.add_(change_VD)
        if self.bias is not None:
            self.bias += (slope_NV * factors_N1).sum(0)

    def done(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three gradients, in the dtypes of what they belong to."""
        weight_VD, bias_V = self._like
        weight = self._weight
        if self._need_weight:
            weight = torch.zeros_like(weight_VD) if weight is None else weight.to(weight_VD.dtype)
        return self.hidden, weight, None if self.bias is None or bias_V is None else self.bias.to(bias_V.dtype)


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        learned: Learned,
        shape: Shape,
    ) -> Tensor:
        targets_N, weights_N, smoothing = learned
        low = product_dtype(hidden_ND)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            own_ND, own_VD = hidden_ND.to(low), weight_VD.to(low)
            needed = context.needs_input_grad[:3]
            made = Gradients(hidden_ND, weight_VD, bias_V, needed, weights_N * shape.slope)
            total = hidden_ND.new_zeros((), dtype=torch.promote_types(low, torch.float32))
            for part in chunks(len(hidden_ND), chunk_rows(len(weight_VD))):
                z_NV = multiply(own_ND[part], own_VD.T)
                total -= (to_slopes(z_NV, bias_V, targets_N[part], shape, smoothing) * weights_N[part]).sum()
                if any(needed):
                    made.add(part, z_NV, own_ND[part], own_VD)
        context.gradients = made.done()
        return total

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scaled = (None if gradient is None else gradient * grad.to(gradient.dtype) for gradient in context.gradients)
        return (*scaled, None, None)


def to_slopes(z_NV: Tensor, bias_V: Tensor | None, targets_N: Tensor, shape: Shape, smoothing: float = 0.0) -> Tensor:
    """Write -d log p(target) / d z (without the shape's slope) over z; returns log p(target), [N].

    With smoothing e, log p(target) is (1 - e) log p(target) + e mean_v log p(v).
    """
    work = torch.promote_types(z_NV.dtype, torch.float32)
    found, scratch = [], None
    for rows in blocks(z_NV):
        index_N1 = targets_N[rows, None]
        block_NV = z_NV[rows].to(work) if bias_V is None else z_NV[rows].to(work) + bias_V
        logits_NV, bend_NV = shape.bent(block_NV)
        scratch = torch.empty_like(logits_NV) if scratch is None else scratch[: len(logits_NV)]
        peaks = softmax_of(logits_NV, index_N1, scratch)
        found.append(peaks.log_probability_N)
        if smoothing:
            # By how much the mean of all log p is above the target's, and the slope of that.
            found[-1] += smoothing * (logits_NV.mean(dim=1) - peaks.target_N)
            scratch -= smoothing / logits_NV.shape[1]
            scratch.scatter_add_(1, index_N1, torch.full_like(index_N1, smoothing, dtype=scratch.dtype))
        # Before the digits are cut: in bfloat16 a probability near 1 would lose its distance from 1.
        subtract_one_hot(scratch, index_N1)
        z_NV[rows] = scratch if bend_NV is None else scratch.mul_(bend_NV)
    return torch.cat(found)


def linear_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, targets_N: Tensor, weights_N: Tensor, shape: Shape = PLAIN
) -> Loss:
    """The weighted cross-entropy of a linear head at N hidden states; differentiable once, with respect to the first three.

    Args:
        hidden_ND: hidden states that predict the targets; products run in its dtype (autocast's inside autocast), sums in float32.
        weight_VD, bias_V: the head.
        targets_N: token ids; weights_N: float32 weights.
        shape: what the family does to the logits.
    """
    return smoothed_cross_entropy(hidden_ND, weight_VD, bias_V, Learned(targets_N, weights_N), shape)


def smoothed_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, learned: Learned, shape: Shape = PLAIN
) -> Loss:
    """The same with label smoothing."""
    hidden_ND, weight_VD, bias_V = wanting(hidden_ND, weight_VD, bias_V)
    total = _LinearCrossEntropy.apply(hidden_ND, weight_VD, bias_V, learned, shape)
    return Loss(total, learned.weights_N.sum())


def wanting(hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The inputs of a custom function, detached under `no_grad`: else it is told that gradients are needed."""
    if torch.is_grad_enabled():
        return hidden_ND, weight_VD, bias_V
    return hidden_ND.detach(), weight_VD.detach(), None if bias_V is None else bias_V.detach()


def weighted_cross_entropy(logits_NV: Tensor, targets_N: Tensor, weights_N: Tensor, smoothing: float = 0.0) -> Loss:
    """The same from logits that exist already: small heads, encoder-decoders."""
    losses_N = torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="none", label_smoothing=smoothing)
    return Loss((losses_N * weights_N).sum(), weights_N.sum())


def segment_sums(values_N: Tensor, batch: Batch) -> Tensor:
    """[S]: the values of each segment's targets added up; differentiable. A segment without targets has 0."""
    return values_N.new_zeros(len(batch.spans_S2)).index_add(0, batch.owners_N, values_N)
