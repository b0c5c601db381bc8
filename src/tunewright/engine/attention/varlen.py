"""Forest attention where no segment has a parent: the kernels for packed sequences of different lengths (FlashAttention).

The package `flash_attn` is taken where it is installed (it also caps scores and drops weights), else torch's own.

Source: FlashAttention-2, Dao 2023 (https://arxiv.org/abs/2307.08691).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from tunewright.engine.attention.options import Options
from tunewright.engine.layout import Layout

WIDEST = 256  # of a head, in both kernels


class Packed(NamedTuple):
    """What a kernel is given.

    Args:
        query_THD, key_TKD, value_TKD: half precision.
        bounds: [S + 1] int32: where each segment starts, and the end.
        longest: tokens of the longest segment.
        window: keys that a row sees to its left and right; -1 for all.
        options: the rest.
    """

    query_THD: Tensor
    key_TKD: Tensor
    value_TKD: Tensor
    bounds: Tensor
    longest: int
    window: tuple[int, int]
    options: Options


def packed(query_1HTD: Tensor, key_1KTD: Tensor, value_1KTD: Tensor, layout: Layout, options: Options) -> Tensor:
    """Attention of a row of segments without parents: [1, T, H, D].

    Raises:
        ValueError: a segment has a parent, or no kernel is installed.
    """
    kernel = kernel_for(options)
    if kernel is None or not layout.rooted:
        raise ValueError("kernels for packed sequences take segments without parents")
    device = query_1HTD.device
    bounds = layout.derived(("bounds", device), lambda: torch.tensor(layout.starts, dtype=torch.int32, device=device))
    left = -1 if options.window is None else options.window - 1
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query_1HTD, key_1KTD, value_1KTD))
    window = (left, 0 if options.causal else left)
    output = kernel(Packed(query, key, value, bounds, max(layout.lengths), window, options))
    return output[None]


def kernel_for(options: Options) -> Callable[[Packed], Tensor] | None:
    """The kernel that serves these options here, or None."""
    if _installed("flash_attn"):
        return _flash_attn
    plain = options.softcap is None and not options.dropout
    return _torch if plain and _installed("torch.nn.attention.varlen") else None


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def _torch(given: Packed) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    output = varlen_attn(
        given.query_THD,
        given.key_TKD,
        given.value_TKD,
        given.bounds,
        given.bounds,
        given.longest,
        given.longest,
        scale=given.options.scale,
        window_size=given.window,
        enable_gqa=given.query_THD.shape[1] != given.key_TKD.shape[1],
    )
    assert isinstance(output, Tensor)
    return output


def _flash_attn(given: Packed) -> Tensor:
    # Not among our dependencies, so neither a type checker nor a machine without it knows the package.
    return import_module("flash_attn").flash_attn_varlen_func(
        given.query_THD,
        given.key_TKD,
        given.value_TKD,
        given.bounds,
        given.bounds,
        given.longest,
        given.longest,
        dropout_p=given.options.dropout,
        softmax_scale=given.options.scale,
        causal=given.options.causal,
        window_size=given.window,
        softcap=given.options.softcap or 0.0,
    )
