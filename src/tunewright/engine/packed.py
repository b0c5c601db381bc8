"""Products without gradients on CPUs, from weights in the order in which the kernel reads them.

A decoding step multiplies a handful of rows with every weight of the network. oneDNN does so at the speed of memory, 2 to 3 times
as fast in float32 as the product that torch chooses, once a weight lies in blocks; `mkldnn::_linear_pointwise` is what
torch.compile uses for it. A low-rank change of the one tuning that is read is added into the float32 weights on the way. Instances
are patched, never classes, and are as before when the context ends.

Cost: a second copy of the weights while it lasts, and the time to write it (30 ms for 36 million weights on one core).
Use when: several passes follow, or one over many tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tunewright.engine.device import available, held
from tunewright.engine.engine import Engine
from tunewright.engine.fused.linears import runs_ours
from tunewright.engine.linear.carrying import Carrying

SHARE = 0.25  # of the free memory that the second copy of the weights may take


@contextmanager
def packed_linears(engine: Engine, tunings: frozenset[int]) -> Iterator[None]:
    """Inside, the linear layers of a network on a CPU read packed weights; nothing changes where that does not pay.

    Args:
        tunings: whose tokens are computed inside. The weights of the network and of its tunings must not change inside.
    """
    layers: list[nn.Linear] = []
    if engine.device.type == "cpu" and torch.backends.mkldnn.is_available():
        linears = (module for module in engine.model.network.modules() if isinstance(module, nn.Linear))
        layers = [layer for layer in linears if _serves(layer, engine, tunings)]
    size = sum(layer.weight.numel() for layer in layers) * (4 if engine.precision == "float32" else 2)
    room = SHARE * (available(engine.device) - held(engine.device))
    if size > room or not all(_agrees(layer, engine) for layer in layers[:1]):
        layers = []
    before = [vars(layer).get("forward") for layer in layers]
    try:
        for layer in layers:
            vars(layer)["forward"] = _packed(layer, engine, tunings)
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            vars(layer).pop("forward", None)
            vars(layer).update({} if own is None else {"forward": own})


def _serves(layer: nn.Linear, engine: Engine, tunings: frozenset[int]) -> bool:
    """Whether the layer is a product with one weight for all rows, with no forward of its own."""
    plain = type(layer) is nn.Linear or (
        isinstance(layer, Carrying) and layer.plain is nn.Linear and engine.precision == "float32" and len(tunings) == 1
    )
    if not plain or ("forward" in vars(layer) and not runs_ours(layer)) or type(layer.weight.data) is not Tensor:
        return False
    return layer.weight.dtype == torch.float32 or (layer.weight.dtype == torch.bfloat16 and engine.precision == "bfloat16")


@torch.no_grad()
def _packed(layer: nn.Linear, engine: Engine, tunings: frozenset[int]) -> Callable[[Tensor], Tensor]:
    dtype = torch.float32 if engine.precision == "float32" else torch.bfloat16
    whole = layer.weight.detach()
    for tuning in tunings:
        adapter = layer.cargo.adapters.get(tuning) if isinstance(layer, Carrying) else None
        if adapter is not None and adapter.enabled:
            whole = whole + adapter.change()
    weight = torch.ops.mkldnn._reorder_linear_weight(whole.to(dtype), 8)
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    product = torch.ops.mkldnn._linear_pointwise.default

    def forward(x: Tensor) -> Tensor:
        return product(x.to(dtype), weight, bias, "none", [], "")

    return forward


def _agrees(layer: nn.Linear, engine: Engine) -> bool:
    """Whether this build of torch has the product, and it gives the same numbers."""
    x = torch.linspace(-1, 1, 2 * layer.in_features).view(2, -1)
    close = 1e-4 if engine.precision == "float32" else 2e-2
    try:
        found = _packed(layer, engine, frozenset())(x).float()
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    wanted = nn.functional.linear(x.to(layer.weight.dtype), layer.weight, layer.bias).float()
    return bool((found - wanted).abs().max() <= close * wanted.abs().max().clamp_min(1e-9))
