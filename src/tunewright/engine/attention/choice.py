"""Which way computes forest attention, and why, in words."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from tunewright.engine.attention.options import Options
from tunewright.engine.attention.varlen import WIDEST, kernel_for
from tunewright.engine.layout import Layout

Way = Literal["blocks", "flex", "packed"]
HALF = (torch.float16, torch.bfloat16)


class Choice(NamedTuple):
    """A way to compute attention.

    Args:
        way: `blocks` (products of matrices, any device), `flex` (a compiled block mask), `packed` (kernels for packed sequences).
        reason: why, in words.
    """

    way: Way
    reason: str


def choose(device: str, dtype: torch.dtype, width: int, layout: Layout, options: Options) -> Choice:
    """The fastest way that computes what is asked.

    Args:
        device: the kind, such as `cpu` or `cuda`.
        dtype: what attention is computed in.
        width: of a head.
        layout: who sees whom.
        options: what the family asks.
    """
    if device != "cuda":
        return Choice("blocks", f"on {device}, products over blocks are the fastest kernel there is")
    if dtype not in (*HALF, torch.float32):
        return Choice("blocks", f"GPU kernels do not compute in {str(dtype).removeprefix('torch.')}")
    if layout.rooted and dtype in HALF and width <= WIDEST and width % 8 == 0 and kernel_for(options) is not None:
        return Choice("packed", "no segment has a parent: the kernel for packed sequences serves")
    if options.dropout:
        return Choice("blocks", "FlexAttention cannot drop weights, and no kernel for packed sequences serves")
    why = "segments share prefixes" if not layout.rooted else "no kernel for packed sequences serves this precision or width"
    return Choice("flex", f"{why}: a compiled block mask")
