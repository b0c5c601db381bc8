"""The product of frozen linear layers that read one input, with low-rank changes beside them, forward and backward.

    forward   y_m = W_m x + b_m + scale * B_m A_m x                          for each layer m
    backward  dx   = sum_m W_m^T dy_m + scale * A_m^T (B_m^T dy_m)
              dA_m = scale * (B_m^T dy_m) x^T,    dB_m = scale * dy_m (A_m x)^T

The changes are added into the base's output where it lies, all A of one tuning meet x in one product, x is kept once however many
layers read it, and nothing is computed for a frozen W. Low-rank factors are held rank first ([R, T], [R, O]): a product whose
short side leads is 1.5 to 5 times faster in float32 (MKL) than the same numbers with the short side last.

The base's own products stay apart, each into its own output. One product over all rows [W; A] was measured beside it (2 cores with
AVX-512): no faster in float32, and in bfloat16 by 5 % of a group's time at 64 tokens, 3 % at 256 and nothing at 800; each output
would keep those of all its siblings alive until the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pad_sequence

from tunewright.engine.products import affine, multiply


class OwnProduct:
    """A frozen linear layer that keeps and multiplies its weight in a way of its own (bytes); a class of layers inherits it."""

    def ahead(self, x: Tensor) -> Tensor:
        """W x + b, [..., I] to [..., O], in the dtype of x."""
        raise NotImplementedError

    def back(self, dy_TO: Tensor) -> Tensor:
        """W^T dy, [T, I], in the dtype of dy."""
        raise NotImplementedError


class Frozen(NamedTuple):
    """A frozen linear layer: its weight as [I, O] (a view, whichever way it lies in memory) and its bias [O] or None.

    Or `own`, which then does both products itself, with a weight that nobody else reads.
    """

    weight_IO: Tensor | None
    bias_O: Tensor | None
    own: OwnProduct | None = None


class Cut(NamedTuple):
    """Neighbouring tokens of one or more tunings, a lane each, and the adapters on them.

    Args:
        start: the first token; lengths: the tokens of each lane.
        scales: what the changes of each lane are multiplied by.
        layers: the numbers of the layers that have adapters here, the same for each lane.
    """

    start: int
    lengths: tuple[int, ...]
    scales: tuple[float, ...]
    layers: tuple[int, ...]

    @property
    def stop(self) -> int:
        """The token behind the last."""
        return self.start + sum(self.lengths)


def project(x: Tensor, layers: Sequence[Frozen], cuts: Sequence[Cut], pairs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The output [..., O] of each layer for x [..., I], with the changes of each cut on its tokens.

    Args:
        x: any leading shape; cuts count its flat tokens. Under autocast, products run in autocast's dtype.
        pairs: A [R, I] and B [O, R], in turn, for each layer of each lane of each cut; they may be wider than the products.
    """
    if not torch.is_grad_enabled():
        return _forward(x, layers, cuts, pairs)[0]
    return _Product.apply(x, tuple(layers), tuple(cuts), *pairs)


