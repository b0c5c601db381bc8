"""Products of matrices on CPUs in float32, by whichever library of torch's two is the faster on this machine.

torch multiplies float32 matrices with MKL, which on processors of other makers runs at about half of what oneDNN reaches (AMD EPYC
with AVX-512: 230 against 510 GFLOP/s on two cores). `mkldnn::_linear_pointwise`, which torch.compile uses for its layers, takes
plain tensors in either orientation and needs no second copy of the weights. Which one serves is measured once a machine and
remembered; both give float32 sums, in another order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from tunewright.engine.measured import fastest, remembered

CLEARLY = 1.2  # times faster before oneDNN takes over: the same machine should come to the same answer every time
SMALL = 1 << 18  # multiplications below which a call costs more than its arithmetic


def multiply(left_MK: Tensor, right_KN: Tensor) -> Tensor:
    """[M, K] x [K, N]; no gradients flow through it: it is what autograd functions are made of.

    Args:
        right_KN: in either orientation in memory; a weight [N, K] is given as its transposed view.
    """
    if _large_float32(left_MK, right_KN) and onednn_serves(torch.get_num_threads()):
        return torch.ops.mkldnn._linear_pointwise.default(left_MK, right_KN.t(), None, "none", [], "")
    return torch.mm(left_MK, right_KN)


def affine(x: Tensor, weight_IO: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W + b in the leading shape of x, as a tensor of its own and no view; no gradients flow through it."""
    if _large_float32(x, weight_IO) and onednn_serves(torch.get_num_threads()):
        y = torch.ops.mkldnn._linear_pointwise.default(x, weight_IO.t(), bias_O, "none", [], "")
        return torch.ops.aten._unsafe_view.default(y, y.shape)  # oneDNN's own is a view of [T, O] where x is no matrix
    y = x.new_empty((*x.shape[:-1], weight_IO.shape[1]))
    x_TI, y_TO = x.reshape(-1, x.shape[-1]), y.view(-1, weight_IO.shape[1])
    if bias_O is None:
        torch.mm(x_TI, weight_IO, out=y_TO)
    else:
        torch.addmm(bias_O, x_TI, weight_IO, out=y_TO)
    return y


def _large_float32(left_MK: Tensor, right_KN: Tensor) -> bool:
    return (
        left_MK.dtype is torch.float32
        and right_KN.dtype is torch.float32
        and left_MK.numel() * right_KN.shape[1] > SMALL
        and left_MK.device.type == "cpu"
        and type(right_KN) is Tensor
        and not torch.compiler.is_compiling()
    )


@cache
def onednn_serves(threads: int) -> bool:
    """Whether oneDNN's product is there, gives the same numbers, and is clearly faster with so many threads."""
    if not torch.backends.mkldnn.is_available():
        return False
    drawn = torch.Generator().manual_seed(0)
    left, right = torch.randn(256, 512, generator=drawn), torch.randn(512, 512, generator=drawn)
    try:
        product = torch.ops.mkldnn._linear_pointwise.default
        difference = (product(left, right.t(), None, "none", [], "") - left @ right).abs().max()
    except (AttributeError, RuntimeError, NotImplementedError):  # another build of torch
        return False
    if not float(difference) < 1e-3:
        return False

    def speedup() -> float:
        ours = fastest(lambda: product(left, right.t(), None, "none", [], ""))
        return fastest(lambda: left @ right) / ours

    return remembered({"what": "float32 products, oneDNN against torch's own", "threads": threads}, speedup) >= CLEARLY


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x W^T + b for x [..., I], trained or not: `torch.nn.functional.linear` on the faster product."""
    ordinary = type(weight_OI) in (Tensor, Parameter)  # not divided over processes, not quantised
    if x.dtype is not torch.float32 or x.device.type != "cpu" or not ordinary or torch.is_autocast_enabled("cpu"):
        return torch.nn.functional.linear(x, weight_OI, bias_O)
    return _Linear.apply(x, weight_OI, bias_O)  # pyright: ignore[reportReturnType]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        need_x, need_weight, _ = context.needs_input_grad
        context.save_for_backward(x if need_weight else None, weight_OI if need_x else None)
        context.shape = x.shape
        return affine(x, weight_OI.detach().t(), None if bias_O is None else bias_O.detach())

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight_OI = context.saved_tensors
        dy_TO = grad.reshape(-1, grad.shape[-1])
        need_x, need_weight, need_bias = context.needs_input_grad
        dx = multiply(dy_TO, weight_OI.detach()).view(context.shape) if need_x else None
        return dx, multiply(dy_TO.t(), x.reshape(-1, x.shape[-1])) if need_weight else None, dy_TO.sum(0) if need_bias else None
