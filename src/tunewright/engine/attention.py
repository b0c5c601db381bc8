"""Forest attention: each segment attends to its ancestors and to itself, and to nothing else.

It enters unmodified transformers models through `AttentionInterface` under the name `FOREST`; the layout travels as the keyword
`forest` of the model's forward call. One scaled-dot-product call a segment is the right kernel on CPUs, where a dense T x T
block mask costs 4 to 18 times more. `dense_mask` is the reference that tests compare against.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tunewright.core.errors import WorkError
from tunewright.engine.batch import Layout

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
    causal = bool(module.is_causal)
    grouped = query_1HTD.shape[1] != key_1HTD.shape[1]
    # split, not slices: the backward pass of split is one concatenation, that of slices one full-size buffer a segment.
    queries, keys, values = (tensor.split(forest.lengths, dim=2) for tensor in (query_1HTD, key_1HTD, value_1HTD))
    outputs = []
    for index, query in enumerate(queries):
        path = (*forest.paths[index], index)
        key = keys[index] if len(path) == 1 else torch.cat([keys[step] for step in path], dim=2)
        value = values[index] if len(path) == 1 else torch.cat([values[step] for step in path], dim=2)
        mask = _segment_mask(query.shape[2], key.shape[2], causal, sliding_window, query.device)
        if softcap is not None:
            if mask is None and causal:
                mask = torch.ones((query.shape[2], key.shape[2]), dtype=torch.bool, device=query.device).tril(
                    key.shape[2] - query.shape[2]
                )
            weights = nn.functional.dropout(_soft_capped(query, key, mask, scaling, softcap), dropout)
            outputs.append(weights @ _for_every_head(value, query))
            continue
        outputs.append(
            scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal and mask is None and query.shape[2] > 1,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _segment_mask(length: int, context: int, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """The boolean mask [length, context] of one segment, or None where plain (causal) attention is the same."""
    windowed = window is not None and context > window
    if not causal:
        if not windowed or window is None:
            return None
        place = torch.arange(context, device=device)
        return (place[context - length :, None] - place[None, :]).abs() < window  # ModernBERT passes half its window + 1
    if length == context and not windowed:
        return None  # SDPA's own causal mask
    if length == 1 and not windowed:
        return None  # the last token sees everything
    here = torch.arange(context - length, context, device=device)[:, None]
    there = torch.arange(context, device=device)[None, :]
    seen = there <= here
    if windowed and window is not None:
        seen &= there > here - window
    return seen


def _soft_capped(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None, softcap: float) -> Tensor:
    """The weights of attention with capped scores, `softcap * tanh(scores / softcap)` (Gemma 2), which SDPA does not offer."""
    scores = query @ _for_every_head(key, query).transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)


def _for_every_head(shared: Tensor, query: Tensor) -> Tensor:
    """Keys or values repeated for the query heads that share them."""
    return shared.repeat_interleave(query.shape[1] // shared.shape[1], dim=1)


def dense_mask(layout: Layout, causal: bool = True) -> Tensor:
    """The reference: a boolean [T, T] mask, True where the row's token may look at the column's.

    Quadratic in the tokens of the whole row, so for tests and explanations only.
    """
    total = sum(layout.lengths)
    starts = [sum(layout.lengths[:index]) for index in range(len(layout.lengths))]
    mask = torch.zeros((total, total), dtype=torch.bool)
    for index, length in enumerate(layout.lengths):
        rows = slice(starts[index], starts[index] + length)
        for ancestor in layout.paths[index]:
            mask[rows, starts[ancestor] : starts[ancestor] + layout.lengths[ancestor]] = True
        own = torch.ones((length, length), dtype=torch.bool)
        mask[rows, rows] = own.tril() if causal else own
    return mask


AttentionInterface.register(FOREST, forest_attention)
