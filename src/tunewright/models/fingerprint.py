"""What makes two bases the same: one hash over weights, essential configuration, tokenizer and chat template.

A tuning is made for one base and means nothing on another of the same shape; so runs and adapters keep this hash.
Cost: reading the weights once, at about 1 GB/s a core; files are remembered by size and time within the process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.storage import sha256_of
from tunewright.models.safety import INDEX, WEIGHTS, read_strict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Keys of a configuration that say who wrote it and how, not what the network computes.
_INCIDENTAL = frozenset(
    ("transformers_version", "_name_or_path", "name_or_path", "dtype", "torch_dtype", "use_cache", "architectures")
)
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("chat_template.jinja", "chat_template.json"),
)


def fingerprint(folder: Path) -> str:
    """The fingerprint of the base in `folder`, 64 hexadecimal digits; equal files, equal fingerprint, wherever they lie."""
    weights = [folder / WEIGHTS]
    if not weights[0].is_file():
        weights = [folder / name for name in sorted(set(read_strict(folder / INDEX)["weight_map"].values()))]
    others = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    paths = [*weights, *others]
    with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter's lock
        hashes = list(pool.map(_file_hash, paths))
    named = {path.name: value for path, value in zip(paths, hashes, strict=True)}
    return _combined({"files": named, "config": _essentials(read_strict(folder / "config.json"))})


def fingerprint_of(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """The fingerprint of a network in memory; it never equals a folder's, whose files are hashed as they are."""
    import torch

    tensors = {}
    for name, tensor in sorted(network.state_dict().items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        tensors[name] = [str(tensor.dtype), list(tensor.shape), hashlib.sha256(content).hexdigest()]
    words = [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map, tokenizer.chat_template]
    return _combined({"tensors": tensors, "tokenizer": words, "config": _essentials(network.config.to_dict())})


def _file_hash(path: Path) -> str:
    facts = path.stat()
    return _remembered_hash(str(path.resolve()), facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4096)
def _remembered_hash(path: str, _size: int, _time: int) -> str:
    return sha256_of(Path(path))


def _essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _INCIDENTAL}


def _combined(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
