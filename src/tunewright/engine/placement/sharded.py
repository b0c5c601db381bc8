"""A part of every weight, gradient and moment on each process (FSDP2): a block is gathered while it computes, and divided again.

The engine reads parts of a network by themselves (the body, then the weight of the head at the targets only), so the whole loss of
a micro-batch runs as one forward call of the root; otherwise the head's weight would be read while it is divided.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter

from tunewright.core.surroundings import Process
from tunewright.engine.loss import Loss
from tunewright.engine.placement import LossOf
from tunewright.engine.placement.replicated import Replicated
from tunewright.models import Model
from tunewright.models.heads import Head

if TYPE_CHECKING:
    from tunewright.engine.engine import Engine

INSIDE = "computed_inside"  # the method of the root under which anything can run as its forward call


class Sharded(Replicated):
    """Divides a network, and its head if it has one, over all processes; parameters become DTensors.

    Source: Zhao et al., "PyTorch FSDP", arXiv 2304.11277; PyTorch's `fully_shard`.
    Cost: 1/n of weights, gradients and moments on each process; a block's weights travel twice a micro-batch, its gradients once.

    Args:
        process: who this is.
        model: whole, on its device; the same numbers on every process.
        head: the task head on it.
    """

    name = "shard"
    in_step = True

    def __init__(self, process: Process, model: Model, head: Head | None = None) -> None:
        super().__init__(process)
        self.network: nn.Module = model.network
        device = next(model.network.parameters()).device
        mesh = DeviceMesh(device.type, list(range(process.world)))
        self.roots = [_divided(self.network, model.blocks, mesh), *([_divided(head, [], mesh)] if head is not None else [])]
        setattr(self.network, INSIDE, _call)
        register_fsdp_forward_method(self.network, INSIDE)
        # The first forward call settles who is the root; it must be the network, though parts of it are called by themselves later.
        getattr(self.network, INSIDE)(int)
        self.roots[0].reshard()
        self.broken = False

    def divided(self, names: Mapping[str, Parameter], head: nn.Module | None = None) -> dict[str, Parameter]:
        """The divided parameters that now stand under the names of the whole ones (`head.` before those of the head)."""
        found = dict(self.network.named_parameters(remove_duplicate=False))
        found |= {f"head.{name}": parameter for name, parameter in (head.named_parameters() if head is not None else ())}
        return {name: found[name] for name in names}

    def within(self, loss: LossOf) -> LossOf:
        def inside(engine: Engine, batch: Any) -> Loss:
            total, count = getattr(self.network, INSIDE)(loss, engine, batch)
            if math.isfinite(float(total.detach())):
                return Loss(total, count)
            # The others are about to gather weights for the backward pass, so this process has to go on too; `sum_numbers` tells.
            self.broken = True
            return Loss(torch.nan_to_num(total, 0.0, 0.0, 0.0), count)

        return inside

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        broken, self.broken = self.broken, False
        return super().sum_numbers([math.nan, *numbers[1:]] if broken else numbers)

    @contextlib.contextmanager
    def readable(self) -> Iterator[None]:
        for root in self.roots:
            root.unshard()
        try:
            yield
        finally:
            for root in self.roots:
                root.reshard()

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        with self.guarded():
            for name, tensor in tensors.items():
                full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
                if self.leads:
                    found[name] = full.detach().cpu()
        return found

    def given(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().given(tensors, like)
        for name, whole in found.items():
            pattern = like.get(name, like.get(name.partition("/")[2]))
            if isinstance(pattern, DTensor) and pattern.shape == whole.shape:
                on_device = whole.to(pattern.device)
                found[name] = distribute_tensor(on_device, pattern.device_mesh, pattern.placements, src_data_rank=None)
        return found

    @contextlib.contextmanager
    def written(self, *modules: nn.Module) -> Iterator[None]:
        places = [
            (holder, name, parameter)
            for module in modules
            for holder in module.modules()
            for name, parameter in holder.named_parameters(recurse=False)
        ]
        different = {str(id(parameter)): parameter for _, _, parameter in places}
        whole = {key: Parameter(tensor, requires_grad=False) for key, tensor in self.whole(different).items()}
        for holder, name, parameter in places if self.leads else ():
            holder._parameters[name] = whole[str(id(parameter))]
        try:
            yield
        finally:
            for holder, name, parameter in places:
                holder._parameters[name] = parameter


def _divided(root: nn.Module, blocks: list[nn.Module], mesh: DeviceMesh) -> FSDPModule:
    """`root` divided, each of `blocks` as a unit of its own; gradients are summed over the processes and not averaged."""
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    # What the root holds itself (embeddings, head) stays gathered between forward and backward pass.
    found = fully_shard(root, mesh=mesh, reshard_after_forward=False)
    for module in (*blocks, root):
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)  # gloo cannot scale while it sums
    return found


def _call(work: Any, *arguments: Any) -> Any:
    return work(*arguments)
