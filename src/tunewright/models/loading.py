"""Loading a base: name -> folder -> checked files -> network and tokenizer, with nothing left to chance.

Every tensor of the network comes from the files: a missing, unexpected, misshapen or non-finite one is an error that names it,
never a random initialisation. Code from a base's folder is never run and pickle is never read (see `safety`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.collector import paused
from tunewright.core.errors import BaseModelError, DoesNotFitError, listed
from tunewright.core.units import bytes_text
from tunewright.models import Kind, Model
from tunewright.models.facts import BaseFacts, facts_of_folder
from tunewright.models.fingerprint import fingerprint
from tunewright.models.four_bits import FOUR_BITS, four_bit_options, held_beside
from tunewright.models.safety import check_configurations, check_native, check_tokenizer
from tunewright.models.sources import Resolved, folder_of, named_base, resolve

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Resolved", "load", "load_folder", "load_tokenizer", "quiet", "resolve"]

# What transformers raises for files that do not fit together; it has no root class of its own for them.
_LOADING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    ImportError,
    AssertionError,
)
DTYPES = ("float32", "bfloat16", "float16", "auto", *FOUR_BITS)
# Tensors that a file may hold although the network does not ask for them: buffers that old versions saved and what encoders were
# pre-trained with, always; language-model and task heads, where a bare body is loaded. Heads stand at the top of a network: the
# patterns must never excuse a block ("model.decoder.layers.7" is one).
_SPARE_ALWAYS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|rotary_emb\.inv_freq|masked_bias|attn\.bias|attention\.bias)$"
    r"|^(\w+\.)?pooler\.|^cls\.seq_relationship\.|^final_logits_bias$"
)
_SPARE_HEADS = re.compile(
    r"^(cls|lm_head|classifier|score|qa_outputs|embed_out|predictions|discriminator_predictions|generator_predictions"
    r"|generator_lm_head|vocab_transform|vocab_layer_norm|vocab_projector)\.|^decoder\.(weight|bias)$|^head\.(dense|norm)\."
)


def load(base: str | Path, *, head: bool | None = None, dtype: str = "float32") -> Model:
    """The base that a user names, in memory on the CPU, in evaluation mode.

    Args:
        base: `embedded`, `minilm`, a folder, a run folder, or a hub id (`owner/name@revision`).
        head: whether a language-model head is wanted. None: what the kind has by nature (decoders and encoder-decoders do,
            encoders do not). True on an encoder loads its masked-language-model head; False on a decoder leaves its head out.
        dtype: of the weights in memory: `float32` (what training wants), `bfloat16`, `float16`, or `auto` (as stored); `nf4` and
            `int4` put the base on the GPU with its linear layers in four bits (`models.four_bits`).

    Raises:
        BaseModelError: it cannot be found, is unsafe, damaged, incomplete, or of an unsupported kind.
        ConfigurationError: four bits are asked for, and there is no GPU for them.
        MissingExtraError: it needs a package that is not installed.
    """
    resolved = resolve(base)
    if resolved.adapter is not None:
        raise BaseModelError(
            f"is an adapter on the base '{named_base(resolved)}', not a whole network",
            where=str(base),
            hint="Load that base and put the adapter on it, or merge the two first: tunewright merge.",
        )
    return load_folder(folder_of(resolved), str(base), head=head, dtype=dtype)


@paused()  # transformers imports the family's classes only here
def load_folder(folder: Path, base: str = "", *, head: bool | None = None, dtype: str = "float32") -> Model:
    """`load` for a folder that is known to hold a whole network; `base` is what the model is then said to be."""
    if dtype not in DTYPES:
        raise BaseModelError(f"there is no dtype '{dtype}' to load a base in", where="dtype", allowed=DTYPES, given=dtype)
    config = check_configurations(folder)
    check_native(config, str(folder / "config.json"))
    if (folder / "adapter_config.json").is_file():
        # transformers would put that adapter on, or follow it to another base, without a word.
        raise BaseModelError(
            "holds a whole network and an adapter, so it is not clear which is meant", where=str(folder), hint="Move one of them."
        )
    facts = facts_of_folder(folder)
    tokenizer, notes = load_tokenizer(folder, facts.kind, facts.vocabulary)
    network = _network(folder, facts, head, dtype)
    return Model(network, tokenizer, facts.kind, facts.family, base or str(folder), folder, fingerprint(folder), notes)


def load_tokenizer(folder: Path, kind: Kind, vocabulary: int) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The tokenizer of a folder, with a pad token, and notes on what was chosen for it.

    Raises:
        BaseModelError: there is none, it cannot be read, it knows ids beyond the `vocabulary` rows of the embedding, or it has no
            end token where the base generates text.
    """
    check_tokenizer(folder)
    from transformers import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except Exception as error:
        # tokenizers raises the bare class for a malformed file, so that nothing narrower can be caught; the rest goes its way.
        if type(error) is not Exception and not isinstance(error, _LOADING_ERRORS):
            raise
        raise BaseModelError(
            f"its tokenizer cannot be read ({_first_line(error)})", where=str(folder), hint="Get the tokenizer's files again."
        ) from error
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocabulary > 0:
        raise BaseModelError(
            f"its tokenizer knows ids up to {largest}, and its embedding has {vocabulary} rows",
            where=str(folder),
            hint="Use the tokenizer that belongs to the weights.",
        )
    if tokenizer.eos_token_id is None and kind != "encoder":
        raise BaseModelError(
            "its tokenizer has no end token, so no answer could ever end",
            where=str(folder),
            hint='Name one in tokenizer_config.json: "eos_token": "</s>".',
        )
    note = choose_pad(tokenizer)
    return tokenizer, (note,) if note else ()


