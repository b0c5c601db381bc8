"""A base whose linear layers are kept in four bits on a GPU: what `from_pretrained` is told, and where that is refused.

    nf4    16 levels that suit normally distributed weights, in blocks of 64 with doubly quantised scales (bitsandbytes); products
           run in bfloat16. Source: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314.
    int4   16 even levels in groups of 128, by torchao's kernels; whatever is not quantised is held in bfloat16.

Cost: about an eighth of the memory that float32 takes for those layers; products are slower than in bfloat16 on long batches.
"""

from __future__ import annotations

from typing import Any

from tunewright.core.errors import ConfigurationError, MissingExtraError

FOUR_BITS = ("nf4", "int4")
WHERE = "training.base_precision"
_PACKAGES = {"nf4": "bitsandbytes", "int4": "torchao"}


def four_bit_options(kind: str) -> dict[str, Any]:
    """What `from_pretrained` is told for a base in four bits.

    Args:
        kind: one of `FOUR_BITS`.

    Raises:
        ConfigurationError: there is no GPU that CUDA runs on.
        MissingExtraError: the package that does it is not installed.
    """
    import torch
    from transformers.utils.import_utils import is_bitsandbytes_available, is_torchao_available

    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"a base in four bits (`{kind}`) needs a GPU with CUDA, and there is none here",
            where=WHERE,
            allowed=["auto", "int8"],
            hint="Leave it out, or use `int8` on a processor that multiplies bytes.",
        )
    package = _PACKAGES[kind]
    if not (is_bitsandbytes_available if kind == "nf4" else is_torchao_available)():
        raise MissingExtraError(f"`{kind}` needs the package {package}", where=WHERE, hint=f"Install it: pip install {package}")
    return {"quantization_config": _settings(kind), "device_map": {"": torch.cuda.current_device()}}


def _settings(kind: str) -> Any:
    import torch

    if kind == "nf4":
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    from torchao.quantization import Int4WeightOnlyConfig  # pyright: ignore[reportMissingImports]
    from transformers import TorchAoConfig

    return TorchAoConfig(quant_type=Int4WeightOnlyConfig(group_size=128))


def held_beside(kind: str) -> str:
    """The dtype of what is not quantised."""
    return "float32" if kind == "nf4" else "bfloat16"
