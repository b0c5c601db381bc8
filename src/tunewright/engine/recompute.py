"""Activation checkpointing by block: what enters a block is kept, what happens inside is computed again in the backward pass.

Only where it saves something: a block through which no gradient flows (below the lowest trained one, or while evaluating) runs as
it is, and so does a last block that computes a few rows only (`narrow`). Gradients are the same bits, dropout included, since the
random state of the first pass is put back for the second.
Cost: about one more forward pass of the blocks that learn; memory falls to one hidden state a block and the inside of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunewright.engine.around import Around, Forward, stands_around
from tunewright.engine.changes.host import Changes
from tunewright.models import Model


class Recomputing:
    """Checkpointing on every block of one model, until it is removed. Where blocks are compiled too, compile them first."""

    def __init__(self, model: Model) -> None:
        self.model, self.on = model, True
        self._around = [Around(block, lambda plain, block=block: self._checkpointed(block, plain)) for block in model.blocks]

    def remove(self) -> None:
        """Keep activations again."""
        for around in self._around:
            around.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Activations are kept inside."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before

    def _checkpointed(self, block: nn.Module, plain: Forward) -> Forward:
        lanes = self.model.lanes

        def forward(*inputs: Any, **named: Any) -> Any:
            if not self.on or not torch.is_grad_enabled() or _is_narrowed(block) or not _learns(block, inputs, named):
                return plain(*inputs, **named)
            # What attached modules read must be the same the second time, when the engine has moved on.
            runs, standing, places, rows = lanes.runs, lanes.standing, lanes.places, lanes.rows

            def again(*inputs: Any, **named: Any) -> Any:
                with lanes.during(runs, standing=standing, places=places, rows=rows):
                    return plain(*inputs, **named)

            return checkpoint(again, *inputs, use_reentrant=False, **named)

        return forward


def _is_narrowed(block: nn.Module) -> bool:
    """Whether layers inside compute fewer rows in this pass: they keep little, and in the backward pass would be whole again."""
    inner = (module for module in block.modules() if module is not block)
    return any(module.narrowed if isinstance(module, Changes) else stands_around(module) for module in inner)


def _learns(block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether a gradient will flow through the block: from what enters it, or from weights of its own."""
    entering = (*inputs, *named.values())
    if any(isinstance(value, Tensor) and value.requires_grad for value in entering):
        return True
    return any(parameter.requires_grad for parameter in block.parameters())