_RESERVED = re.compile(r"reserved|unused|extra_id|placeholder", re.IGNORECASE)
_PADS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|endofpad|>", "<PAD>", "<|vision_pad|>")


def choose_pad(tokenizer: PreTrainedTokenizerBase) -> str:
    """Give a tokenizer without a pad token one that is not its end token where that can be; the note says what was chosen.

    Training never learns or masks by the pad *id* (targets are weights by position), so even a shared one is harmless here; the
    note is for other tools that would mask by id and so unlearn how to stop.
    """
    eos = tokenizer.eos_token
    if tokenizer.pad_token_id is not None:
        if tokenizer.pad_token_id != tokenizer.eos_token_id:
            return ""
        return f"The base pads with its end token ('{eos}'); padding is known by position, so the end is still learned."
    vocabulary = tokenizer.get_vocab()
    specials = [token for token in (*tokenizer.all_special_tokens, *_added(tokenizer)) if token != eos]
    candidates = [
        *(token for token in _PADS if token in vocabulary and token != eos),
        *(token for token in specials if _RESERVED.search(token)),
        *(token for token in (tokenizer.unk_token, tokenizer.bos_token) if token and token != eos),
    ]
    if candidates:
        tokenizer.pad_token = candidates[0]
        return f"The tokenizer has no pad token; '{candidates[0]}' (id {tokenizer.pad_token_id}) serves."
    tokenizer.pad_token = eos or next(iter(vocabulary))
    return f"The tokenizer has no pad token and none to spare; '{tokenizer.pad_token}' serves, and padding is known by position."


