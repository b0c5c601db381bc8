"""Parts of an unmodified transformers network on faster arithmetic: norms, gated activations, rotary embeddings, linear layers.

`fuse` gives single modules another `forward` on the instance; classes, parameters, names and types stay what they were. Nothing
is recognised by a family's name: a module has the parts that a rule asks for *and* gives the same numbers, forward and backward,
as its own class on a small random input, or it is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING

from torch import nn

from tunewright.engine.fused.gated import gated_forward
from tunewright.engine.fused.linears import linear_forward
from tunewright.engine.fused.norms import norm_forward
from tunewright.engine.fused.rotary import rotary_forward
from tunewright.models.sites import blocks_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Fused", "fuse"]


class Fused:
    """What `fuse` changed, and the way back.

    Args:
        parts: kind (`norm`, `gated`, `rotary`, `linear`) -> the paths of the modules that run ours.
        modules: those modules, by path.
    """

    def __init__(self, parts: dict[str, list[str]], modules: dict[str, nn.Module]) -> None:
        self.parts, self.modules = parts, modules

    def __repr__(self) -> str:
        return "Fused(" + ", ".join(f"{len(paths)} {kind}" for kind, paths in self.parts.items()) + ")"

    def remove(self) -> None:
        """Every module runs its own class's forward again; a second call does nothing."""
        for module in self.modules.values():
            for holder in (module, module.__dict__.get("cargo", module)):  # a layer that has come to carry adapters keeps it there
                holder.__dict__.pop("forward", None)
        self.modules, self.parts = {}, {}


def fuse(network: PreTrainedModel, *, sparing: bool = False) -> Fused:
    """Let the norms, rotary attentions and linear layers of `network` run ours where that gives the same numbers.

    Under autocast the norms inside the blocks hand out the products' type, since products are what reads them; the last norm keeps
    its own. A module whose forward somebody has already set on the instance is left alone, so a second call changes nothing.
    Layers inside an MLP or an attention may be replaced later: they are looked up when they are called.

    Args:
        sparing: the gated MLPs too, which keep less for the backward pass and compute a little longer.

    Cost: milliseconds, whatever the size of the network: the comparison uses stand-ins for the linear layers.
    """
    inside = {id(module) for block in blocks_of(network).values() for module in block.modules()}
    parts: dict[str, list[str]] = {"norm": [], "gated": [], "rotary": [], "linear": []}
    modules: dict[str, nn.Module] = {}
    for path, module in network.named_modules():
        if "forward" in module.__dict__:
            continue
        kind, forward = _recognised(module, id(module) in inside)
        if forward is not None and (sparing or kind != "gated"):
            module.forward = MethodType(forward, module)
            parts[kind].append(path)
            modules[path] = module
    return Fused(parts, modules)


def _recognised(module: nn.Module, inside: bool) -> tuple[str, Callable[..., object] | None]:
    for kind, forward in (
        ("norm", norm_forward(module, lowers=inside)),
        ("gated", gated_forward(module)),
        ("rotary", rotary_forward(module)),
        ("linear", linear_forward(module) if inside else None),
    ):
        if forward is not None:
            return kind, forward
    return "", None
