"""What is measured on: bases of real shapes with random weights, and rows drawn from fixed seeds. Nothing is downloaded.

S8: SmolLM2-135M cut to 8 of 30 blocks and a vocabulary of 13,056, so that body and head keep their proportion (3.75 : 1).
M30: SmolLM2-135M whole. TINY: for trying the scripts out (`--quick`).
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHAPES = {
    "S8": {"width": 576, "mlp": 1536, "blocks": 8, "heads": 9, "shared": 3, "vocabulary": 13_056},
    "M30": {"width": 576, "mlp": 1536, "blocks": 30, "heads": 9, "shared": 3, "vocabulary": 49_152},
    "TINY": {"width": 64, "mlp": 160, "blocks": 4, "heads": 4, "shared": 2, "vocabulary": 1_024},
}
PAD, END = 0, 1
Row = tuple[list[int], int]  # token ids, and where the answer begins


def base(shape: str, folder: Path, seed: int = 0) -> Path:
    """A base of this shape in `folder`, weights and tokenizer, as the Hugging Face layout has it.

    The tokenizer knows one word an id ("w17"), split at blanks, so text and ids say exactly the same to every system.
    """
    facts = SHAPES[shape]
    torch.manual_seed(seed)
    network = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=facts["width"],
            intermediate_size=facts["mlp"],
            num_hidden_layers=facts["blocks"],
            num_attention_heads=facts["heads"],
            num_key_value_heads=facts["shared"],
            vocab_size=facts["vocabulary"],
            tie_word_embeddings=True,
            max_position_embeddings=4096,
            pad_token_id=PAD,
            eos_token_id=END,
            bos_token_id=None,
        )
    )
    network.save_pretrained(folder)
    words = {"<pad>": PAD, "<end>": END} | {f"w{number}": number for number in range(2, facts["vocabulary"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    return folder


def text(ids: list[int]) -> str:
    """The words of token ids."""
    return " ".join("<end>" if token == END else f"w{token}" for token in ids)


def tokens(draw: random.Random, shape: str, count: int) -> list[int]:
    """`count` random token ids that are no special ones."""
    return [draw.randrange(2, SHAPES[shape]["vocabulary"]) for _ in range(count)]


def _length(draw: random.Random, median: float, sigma: float, low: int, high: int) -> int:
    return int(min(high, max(low, draw.lognormvariate(math.log(median), sigma))))


def instruct(shape: str, count: int, seed: int = 1) -> list[Row]:
    """D1: lengths lognormal (median 90, sigma 0.6) in [16, 256]; the second half of each row is the answer."""
    draw = random.Random(seed)
    lengths = [_length(draw, 90, 0.6, 16, 256) for _ in range(count)]
    return [([*tokens(draw, shape, length - 1), END], length // 2) for length in lengths]


def classify(shape: str, count: int, seed: int = 2) -> list[Row]:
    """D2: lengths lognormal (median 110, sigma 0.5) in [32, 256]; the last two tokens are the answer."""
    draw = random.Random(seed)
    lengths = [_length(draw, 110, 0.5, 32, 256) for _ in range(count)]
    return [([*tokens(draw, shape, length - 1), END], length - 2) for length in lengths]


def pairs(shape: str, count: int, prompt: int = 128, low: int = 32, high: int = 64, seed: int = 3) -> list[tuple[list[int], ...]]:
    """D3: (prompt, chosen, rejected); answers uniform in [low, high] tokens, the end token included."""
    draw = random.Random(seed)
    return [
        (
            tokens(draw, shape, prompt),
            [*tokens(draw, shape, draw.randint(low, high) - 1), END],
            [*tokens(draw, shape, draw.randint(low, high) - 1), END],
        )
        for _ in range(count)
    ]


def groups(shape: str, count: int, group: int, prompt: int = 192, answer: int = 48, seed: int = 4) -> list[tuple[list[int], list]]:
    """D4: (prompt, `group` answers of `answer` tokens)."""
    draw = random.Random(seed)
    return [(tokens(draw, shape, prompt), [tokens(draw, shape, answer) for _ in range(group)]) for _ in range(count)]
