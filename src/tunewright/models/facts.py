"""What a base's folder says about it, read from `config.json` and the safetensors headers alone: no torch, no transformers.

Used for estimates and for early refusals, before anything heavy loads. What the configuration leaves out (class defaults that
only transformers knows) is taken from the shapes of the tensors; what neither says is 0 or None.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunewright.core.errors import BaseModelError
from tunewright.models.safety import Header, TensorFacts, check_folder

Kind = Literal["decoder", "encoder", "encoder_decoder"]

# Families whose plain checkpoints ("BertModel") are encoders. A family that is not here is a decoder unless its architecture
# or `is_encoder_decoder` says otherwise; loading then still asks transformers whether the family has such a class.
# fmt: off
ENCODER_FAMILIES = frozenset((
    "albert", "bert", "big_bird", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "eurobert",
    "flaubert", "funnel", "longformer", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer",
    "rembert", "roberta", "roberta-prelayernorm", "roformer", "squeezebert", "xlm-roberta", "xlm-roberta-xl", "xmod",
))
# Families that number positions from pad_token_id + 1, so that many rows of the position table are never reached.
OFFSET_FAMILIES = frozenset((
    "camembert", "data2vec-text", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
))
# fmt: on

_NAMES: dict[str, tuple[str, ...]] = {
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_width": ("head_dim", "d_kv"),
    "mlp": ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "encoder_ffn_dim", "hidden_dim", "ffn_hidden_size"),
    "vocabulary": ("vocab_size",),
    "context": ("max_position_embeddings", "n_positions", "max_sequence_length"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_used": ("num_experts_per_tok", "num_experts_per_token"),
}
_INPUT_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|shared|token_embedding|embeddings\.word)\.weight$"
)
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
# What is looked up and not multiplied, and what stands behind the body.
_LOOKED_UP = re.compile(r"(^|\.)(embed_(tokens|positions|in)|wte|wpe|shared|\w+_embeddings?|relative_attention_bias)\.weight$")
_OUTSIDE = re.compile(r"(^|\.)(lm_head|embed_out|cls|pooler|discriminator_predictions|generator_\w+)\.")
_BLOCK = re.compile(r"^(?P<list>.*?\b(?:layers|layer|h|block|blocks))\.(?P<index>\d+)\.")
_EXPERT = re.compile(r"\.experts\.")


@dataclass(frozen=True)
class BaseFacts:
    """The numbers of a base that an estimate needs.

    `parameters` counts what the files hold (a tied head once); `body` is what one token is multiplied with between embedding and
    head, of a mixture only the experts that it is sent to; `blocks` counts encoder and decoder together; `heads`, `kv_heads`,
    `head_width` and `mlp_width` are 0 where unknown.
    """

    family: str
    kind: Kind
    parameters: int
    body: int
    bytes: int
    dtype: str
    width: int
    blocks: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    vocabulary: int
    context: int | None
    tied: bool


def facts(base: str | Path) -> BaseFacts:
    """The facts of a base as the user names it. For a run or an adapter, those of the base it stands on.

    Raises:
        BaseModelError: it cannot be found, or is unsafe or damaged. A hub id is fetched first when it is not in the cache.
    """
    from tunewright.models.sources import folder_of

    return facts_of_folder(folder_of(base))


def facts_of_folder(folder: Path) -> BaseFacts:
    """The facts of the base in `folder`, after the safety checks of `tunewright.models.safety`."""
    config, headers = check_folder(folder)
    _check_depth(config, headers, str(folder / "config.json"))
    # Integers are tables that old files kept (position_ids), not parameters.
    tensors = {
        name: tensor
        for header in headers.values()
        for name, tensor in header.tensors.items()
        if tensor.dtype.startswith(("F", "BF"))
    }
    return _facts(config, tensors, headers)


def _check_depth(config: Mapping[str, Any], headers: Mapping[str, Header], where: str) -> None:
    # Refused here, before transformers sees it: it would build a thousand random blocks first and only then say so.
    held = sum(blocks_in({name: None for header in headers.values() for name in header.tensors}).values())
    promised = _blocks_in_config(config)
    if held and promised > held:
        hint = "Use the config.json that belongs to the weights."
        raise BaseModelError(f"promises {promised} blocks, and the weights hold {held}", where=where, hint=hint)


def _facts(config: Mapping[str, Any], tensors: Mapping[str, TensorFacts], headers: Mapping[str, Header]) -> BaseFacts:
    embedding = next(
        (tensor.shape for name, tensor in tensors.items() if _INPUT_EMBEDDING.search(name) and len(tensor.shape) == 2), None
    )
    width = _number(config, "width") or (embedding[1] if embedding else 0)
    heads = _number(config, "heads") or 0
    parameters = sum(tensor.count for tensor in tensors.values())
    expert = sum(tensor.count for name, tensor in tensors.items() if _EXPERT.search(name))
    experts, used = _number(config, "experts") or 0, _number(config, "experts_used") or 0
    beside = sum(tensor.count for name, tensor in tensors.items() if _LOOKED_UP.search(name) or _OUTSIDE.search(name))
    idle = expert - expert * used // experts if experts and used else 0
    by_dtype: dict[str, int] = defaultdict(int)
    for tensor in tensors.values():
        by_dtype[tensor.dtype] += tensor.count
    return BaseFacts(
        family=str(config["model_type"]),
        kind=kind_of(config),
        parameters=parameters,
        body=parameters - beside - idle,
        bytes=sum(header.data_bytes for header in headers.values()),
        dtype=max(by_dtype, key=lambda name: by_dtype[name], default=""),
        width=width,
        blocks=_blocks_in_config(config) or sum(blocks_in(tensors).values()),
        heads=heads,
        kv_heads=_number(config, "kv_heads") or heads,
        head_width=_number(config, "head_width") or (width // heads if heads else 0),
        mlp_width=_number(config, "mlp") or (4 * width if config["model_type"] == "gpt2" else 0),
        vocabulary=embedding[0] if embedding else _number(config, "vocabulary") or 0,
        context=context_of(config),
        tied=not any(_HEAD.search(name) for name in tensors),
    )


def kind_of(config: Mapping[str, Any]) -> Kind:
    """What a configuration describes: the architecture's name decides, then the family."""
    architecture = str((config.get("architectures") or [""])[0])
    if config.get("is_encoder_decoder"):
        return "encoder_decoder"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "decoder"
    return "encoder" if architecture.endswith("ForMaskedLM") or config.get("model_type") in ENCODER_FAMILIES else "decoder"


