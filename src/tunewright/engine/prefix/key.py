"""What a stored state depends on: the network below the cut, how products are computed, and the tokens on a segment's path."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from tunewright.core.surroundings import versions
from tunewright.engine.batch import Batch
from tunewright.engine.prefix.cut import Prefix
from tunewright.models import Model

Key = dict[str, Any]
_NO_MATTER = ("training", "gradient_checkpointing")


def key_of(model: Model, prefix: Prefix, position_offset: int, computed_in: str, state: Tensor) -> Key:
    """Everything that two states must share to be interchangeable; plain JSON.

    The weights below the cut are read (about 7 GB/s), so that merged, rounded, quantised or otherwise changed ones never
    meet a file of the base that they came from.

    Args:
        position_offset: what the engine adds to positions.
        computed_in: what products run in ("float32", or autocast's dtype).
        state: one state, for its dtype, width and device.
    """
    content = zlib.crc32("\n".join(f"{place} {_settings(module)}" for place, module in prefix.modules()).encode())
    for name, tensor in prefix.tensors():
        facts = f"{name} {tensor.dtype} {tuple(tensor.shape)}"
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        content = zlib.crc32(raw, zlib.crc32(facts.encode(), content))
    return {
        "base": model.fingerprint,
        "content": content,
        "cut": prefix.cut,
        "position_offset": position_offset,
        "computed_in": computed_in,
        "dtype": str(state.dtype).removeprefix("torch."),
        "width": state.shape[-1],
        "device": state.device.type,
        "versions": {name: version for name, version in versions().items() if name in ("torch", "transformers")},
    }


def _settings(module: nn.Module) -> dict[str, object]:
    """The numbers, words and switches that a module keeps: scales, epsilons, widths."""
    plain = {name: value for name, value in vars(module).items() if isinstance(value, int | float | str)}
    return {name: value for name, value in plain.items() if not name.startswith("_") and name not in _NO_MATTER}


def name_of(key: Key) -> str:
    """A folder name for a key, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def path_digests(batch: Batch) -> list[bytes]:
    """For each segment of a forest batch, 16 bytes that stand for its own tokens and those of its ancestors, in order.

    A segment's position follows from the path; what else the state depends on stands in the key. One that only fills the row up has
    none: which it is depends on the rows that happened to meet, and nobody reads it.
    """
    assert batch.layout is not None
    counted = len(batch.layout.lengths) - batch.layout.filled
    tokens_T = batch.tokens_BT[0].cpu().contiguous().numpy().data
    digests: list[bytes] = []
    start = 0
    for length, path in zip(batch.layout.lengths[:counted], batch.layout.paths[:counted], strict=True):
        parent = digests[path[-1]] if path else b""
        digests.append(hashlib.blake2b(tokens_T[start : start + length], digest_size=16, key=parent).digest())
        start += length
    return digests
