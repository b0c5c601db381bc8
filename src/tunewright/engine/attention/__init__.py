"""Forest attention: each segment attends to its ancestors and to itself, and to nothing else.

It enters unmodified transformers models through `AttentionInterface` under the name `FOREST`; the layout travels as the keyword
`forest` of the model's forward call. `choose` says which way computes it: products over blocks on CPUs, a compiled block
mask or kernels for packed sequences on GPUs. `dense_mask` is the reference that tests compare every way with.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AttentionInterface

from tunewright.core.errors import WorkError
from tunewright.engine.attention.blocks import blockwise
from tunewright.engine.attention.choice import Choice, choose
from tunewright.engine.attention.dense import dense_mask
from tunewright.engine.attention.flex import flex
from tunewright.engine.attention.options import Options, compute_dtype
from tunewright.engine.attention.own import keyed
from tunewright.engine.attention.varlen import packed
from tunewright.engine.layout import Layout

__all__ = ["FOREST", "Choice", "ForestUnsupportedError", "Options", "choose", "dense_mask", "forest_attention"]

FOREST = "tunewright_forest"

# Keywords that models pass along without changing what attention computes.
_HARMLESS = frozenset(
    (
        *("position_ids", "cache_position", "output_attentions", "output_router_logits"),
        *("use_cache", "past_key_values", "is_causal", "deterministic"),
    )
)


class ForestUnsupportedError(WorkError):
    """An architecture asks attention for something the forest does not compute; the padded layout takes over."""


def forest_attention(
    module: nn.Module,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    forest: Layout | None = None,
    **rest: object,
) -> tuple[Tensor, None]:
    """Attention of one forest row; the signature is the one transformers calls.

    Args:
        query_1HTD: [1, heads, tokens, head width]; keys and values may have fewer heads (grouped-query attention).
        forest: who sees whom.
        rest: what this family passes besides; anything unknown that is not None is refused rather than ignored.

    Returns:
        [1, tokens, heads, head width], and None in place of the attention weights.

    Raises:
        ForestUnsupportedError: no layout arrived, or the family uses something that is not computed here.
    """
    unknown = sorted(name for name, value in rest.items() if value is not None and name not in _HARMLESS)
    if forest is None or attention_mask is not None or unknown:
        raise ForestUnsupportedError(f"forest attention cannot serve this call (unknown: {unknown})")
    if forest.total != query_1HTD.shape[2] or forest.total != key_1HTD.shape[2]:
        asked = f"{query_1HTD.shape[2]} queries and {key_1HTD.shape[2]} keys"
        raise ForestUnsupportedError(f"forest attention cannot serve this call: {asked}, a layout of {forest.total} tokens")
    key_1HTD, value_1HTD = keyed(module, key_1HTD, value_1HTD)
    scale = query_1HTD.shape[3] ** -0.5 if scaling is None else scaling
    options = Options(bool(module.is_causal), scale, sliding_window, softcap, dropout)
    dtype = compute_dtype(value_1HTD)
    way = choose(query_1HTD.device.type, dtype, query_1HTD.shape[3], forest, options).way
    if way == "blocks":
        return blockwise(query_1HTD, key_1HTD, value_1HTD, forest, options), None
    attend = flex if way == "flex" else packed
    return attend(query_1HTD.to(dtype), key_1HTD.to(dtype), value_1HTD.to(dtype), forest, options), None


AttentionInterface.register(FOREST, forest_attention)
