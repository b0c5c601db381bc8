"""Gated MLPs, down(act(gate(x)) * up(x)), that keep gate and up alone for the backward pass and write over their buffers in it.

T rows, F inner width. p = act(gate) * up; dgate = act'(gate) * (g * up); dup = act(gate) * g. One [T, F] less is kept for each MLP,
and the activation is computed once more: on CPUs that takes 15 to 25 % longer than autograd's own way, which is at its best there.

Source: Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from tunewright.engine.fused.agreement import agree, stand_in

Activation = Literal["silu", "tanh", "none"]  # silu, or gelu with torch's word for how it is computed
_aten = torch.ops.aten


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(gate, up)
        ctx.activation = activation  # pyright: ignore[reportAttributeAccessIssue]
        return _activated(gate, activation).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        activation: Activation = ctx.activation  # pyright: ignore[reportAttributeAccessIssue]
        dgate = gradient * up
        _backward_into(dgate, gate, activation)
        return dgate, _activated(gate, activation).mul_(gradient), None


class _GatedJoint(torch.autograd.Function):
    """The same where one layer gives gate and up side by side: their gradients are written into one buffer."""

    @staticmethod
    def forward(ctx: FunctionCtx, joint: Tensor, activation: Activation) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(joint)
        ctx.activation = activation  # pyright: ignore[reportAttributeAccessIssue]
        gate, up = joint.chunk(2, dim=-1)
        return _activated(gate, activation).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (joint,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        activation: Activation = ctx.activation  # pyright: ignore[reportAttributeAccessIssue]
        gate, up = joint.chunk(2, dim=-1)
        whole = torch.empty_like(joint)
        dgate, dup = whole.chunk(2, dim=-1)
        torch.mul(gradient, up, out=dgate)
        _backward_into(dgate, gate, activation)
        torch.mul(_activated(gate, activation), gradient, out=dup)
        return whole, None


def _activated(gate: Tensor, activation: Activation) -> Tensor:
    return nn.functional.silu(gate) if activation == "silu" else nn.functional.gelu(gate, approximate=activation)


def _backward_into(gradient: Tensor, gate: Tensor, activation: Activation) -> None:
    """gradient * act'(gate), written over `gradient`."""
    if activation == "silu":
        _aten.silu_backward.grad_input(gradient, gate, grad_input=gradient)
    else:
        _aten.gelu_backward.grad_input(gradient, gate, approximate=activation, grad_input=gradient)


class _Shape(NamedTuple):
    """The names of a gated MLP's parts: gate and up (the same layer twice where it is fused), down, activation, dropout."""

    gate: str
    up: str
    down: str
    activation: str
    dropout: str | None = None


_SHAPES = (
    _Shape("gate_proj", "up_proj", "down_proj", "act_fn"),
    _Shape("gate_up_proj", "gate_up_proj", "down_proj", "activation_fn"),
    _Shape("Wi", "Wi", "Wo", "act", "drop"),
)


def gated_forward(module: nn.Module) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """The forward for `module` where it is down(act(gate(x)) * up(x)) with an activation that is known here, else None."""
    children = module._modules
    shape = next((shape for shape in _SHAPES if set(children) == {part for part in shape if part is not None}), None)
    if shape is None or module._parameters:
        return None
    stood_in = _small(module, shape)
    x = torch.randn((1, 3, 4), generator=torch.Generator().manual_seed(0)) * 2
    activations: tuple[Activation, ...] = ("silu", "tanh", "none")
    for activation in activations:
        forward = _made(shape, activation)
        if agree(lambda x: type(module).forward(stood_in, x), lambda x, forward=forward: forward(stood_in, x), (x,)):
            return forward
    return None


def _made(shape: _Shape, activation: Activation) -> Callable[[nn.Module, Tensor], Tensor]:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        parts = self._modules
        if shape.gate == shape.up:
            product = _GatedJoint.apply(_call(parts, shape.gate, x), activation)
        else:
            product = _Gated.apply(_call(parts, shape.gate, x), _call(parts, shape.up, x), activation)
        if shape.dropout is not None:
            product = _call(parts, shape.dropout, product)  # pyright: ignore[reportArgumentType]
        return _call(parts, shape.down, product)  # pyright: ignore[reportArgumentType]

    return forward


def _call(parts: dict[str, nn.Module | None], name: str, x: Tensor) -> Tensor:
    layer = parts[name]
    assert layer is not None
    return layer(x)


def _small(module: nn.Module, shape: _Shape) -> nn.Module:
    """The module with small linear layers in place of its own."""
    inner = 16 if shape.gate == shape.up else 8
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = {name: nn.Linear(4, inner) for name in (shape.gate, shape.up)} | {shape.down: nn.Linear(8, 4)}
    return stand_in(module, {}, dict(layers))
