"""Compilation by region: each block of the network on its own, so that equal blocks share one graph and compiling takes seconds.

Attention over a forest stays outside the graphs: who sees whom differs in every batch, and a graph for each would never be done.
Worth its start-up time on GPUs, where small operations are fused and launches are saved; on CPUs the gain was 8 % of a step.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface

from tunewright.engine.around import Around
from tunewright.engine.attention import FOREST, forest_attention
from tunewright.models import Model

ENOUGH_STEPS = 200  # optimizer steps from which on compiling has paid for itself


def worth_compiling(asked: str, device: torch.device, steps: int) -> tuple[bool, str]:
    """Whether to compile, and the reason in words.

    Args:
        asked: `on`, `off`, or `auto`: on GPUs, when the run is long enough.
        steps: optimizer steps of the run.
    """
    if asked != "auto":
        return asked == "on", "it was asked for"
    if device.type != "cuda":
        return False, "off: compiled blocks gain little on a CPU"
    if steps < ENOUGH_STEPS:
        return False, f"off: {steps} steps are over before compiling has paid for itself"
    return True, f"on: {steps} steps on a GPU"


class Compiled:
    """Every block of one model compiled, for any number of tokens, until it is removed.

    What cannot be in a graph runs between graphs, as before. Put it on before `Recomputing`, which then repeats compiled blocks.

    Args:
        backend: of `torch.compile`; `eager` only traces, which is how it is tested where no compiler is installed.
    """

    def __init__(self, model: Model, backend: str = "inductor") -> None:
        AttentionInterface.register(FOREST, torch.compiler.disable(forest_attention))
        self._around = [Around(block, lambda plain: torch.compile(plain, backend=backend, dynamic=True)) for block in model.blocks]

    def remove(self) -> None:
        """Run the blocks uncompiled again."""
        for around in self._around:
            around.remove()
        AttentionInterface.register(FOREST, forest_attention)