def width_of(config: Mapping[str, Any]) -> int:
    """D, the size of a hidden state; 0 when the configuration does not say."""
    return _number(config, "width") or 0


def context_of(config: Mapping[str, Any]) -> int | None:
    """The most tokens there are positions for; None when the configuration knows no limit."""
    if config.get("model_type") == "t5":
        return None  # relative positions; `n_positions` in old files only says how it was trained
    most = _number(config, "context")
    if most is None or config.get("model_type") not in OFFSET_FAMILIES:
        return most
    return most - int(config.get("pad_token_id") or 0) - 1


def blocks_in(names: Mapping[str, Any]) -> dict[str, int]:
    """How many blocks the tensors' names hold, by list: `{"model.layers": 32}`; encoder-decoders have two lists."""
    found: dict[str, set[int]] = defaultdict(set)
    for name in names:
        if place := _BLOCK.match(name):
            found[place["list"]].add(int(place["index"]))
    most = max((len(indexes) for indexes in found.values()), default=0)
    # Lists of a handful beside a long one are extras (multi-token prediction heads), not blocks.
    return {name: len(indexes) for name, indexes in found.items() if len(indexes) * 4 > most}


def _blocks_in_config(config: Mapping[str, Any]) -> int:
    first = _number(config, "blocks") or 0
    if not config.get("is_encoder_decoder"):
        return first
    encoder = config.get("encoder_layers", first)
    decoder = config.get("decoder_layers", config.get("num_decoder_layers"))
    return int(encoder) + int(encoder if decoder is None else decoder)


def _number(config: Mapping[str, Any], what: str) -> int | None:
    for name in _NAMES[what]:
        value = config.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return int(value)
    return None
