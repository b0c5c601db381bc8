"""The rotation: gradients, memory order, what it leaves to the family, and what must not be taken for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tunewright.engine.fused.rotary import _replacing, _Rotary, _same, rotary_forward


def rotate_half(x: Tensor) -> Tensor:
    one, other = x.chunk(2, -1)
    return torch.cat((-other, one), -1)


def apply_rotary_pos_emb(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin


def neighbours(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """The other convention: neighbouring numbers are a pair (GPT-J)."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)

    def turned(x: Tensor) -> Tensor:
        return x * cos + torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) * sin

    return turned(q), turned(k)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def test_the_gradient_turns_back():
    query, key = drawn(1, 4, 3, 6, dtype=torch.float64).requires_grad_(), drawn(1, 2, 3, 6, dtype=torch.float64).requires_grad_()
    cos, sin = drawn(1, 1, 3, 6, dtype=torch.float64), drawn(1, 1, 3, 6, dtype=torch.float64) + 1
    assert torch.autograd.gradcheck(lambda q, k: _Rotary.apply(q, k, cos, sin), (query, key))


def test_a_gradient_lies_in_memory_as_its_head_does():
    flat = drawn(1, 5, 4, 8).requires_grad_()
    heads = flat.transpose(1, 2)
    turned, _ = _Rotary.apply(heads, heads, drawn(1, 1, 5, 8), drawn(1, 1, 5, 8))  # type: ignore[misc]
    (gradient,) = torch.autograd.grad(turned, heads, torch.ones(1, 4, 5, 8))
    assert gradient.transpose(1, 2).is_contiguous()


def test_partly_rotated_heads_are_left_to_the_family():
    called = []

    def partly(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        called.append(cos.shape[-1])
        return q, k

    _replacing(partly)(drawn(1, 2, 3, 8), drawn(1, 2, 3, 8), drawn(1, 3, 4), drawn(1, 3, 4))
    assert called == [4]


def test_wider_angles_widen_the_heads_except_under_autocast():
    q, k, cos, sin = drawn(1, 2, 3, 8).bfloat16(), drawn(1, 1, 3, 8).bfloat16(), drawn(1, 3, 8), drawn(1, 3, 9)[..., 1:]
    ours, exact = _replacing(apply_rotary_pos_emb), apply_rotary_pos_emb(q, k, cos, sin)
    assert ours(q, k, cos, sin)[0].dtype is torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        turned = ours(q, k, cos, sin)
    for one, other in zip(turned, exact, strict=True):
        assert torch.equal(one, other.bfloat16())


@pytest.mark.parametrize(("function", "same"), [(apply_rotary_pos_emb, True), (neighbours, False)])
def test_conventions_are_told_apart(function, same: bool):
    assert _same(function, _replacing(function)) is same


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, *, cos: Tensor, sin: Tensor) -> Tensor:
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        return q @ k.transpose(-1, -2)


def test_an_attention_runs_its_own_code_with_our_rotation():
    module = Attention()
    forward = rotary_forward(module)
    assert forward is not None
    q, k, cos, sin = drawn(1, 2, 3, 8).requires_grad_(), drawn(1, 2, 4, 8)[:, :, 1:], drawn(1, 3, 8), drawn(1, 3, 8)
    torch.testing.assert_close(forward(module, q, k, cos=cos, sin=sin), module(q, k, cos=cos, sin=sin))
    assert Attention.forward.__globals__["apply_rotary_pos_emb"] is apply_rotary_pos_emb  # nothing outside was changed
    assert rotary_forward(nn.Linear(2, 2)) is None
