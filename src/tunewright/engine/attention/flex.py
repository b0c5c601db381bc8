"""Forest attention through FlexAttention: a block mask made from the layout, compiled on GPUs.

Blocks of 128 x 128 that nobody sees into are skipped, blocks that are seen whole are computed without a mask, and the rest
evaluates `visible` token by token. Not covered: dropout of the weights, which FlexAttention does not have.

Source: FlexAttention, Dong et al. 2024 (https://arxiv.org/abs/2412.05496); sharing a prefix through it, Wang & Hegde 2024
(https://arxiv.org/abs/2410.20305).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from tunewright.engine.attention.options import Options
from tunewright.engine.layout import Layout, visible


def flex(query_1HTD: Tensor, key_1KTD: Tensor, value_1KTD: Tensor, layout: Layout, options: Options) -> Tensor:
    """Attention of a forest row: [1, T, H, D].

    Args:
        query_1HTD, key_1KTD, value_1KTD: of one dtype and on one device.
        layout: who sees whom.
        options: without dropout.

    Raises:
        ValueError: dropout is asked for.
    """
    if options.dropout:
        raise ValueError("FlexAttention cannot drop weights")
    output = _attend(query_1HTD.device.type)(
        query_1HTD,
        key_1KTD,
        value_1KTD,
        score_mod=_capped(options.softcap) if options.softcap is not None else None,
        block_mask=block_mask(layout, options.causal, options.window, query_1HTD.device),
        scale=options.scale,
        enable_gqa=query_1HTD.shape[1] != key_1KTD.shape[1],
    )
    return output.transpose(1, 2).contiguous()


def block_mask(layout: Layout, causal: bool, window: int | None, device: torch.device) -> BlockMask:
    """The mask of a layout, made once and kept on it."""

    def make() -> BlockMask:
        seen = mask_function(layout, causal, window, device)
        build = torch.compile(create_block_mask) if device.type == "cuda" else create_block_mask
        return build(seen, None, None, layout.total, layout.total, device=str(device))

    return layout.derived(("block mask", causal, window, device), make)


def mask_function(
    layout: Layout, causal: bool, window: int | None, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The function (batch, head, row, column) -> seen that FlexAttention asks for; it equals `dense_mask` everywhere."""
    marks = layout.marks(device)

    def seen(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return visible(marks, row, column, causal, window)

    return seen


@cache
def _capped(softcap: float) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    # One function a cap: a new one in every call would be compiled anew in every call.
    def capped(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped


@cache
def _attend(device: str) -> Callable[..., Tensor]:
    return torch.compile(flex_attention) if device == "cuda" else flex_attention
