"""The root-mean-square norm against its definition in float64, and what must not be taken for one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tunewright.engine.fused.norms import norm_forward, normalize


def defined(x: Tensor, weight: Tensor, epsilon: float, shift: float) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + epsilon).rsqrt() * (weight + shift)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("trained", [True, False])
def test_values_and_gradients(trained: bool, shift: float):
    x = drawn(4, 3, 40).transpose(0, 1)  # heads are views that are not contiguous
    x = x.detach().requires_grad_()
    weight, gradient = drawn(40).requires_grad_(trained), drawn(3, 4, 40)
    wanted = [x, weight] if trained else [x]
    exact = defined(x.double(), weight.double(), 1e-5, shift)
    y = normalize(x, weight, 1e-5, shift, torch.float32)
    torch.testing.assert_close(y.double(), exact, rtol=1e-6, atol=1e-6)
    ours = torch.autograd.grad(y, wanted, gradient)
    for one, other in zip(ours, torch.autograd.grad(exact, wanted, gradient.double()), strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-5, atol=1e-5)


def test_a_weight_alone_can_be_trained():
    x, weight = drawn(5, 8), drawn(8).requires_grad_()
    (ours,) = torch.autograd.grad(normalize(x, weight, 1e-6, 0.0, torch.float32).square().sum(), weight)
    (exact,) = torch.autograd.grad(defined(x, weight, 1e-6, 0.0).square().sum(), weight)
    torch.testing.assert_close(ours, exact)


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    x, weight = drawn(5, 64).bfloat16(), drawn(64)
    exact = defined(x.double(), weight.double(), 1e-6, 0.0).bfloat16()
    assert torch.equal(normalize(x, weight, 1e-6, 0.0, torch.bfloat16), exact)
    x.requires_grad_()
    normalize(x, weight, 1e-6, 0.0, torch.bfloat16).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is torch.bfloat16


def test_without_gradients_nothing_is_kept():
    with torch.no_grad():
        assert normalize(drawn(2, 8).requires_grad_(), drawn(8), 1e-6, 0.0, torch.float32).grad_fn is None


class Outside(nn.Module):
    """Epsilon beside the root and not under it: no different on ordinary rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(16)), 1e-3

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)


class Centred(Outside):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (16,), self.weight, None, self.eps)


class Detached(Outside):
    """The right values with the wrong gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.detach().pow(2).mean(-1, keepdim=True) + self.eps).rsqrt()


class Raising(Outside):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not for these shapes")


@pytest.mark.parametrize("kind", [Outside, Centred, Detached, Raising])
def test_what_only_looks_like_one_is_left_alone(kind: type[nn.Module]):
    assert norm_forward(kind(), lowers=False) is None


def test_torchs_own_is_recognised_and_one_without_weight_is_not():
    assert norm_forward(nn.RMSNorm(16, eps=1e-5), lowers=False) is not None
    assert norm_forward(nn.RMSNorm(16, eps=1e-5, elementwise_affine=False), lowers=False) is None
    assert norm_forward(nn.LayerNorm(16, bias=False), lowers=False) is None
