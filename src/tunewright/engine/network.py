"""How an unmodified network is held: which attention runs, in which precision its frozen weights lie, which ids fill up rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from tunewright.engine.attention import FOREST
from tunewright.engine.attention.own import OWN
from tunewright.models import Model
from tunewright.models.attached import Attached

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
    own = OWN[own] if model.lanes.keyed else own  # the same, with the keys and values of virtual tokens
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
        if isinstance(module, nn.Linear) and not _learns(module) and id(module.weight) not in tied:
            module.to(torch.bfloat16)


def _learns(module: nn.Module) -> bool:
    """Whether anything below is a master: a trained bias, or what PEFT holds in layers that call themselves linear.

    What methods of ours attach takes care of its own precision.
    """
    own = (inner for inner in module.modules() if not isinstance(inner, Attached))
    return any(parameter.requires_grad for inner in own for parameter in inner.parameters(recurse=False))
