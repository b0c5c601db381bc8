"""Does a replacement give the numbers of the original? Asked once for every module, on small random inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5  # of the largest value of each row, float32; another order of sums gives 1e-6


def stand_in(module: nn.Module, parameters: dict[str, Tensor], children: dict[str, nn.Module]) -> nn.Module:
    """A shallow copy of `module` with other parameters and children: its own code and settings, at a size that costs nothing."""
    copy = module.__class__.__new__(module.__class__)
    copy.__dict__.update(module.__dict__)
    copy.__dict__["_parameters"] = {**module._parameters, **parameters}
    copy.__dict__["_modules"] = {**module._modules, **children}
    return copy


def agree(one: Callable[..., object], other: Callable[..., object], inputs: Sequence[Tensor]) -> bool:
    """Whether two functions of tensors agree within `TOLERANCE`, in outputs and in gradients of `inputs`.

    Whatever the original raises on such inputs says that it is something else than what was looked for.
    """
    try:
        expected = _run(one, inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError):
        return False
    return len(expected) > len(inputs) and all(map(_close, _run(other, inputs), expected))


def _run(function: Callable[..., object], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs and the gradients of the inputs; both functions see the same weights on the outputs and the same dropout."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # not the seed of the inputs: a gradient that is parallel to its input hides behind cancellation
        result = function(*leaves)
        outputs = [part for part in (result if isinstance(result, tuple) else (result,)) if isinstance(part, Tensor)]
        weights = [torch.randn(output.shape) for output in outputs]
    gradients = torch.autograd.grad(outputs, leaves, weights)
    return [*(output.detach() for output in outputs), *gradients]


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    scale = other.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(other.dtype).tiny)
    return bool(((one - other).abs() / scale <= TOLERANCE).all())
