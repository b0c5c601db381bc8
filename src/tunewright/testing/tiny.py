"""Tiny, randomly initialised models of real families, with a byte-level tokenizer: real code paths in milliseconds, no download.

Weights are large enough that a wrong mask, position or bias shows in the logits; norms and biases are not left at one and zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import UnknownNameError
from tunewright.models import Kind, Model
from tunewright.models.fingerprint import fingerprint_of
from tunewright.models.loading import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

DECODERS = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "mixtral",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "phi",
    "phi3",
    "olmo2",
    "gpt_neox",
    "opt",
)
ENCODERS = ("bert", "roberta", "modernbert", "electra", "distilbert")
ENCODER_DECODERS = ("t5", "bart")
FAMILIES = (*DECODERS, *ENCODERS, *ENCODER_DECODERS)

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
VOCABULARY = 300  # 5 specials, 256 bytes, and rows that no token uses, as in real bases
WIDTH, BLOCKS, HEADS, CONTEXT = 32, 2, 4, 512

_PLAIN: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "mistral": {**_GROUPED, "sliding_window": None},
    "mixtral": {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "gemma": {**_GROUPED, "head_dim": 8},
    "gemma2": {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "gemma3_text": {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64},
    "gpt2": {
        **{"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": CONTEXT},
        **{"initializer_range": 0.2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    },
    "phi": {**_PLAIN, "partial_rotary_factor": 0.5},
    "phi3": _GROUPED,
    "olmo2": _GROUPED,
    "gpt_neox": _PLAIN,
    "opt": {
        **{key: value for key, value in _PLAIN.items() if key not in ("initializer_range", "intermediate_size")},
        **{"ffn_dim": 2 * WIDTH, "init_std": 0.2, "word_embed_proj_dim": WIDTH, "dropout": 0.0},
    },
    "bert": {**_PLAIN, **_NO_DROPOUT},
    "roberta": {**_PLAIN, **_NO_DROPOUT, "max_position_embeddings": CONTEXT + 1},
    "modernbert": {**_PLAIN, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 64, "global_attn_every_n_layers": 2},
    "electra": {**_PLAIN, **_NO_DROPOUT, "embedding_size": WIDTH // 2},
    "distilbert": {
        **{"vocab_size": VOCABULARY, "dim": WIDTH, "hidden_dim": 2 * WIDTH, "n_layers": BLOCKS, "n_heads": HEADS},
        **{"max_position_embeddings": CONTEXT, "initializer_range": 0.2, "dropout": 0.0, "attention_dropout": 0.0},
    },
    "t5": {
        **{"vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 8, "d_ff": 2 * WIDTH, "num_layers": BLOCKS, "num_heads": HEADS},
        **{"dropout_rate": 0.0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0},
    },
    "bart": {
        **{
            "vocab_size": VOCABULARY,
            "d_model": WIDTH,
            "encoder_layers": BLOCKS,
            "decoder_layers": BLOCKS,
            "max_position_embeddings": CONTEXT,
        },
        **{
            "encoder_attention_heads": HEADS,
            "decoder_attention_heads": HEADS,
            "encoder_ffn_dim": 2 * WIDTH,
            "decoder_ffn_dim": 2 * WIDTH,
        },
        **{"init_std": 0.2, "dropout": 0.0, "forced_eos_token_id": None, "decoder_start_token_id": 2},
    },
}


def kind_of_family(family: str) -> Kind:
    """The kind of a tiny family. Raises `UnknownNameError` for a family that there is no tiny model of."""
    if family not in FAMILIES:
        raise UnknownNameError(f"there is no tiny model of the family '{family}'", allowed=FAMILIES, given=family)
    return "decoder" if family in DECODERS else "encoder" if family in ENCODERS else "encoder_decoder"


def tiny(family: str, seed: int = 0, *, own_head: bool = False) -> Model:
    """A tiny model of a family (width 32, 2 blocks, 300 tokens); equal seeds give equal weights, and no global state is touched.

    Args:
        own_head: an encoder has its head for hidden words.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = kind_of_family(family)
    config = AutoConfig.for_model(family, pad_token_id=0, bos_token_id=1, eos_token_id=2, **_SETTINGS[family])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "encoder":
            network = _encoder(config, own_head)
        else:
            network = (AutoModelForCausalLM if kind == "decoder" else AutoModelForSeq2SeqLM).from_config(
                config, dtype=torch.float32
            )
        _roughen(network)
    tokenizer = byte_tokenizer(kind)
    return Model(network.eval(), tokenizer, kind, family, f"tiny:{family}", None, fingerprint_of(network, tokenizer))


def save_tiny(family: str, folder: Path, seed: int = 0, *, own_head: bool = False) -> Path:
    """Write `tiny(family, seed)` as a folder that loads like any base; the folder is returned."""
    model = tiny(family, seed, own_head=own_head)
    with quiet():
        model.network.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer(kind: Kind = "decoder") -> PreTrainedTokenizerFast:
    """A tokenizer of one token a byte: ids 0-4 are `<pad> <s> </s> <unk> <mask>`, then the 256 bytes.

    Encoders wrap a text in `<s> ... </s>`, encoder-decoders end it with `</s>`, decoders add nothing.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(
        models.BPE(vocab={token: index for index, token in enumerate((*SPECIALS, *letters))}, merges=[], unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    shape = {"decoder": "", "encoder": "<s> $A </s>", "encoder_decoder": "$A </s>"}[kind]
    if shape:
        inner.post_processor = processors.TemplateProcessing(single=shape, special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=CONTEXT,
    )


def _encoder(config: PreTrainedConfig, own_head: bool) -> Any:
    import inspect

    from transformers import AutoModel, AutoModelForMaskedLM
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    if own_head:
        return AutoModelForMaskedLM.from_config(config)
    takes_pooler = "add_pooling_layer" in inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if takes_pooler else {}))


def _roughen(network: torch.nn.Module) -> None:
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:  # norms and biases
                parameter.add_(torch.randn_like(parameter) * 0.1)
