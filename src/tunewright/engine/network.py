"""How an unmodified network is held: which attention runs, in which precision its frozen weights lie, which ids fill up rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from tunewright.engine.attention import FOREST
from tunewright.models import Model

LayoutName = Literal["forest", "padded", "sequence_to_sequence"]


def pad_of(model: Model) -> int:
    """The id that fills up shorter rows; it is masked out wherever it stands, so any id serves."""
    pad = model.tokenizer.pad_token_id
    return pad if isinstance(pad, int) else 0


def start_of(model: Model) -> int:
    """The id that an encoder-decoder's decoder begins with."""
    start = model.network.config.decoder_start_token_id
    return start if isinstance(start, int) else pad_of(model)


def use_layout(model: Model, layout: LayoutName) -> None:
    """Set the attention that a layout needs: forest attention, or the model's own for padded sequences."""
    # Families without SDPA (Gemma 2 caps its scores) say so by this flag of transformers; eager serves every family.
    own = "sdpa" if model.network._supports_sdpa else "eager"
    wanted = FOREST if layout == "forest" else own
    if model.network.config._attn_implementation != wanted:
        model.network.set_attn_implementation(wanted)


def hold_in_bfloat16(model: Model) -> None:
    """Keep the frozen linear weights in bfloat16, so that autocast need not convert them at every product.

    Embeddings, norms and the head tied to them stay float32: the residual stream is summed in float32.
    """
    tied = {
        id(parameter) for module in model.network.modules() if isinstance(module, nn.Embedding) for parameter in module.parameters()
    }
    for module in model.network.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters(recurse=False))  # a trained bias stays a master
        if isinstance(module, nn.Linear) and frozen and id(module.weight) not in tied:
            module.to(torch.bfloat16)