def _forward(
    x: Tensor, layers: Sequence[Frozen], cuts: Sequence[Cut], pairs: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The outputs, and what the backward pass needs."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    x_TI = _as(x.reshape(-1, x.shape[-1]), dtype)
    outputs, flat = _base(x, x_TI, layers)
    kept, first = [x_TI], 0
    for cut in cuts:
        own = pairs[first : first + 2 * len(cut.layers) * len(cut.scales)]
        first += len(own)
        kept += _add(cut, own, x_TI, flat)
    return outputs, kept


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, layers: tuple[Frozen, ...], cuts: tuple[Cut, ...], *pairs: Tensor) -> tuple[Tensor, ...]:
        outputs, kept = _forward(x, layers, cuts, pairs)
        context.layers, context.cuts, context.shape = layers, cuts, x.shape
        context.ranks = [A_RI.shape[0] for A_RI in pairs[::2]]
        context.set_materialize_grads(False)
        context.save_for_backward(*kept)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(context: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_TI, *kept = context.saved_tensors
        slopes = [None if grad is None else grad.reshape(-1, grad.shape[-1]) for grad in grads]
        dx_TI = _through_base(slopes, context.layers) if context.needs_input_grad[0] else None
        found: list[Tensor | None] = []
        for cut in context.cuts:
            count = 2 + len(cut.layers)
            gradients = _through(cut, kept[:count], x_TI, dx_TI, slopes)
            found += _unstacked(gradients, context.ranks[len(found) // 2 :], len(cut.scales))
            kept = kept[count:]
        return None if dx_TI is None else dx_TI.view(context.shape), None, None, *found


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values if values.dtype is dtype else values.to(dtype)


def _base(x: Tensor, x_TI: Tensor, layers: Sequence[Frozen]) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The base's outputs in the shape of x, and flat [T, O] views of them."""
    outputs, flat = [], []
    for weight_IO, bias_O, own in layers:
        if own is not None:
            y = own.ahead(x_TI.view(x.shape))
        else:
            assert weight_IO is not None
            y = affine(x_TI.view(x.shape), _as(weight_IO, x_TI.dtype).detach(), None if bias_O is None else _as(bias_O, x_TI.dtype))
        outputs.append(y)
        flat.append(y.view(-1, y.shape[-1]))
    return tuple(outputs), flat


def _region(values: Tensor, cut: Cut) -> Tensor:
    """The tokens of a cut: [T, D], or [N, T, D] of several lanes; different lengths are filled up with zeros, in a copy."""
    here = values if len(values) == sum(cut.lengths) else values[cut.start : cut.stop]
    if len(cut.lengths) == 1:
        return here
    if len(set(cut.lengths)) == 1:
        return here.view(len(cut.lengths), -1, here.shape[1])
    return pad_sequence(list(here.split(cut.lengths)), batch_first=True)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    return multiply(left, right) if left.dim() == 2 else torch.bmm(left, right)


def _add_product(values: Tensor, cut: Cut, left: Tensor, right: Tensor) -> None:
    """Add a product, [T, D] or [N, T, D], to the tokens of a cut where they lie."""
    if len(cut.lengths) == 1:
        _region(values, cut).addmm_(left, right)
    elif len(set(cut.lengths)) == 1:
        _region(values, cut).baddbmm_(left, right)
    else:
        lanes = zip(torch.bmm(left, right), cut.lengths, strict=True)
        into = list(values[cut.start : cut.stop].split(cut.lengths))
        torch._foreach_add_(into, [lane[:length] for lane, length in lanes])  # pyright: ignore[reportPrivateImportUsage]


def _scale(values: Tensor, cut: Cut) -> Tensor:
    """`values` [R, T] or [N, R, T], each lane multiplied by its scale in place."""
    if len(set(cut.scales)) == 1:
        return values.mul_(cut.scales[0])
    return values.mul_(values.new_tensor(cut.scales).view(-1, 1, 1))


def _stacked(matrices: Sequence[Tensor], lanes: int) -> Tensor:
    """[R, D] of one lane, or [N, R, D] of all; a smaller rank is filled up with zeros, which change nothing."""
    if lanes == 1:
        return matrices[0]
    rank = max(len(matrix) for matrix in matrices)
    return torch.stack([m if len(m) == rank else torch.nn.functional.pad(m, (0, 0, 0, rank - len(m))) for m in matrices])


def _add(cut: Cut, pairs: Sequence[Tensor], x_TI: Tensor, flat: Sequence[Tensor]) -> list[Tensor]:
    """Add a cut's changes to the outputs; returns what its backward pass needs: all A [R, I], scale * A x [R, T], each B as [R, O].

    The masters are read anew at each step, since they change between steps.
    """
    lanes, step = len(cut.scales), 2 * len(cut.layers)
    As = [_stacked(pairs[first::step], lanes) for first in range(0, step, 2)]
    Bs = [_as(_stacked([B_OR.t() for B_OR in pairs[first::step]], lanes), x_TI.dtype) for first in range(1, step, 2)]
    A_RI = _as(As[0] if len(As) == 1 else torch.cat(As, dim=-2), x_TI.dtype)
    low_RT = _scale(_multiply(A_RI, _region(x_TI, cut).mT), cut)
    for number, B_RO, part_RT in zip(cut.layers, Bs, _parts(low_RT, Bs), strict=True):
        _add_product(flat[number], cut, part_RT.mT, B_RO)
    return [A_RI, low_RT, *Bs]


def _parts(rows: Tensor, Bs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The rows of each layer's adapters."""
    return (rows,) if len(Bs) == 1 else rows.split([B_RO.shape[-2] for B_RO in Bs], dim=-2)


def _through_base(slopes: Sequence[Tensor | None], layers: Sequence[Frozen]) -> Tensor | None:
    """sum_m dy_m W_m, added up where it lies."""
    dx_TI = None
    for dy_TO, layer in zip(slopes, layers, strict=True):
        if dy_TO is not None:
            part_TI = _through_one(dy_TO, layer)
            dx_TI = part_TI if dx_TI is None else dx_TI.add_(part_TI)
    return dx_TI


def _through_one(dy_TO: Tensor, layer: Frozen) -> Tensor:
    if layer.own is not None:
        return layer.own.back(dy_TO)
    assert layer.weight_IO is not None
    return multiply(dy_TO, _as(layer.weight_IO, dy_TO.dtype).detach().t())


def _through(
    cut: Cut, kept: Sequence[Tensor], x_TI: Tensor, dx_TI: Tensor | None, slopes: Sequence[Tensor | None]
) -> list[tuple[Tensor, Tensor | None]]:
    """Add a cut's part to dx; returns the gradients of A [R, I] and B as [R, O], of all lanes, for each layer."""
    A_RI, low_RT, *Bs = kept
    backs, dBs = [], []
    for number, B_RO, part_RT in zip(cut.layers, Bs, _parts(low_RT, Bs), strict=True):
        slope_TO = slopes[number]
        if slope_TO is None:
            backs.append(torch.zeros_like(part_RT))
            dBs.append(None)
        else:
            dy_TO = _region(slope_TO, cut)
            backs.append(_multiply(B_RO, dy_TO.mT))
            dBs.append(_multiply(part_RT, dy_TO))
    back_RT = _scale(backs[0] if len(backs) == 1 else torch.cat(backs, dim=-2), cut)
    dA_RI = _multiply(back_RT, _region(x_TI, cut))
    if dx_TI is not None:
        _add_product(dx_TI, cut, back_RT.mT, A_RI)
    return list(zip(_parts(dA_RI, Bs), dBs, strict=True))


def _unstacked(gradients: Sequence[tuple[Tensor, Tensor | None]], ranks: Sequence[int], lanes: int) -> list[Tensor | None]:
    """The gradients of each adapter's A [R, I] and B [O, R], in the order of `pairs`."""
    if lanes == 1:
        return [one for dA, dB in gradients for one in (dA, None if dB is None else dB.t())]
    found: list[Tensor | None] = []
    for lane in range(lanes):
        for (dA, dB), rank in zip(gradients, ranks[lane * len(gradients) :], strict=False):
            found += (dA[lane, :rank], None if dB is None else dB[lane, :rank].t())
    return found