def _added(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def _network(folder: Path, facts: BaseFacts, head: bool | None, dtype: str) -> PreTrainedModel:
    import torch

    wants_head = facts.kind != "encoder" if head is None else head
    kind = _class_for(folder, facts, wants_head)
    options: dict[str, Any] = (
        {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(kind.__init__).parameters else {}
    )
    if dtype in FOUR_BITS:
        options |= four_bit_options(dtype)
        dtype = held_beside(dtype)
    try:
        with quiet():
            network, info = kind.from_pretrained(
                str(folder),
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # so that they are in `info`, which refuses them by name
                output_loading_info=True,
                **options,
            )
    except _LOADING_ERRORS as error:
        if "can't allocate memory" in str(error):
            raise DoesNotFitError(f"its {bytes_text(facts.bytes)} do not fit the memory that is free", where=str(folder)) from error
        raise BaseModelError(
            f"transformers cannot load it ({_first_line(error)})", where=str(folder), hint="Check config.json against the weights."
        ) from error
    if wants_head and facts.kind == "encoder":
        _has_head(info, kind.base_model_prefix, str(folder))
    _complete(info, str(folder), wants_head)
    _finite(network, str(folder))
    return network.eval()


def _class_for(folder: Path, facts: BaseFacts, head: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto as auto

    tables = {
        "decoder": auto.MODEL_FOR_CAUSAL_LM_MAPPING,
        "encoder": auto.MODEL_FOR_MASKED_LM_MAPPING,
        "encoder_decoder": auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    }
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    except (StrictDataclassError, *_LOADING_ERRORS) as error:
        raise BaseModelError(
            f"its configuration is not valid ({_first_line(error)})",
            where=str(folder / "config.json"),
            hint="Use the config.json that belongs to the weights.",
        ) from error
    table = tables[facts.kind]
    if type(config) not in table or (not head and type(config) not in auto.MODEL_MAPPING):
        raise BaseModelError(
            f"the family '{facts.family}' has no {facts.kind.replace('_', '-')} for text",
            where=str(folder / "config.json"),
            hint="Choose a decoder, an encoder or an encoder-decoder of text.",
        )
    return (table if head else auto.MODEL_MAPPING)[type(config)]


def _has_head(info: Mapping[str, Any], body: str, where: str) -> None:
    """Refuse an encoder that is whole but for its head: a head drawn at random would fill in nothing."""
    missing = sorted(info["missing_keys"])
    if missing and not any(name.startswith(f"{body}.") for name in missing):
        raise BaseModelError(
            f"has no head for hidden words: its files hold the body alone, and {len(missing)} tensors would be drawn at random "
            f"({listed(missing, 3)})",
            where=where,
            hint="Take a base that kept the head it was pre-trained with (BERT, RoBERTa, ModernBERT); sentence encoders have none.",
        )


def _complete(info: Mapping[str, Any], where: str, head: bool) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise BaseModelError(
            f"lacks {len(missing)} tensors of the network: {listed(missing, 4)}",
            where=where,
            hint="Get the weights again, or the config.json that belongs to them.",
        )
    wrong = sorted((name, tuple(held), tuple(wanted)) for name, held, wanted in info["mismatched_keys"])
    if wrong:
        name, held, wanted = wrong[0]
        raise BaseModelError(
            f"has {len(wrong)} tensors of the wrong shape: '{name}' is {held}, config.json asks for {wanted}",
            where=where,
            hint="Use the config.json that belongs to the weights.",
        )
    spare = [
        name
        for name in sorted(info["unexpected_keys"])
        if not _SPARE_ALWAYS.search(name) and (head or not _SPARE_HEADS.search(name))
    ]
    if spare:
        raise BaseModelError(
            f"holds {len(spare)} tensors that the network does not have: {listed(spare, 4)}",
            where=where,
            hint="Use the config.json that belongs to the weights.",
        )


def _finite(network: torch.nn.Module, where: str) -> None:
    import torch

    for name, parameter in network.named_parameters():
        # One sum finds any NaN or infinity in a single pass and allocates nothing; in fp32, where fp16 would overflow.
        if not bool(parameter.detach().sum(dtype=torch.float32).isfinite()):
            raise BaseModelError(
                f"its tensor '{name}' holds numbers that are not finite", where=where, hint="Get the weights again."
            )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


@contextmanager
def quiet() -> Iterator[None]:
    """Within it transformers reports nothing and shows no bars: what it would say is checked here and said in our words."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
