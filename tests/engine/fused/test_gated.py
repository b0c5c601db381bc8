"""The gated MLP: gradients against autograd, what is kept, and what must not be taken for one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tunewright.engine.fused.gated import _Gated, _GatedJoint, gated_forward


@pytest.mark.parametrize("activation", ["silu", "tanh", "none"])
def test_gradients_are_those_of_finite_differences(activation: str):
    gate, up = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    joint = torch.cat([gate, up], dim=-1)
    for leaf in (gate, up, joint):
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(lambda gate, up: _Gated.apply(gate, up, activation), (gate, up))
    assert torch.autograd.gradcheck(lambda joint: _GatedJoint.apply(joint, activation), (joint,))


class MLP(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(10, 6)
        self.act_fn = act

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Swapped(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.gate_proj(x) * self.act_fn(self.up_proj(x)))


class Residual(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize("act", [nn.SiLU(), nn.GELU(), nn.GELU(approximate="tanh")])
def test_known_activations_are_told_apart(act: nn.Module):
    module, x = MLP(act), torch.randn(2, 6, generator=torch.Generator().manual_seed(0)) * 3
    forward = gated_forward(module)
    assert forward is not None
    torch.testing.assert_close(forward(module, x), module(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("module", [MLP(nn.ReLU()), MLP(nn.Sigmoid()), Swapped(nn.SiLU()), Residual(nn.SiLU())])
def test_what_only_looks_like_one_is_left_alone(module: nn.Module):
    assert gated_forward(module) is None


def test_gate_and_up_alone_are_kept():
    gate, up = (part.requires_grad_() for part in torch.randn(2, 5, 8).unbind())
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.data_ptr()) or tensor, lambda tensor: tensor):
        _Gated.apply(gate, up, "silu")
    assert kept == [gate.data_ptr(), up.data_ptr()]


def test_a_second_backward_pass_gives_the_same():
    """Buffers are reused inside one backward pass only: nothing that was kept is written over."""
    gate, up = (part.requires_grad_() for part in torch.randn(2, 5, 8).unbind())
    total = _Gated.apply(gate, up, "silu").sum()  # type: ignore[union-attr]
    first = torch.autograd.grad(total, (gate, up), retain_graph=True)
    second = torch.autograd.grad(total, (gate, up))
    assert all(map(torch.equal, first, second))
