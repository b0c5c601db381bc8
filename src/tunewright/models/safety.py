"""What a base's folder must satisfy before anything in it is handed to transformers.

Files of a base come from strangers. So: weights are safetensors and their headers are read by a strict reader of our own;
pickle is never read; configurations are parsed here first and may not name code (`auto_map`, `trust_remote_code`, hub kernels) at
any depth; the model type must be one that transformers has itself. No torch here.

What this does not cover: that weights mean what their owner says (a poisoned base loads like any other), and regular expressions
in `tokenizer.json` that are slow on purpose.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tunewright.core.errors import BaseModelError, nearest

LARGEST_CONFIG = 4_000_000  # bytes
LARGEST_HEADER = 25_000_000
LARGEST_TOKENIZER_FILE = 200_000_000
MOST_TENSORS = 100_000
MOST_DEPTH = 32
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".mdl", ".joblib", ".npy")
# Every JSON that transformers reads from a folder when it loads a network and its tokenizer.
CONFIGURATIONS = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
# Any one of these groups makes a tokenizer.
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
)
DTYPE_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
_CODE_KEY = re.compile(r"^(auto_map|trust_remote_code|_\w*_internal|custom_\w*(code|pipeline)\w*|use_kernels?|kernel_config)$")
# transformers would read its weights from the file named here instead of the one that was checked.
_ELSEWHERE = "transformers_weights"
_IMPLEMENTATION_KEY = re.compile(r"^_?(attn|experts|mamba|conv)_implementation$")
_CONVERT = "Convert it once where you trust it, for example with transformers' `save_pretrained`, which writes safetensors."


@dataclass(frozen=True)
class TensorFacts:
    """One tensor as a header describes it."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked safetensors header: tensors by name, free-text metadata, and the bytes of data that follow it."""

    tensors: dict[str, TensorFacts]
    metadata: dict[str, str]
    data_bytes: int


def check_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Header]]:
    """The configuration and the weight headers (by file name) of a base's folder, checked.

    Raises:
        BaseModelError: something is missing, damaged, or asks for code to be run.
    """
    config = check_configurations(folder)
    return config, check_weights(folder)


def check_configurations(folder: Path) -> dict[str, Any]:
    """`config.json`, after it and the other configurations of the folder were found to be plain data that names no code."""
    if not folder.is_dir():
        raise BaseModelError("there is no such folder", where=str(folder), hint="Check the path.")
    path = folder / "config.json"
    if not path.is_file():
        raise BaseModelError(
            "holds no config.json, so it is not a base", where=str(folder), hint="A base is a folder in the Hugging Face layout."
        )
    for name in CONFIGURATIONS:
        if (folder / name).is_file():
            forbid_code(read_strict(folder / name), str(folder / name))
    config = read_strict(path)
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise BaseModelError("names no model_type", where=str(path), hint="Use the config.json that belongs to the weights.")
    if config.get(_ELSEWHERE) is not None:
        raise BaseModelError(f"names its weights elsewhere ('{_ELSEWHERE}')", where=str(path), hint=f"Name the file {WEIGHTS}.")
    if "quantization_config" in config or "compression_config" in config:
        raise BaseModelError(
            "describes quantised weights, which cannot be trained",
            where=str(path),
            hint="Use the unquantised release of this base.",
        )
    for key in ("vision_config", "audio_config"):
        if key in config:
            raise BaseModelError(f"describes more than text ({key})", where=str(path), hint="Use a text-only base.")
    return config


def check_native(config: Mapping[str, Any], where: str) -> None:
    """Refuse a model type that transformers does not have itself; this is the one check that imports transformers (not torch)."""
    from transformers import CONFIG_MAPPING

    family = config["model_type"]
    if family not in CONFIG_MAPPING:
        guess = nearest(family, CONFIG_MAPPING.keys())  # there are hundreds, so only the nearest is shown
        hint = "Code from a base's folder is never run."
        hint = f"Did you mean '{guess}'? {hint}" if guess else hint
        raise BaseModelError(f"transformers has no model type '{family}'", where=where, given=family, hint=hint)


def read_strict(path: Path) -> Any:
    """Plain data from a JSON file of modest size: no duplicate keys, no NaN, no bottomless nesting."""
    size = path.stat().st_size
    limit = LARGEST_CONFIG if path.name in CONFIGURATIONS else LARGEST_HEADER
    if size > limit:
        raise BaseModelError(
            f"is {size} bytes, more than such a file can need ({limit})", where=str(path), hint="Is it the right file?"
        )
    return _parse(path.read_bytes(), str(path))


def _parse(content: bytes, where: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
            raise ValueError(f"the key '{twice[:80]}' stands twice")
        return found

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        # Infinity occurs in a few published configurations (time_step_limit); it is no harm in data that we only inspect.
        return json.loads(
            content.decode("utf-8"),
            object_pairs_hook=once,
            parse_constant=lambda text: refuse(text) if text == "NaN" else float(text),
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BaseModelError(
            f"is not readable as JSON ({reason})", where=where, hint="The file is damaged; get it again."
        ) from None


def forbid_code(value: Any, where: str, path: str = "", depth: int = 0) -> None:
    """Raise when a key at any depth asks for code from outside: remote classes, hub kernels, internals of transformers."""
    if depth > MOST_DEPTH:
        raise BaseModelError("is nested too deeply", where=where)
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = ((str(index), item) for index, item in enumerate(value))
    for key, item in inner:
        place = f"{path}.{key}" if path else key
        kernel = _IMPLEMENTATION_KEY.match(key) and "/" in json.dumps(item)
        if kernel or (isinstance(value, dict) and _CODE_KEY.match(key)):
            raise BaseModelError(
                f"asks for code to be loaded ('{place}'), and code from a base's folder is never run",
                where=where,
                hint="If transformers has this family itself, delete that key in a copy of the folder; else choose another base.",
            )
        forbid_code(item, where, place, depth + 1)


def check_weights(folder: Path) -> dict[str, Header]:
    """The headers of the folder's safetensors files by file name, one or several shards, each checked strictly."""
    if (folder / WEIGHTS).is_file():
        return {WEIGHTS: read_header(folder / WEIGHTS)}
    if (folder / INDEX).is_file():
        return _check_shards(folder)
    pickles = sorted(item.name for item in folder.iterdir() if item.suffix in PICKLES)
    if pickles:
        raise BaseModelError(
            f"has its weights only as pickle ({', '.join(pickles[:3])}), which can run code when it is read",
            where=str(folder),
            hint=_CONVERT,
        )
    raise BaseModelError(f"holds no weights ({WEIGHTS})", where=str(folder), hint="Is the download complete?")


def _check_shards(folder: Path) -> dict[str, Header]:
    where = str(folder / INDEX)
    index = read_strict(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(item, str) for item in places.values()):
        raise BaseModelError("has no weight_map of tensor names to files", where=where)
    headers: dict[str, Header] = {}
    for name in sorted(set(places.values())):
        # A shard is a neighbour: no path may lead out of the folder.
        if not re.fullmatch(r"[\w.-]+\.safetensors", name) or ".." in name:
            raise BaseModelError(f"names a shard that is not a plain safetensors file ('{name[:80]}')", where=where)
        if not (folder / name).is_file():
            raise BaseModelError("is named by the index but missing", where=str(folder / name), hint="Is the download complete?")
        headers[name] = read_header(folder / name)
    owners: dict[str, str] = {}
    for file, header in headers.items():
        for tensor in header.tensors:
            if places.get(tensor) != file:
                raise BaseModelError(f"the tensor '{tensor}' lies in {file}, but the index says {places.get(tensor)}", where=where)
            owners[tensor] = file
    lost = sorted(set(places) - set(owners))
    if lost:
        raise BaseModelError(
            f"the tensor '{lost[0]}' ({len(lost)} in all) is in the index but in no file", where=where, hint="Get the shards again."
        )
    return headers


def read_header(path: Path) -> Header:
    """The header of a safetensors file, refused unless every byte of data belongs to exactly one well-formed tensor.

    Raises:
        BaseModelError: truncated, overlapping, out of bounds, an unknown dtype, a hostile name, or more tensors than any base has.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, LARGEST_HEADER):
            _damaged(path, f"its header claims {length} bytes in a file of {size}" if size >= 8 else f"it has {size} bytes")
        content = file.read(length)
    data = _parse(content, str(path))
    if not isinstance(data, dict):
        _damaged(path, "its header is not a mapping")
    metadata = data.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        _damaged(path, "its metadata is not text")
    if len(data) > MOST_TENSORS:
        _damaged(path, f"it claims {len(data)} tensors, more than {MOST_TENSORS}")
    tensors = {name: _tensor(path, name, item) for name, item in data.items()}
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if tensor.begin != position:
            _damaged(path, f"the data of '{name}' begins at {tensor.begin} and not at {position}: tensors overlap or leave a hole")
        position = tensor.end
    if position != size - 8 - length:
        _damaged(path, f"its tensors need {position} bytes and {size - 8 - length} are there: it is truncated or has a tail")
    return Header(tensors, metadata, position)


def _tensor(path: Path, name: str, item: Any) -> TensorFacts:
    if not name or len(name) > 1000 or ".." in name or name.startswith("/") or any(ord(letter) < 32 for letter in name):
        _damaged(path, f"a tensor has the name {name[:80]!r}")
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        _damaged(path, f"the entry of '{name}' is not dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if dtype not in DTYPE_BYTES if isinstance(dtype, str) else True:
        _damaged(path, f"'{name}' has the dtype {str(dtype)[:40]!r}, which is none of {', '.join(sorted(DTYPE_BYTES))}")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > 16:
        _damaged(path, f"'{name}' has a shape or offsets that are not sizes")
    # A zero size hides any other: [0, 10**12] needs no bytes but makes readers allocate rows.
    if 0 in shape and max(shape) > 2**31:
        _damaged(path, f"'{name}' has the impossible shape {shape}")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        _damaged(path, f"'{name}' of shape {shape} and dtype {dtype} cannot have {end - begin} bytes")
    return TensorFacts(dtype, tuple(shape), begin, end)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**53 for item in value)


def _damaged(path: Path, reason: str) -> NoReturn:
    raise BaseModelError(f"is not a sound safetensors file: {reason}", where=str(path), hint="Get the file again.")


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without a tokenizer, or with one whose files are larger than any tokenizer."""
    if not any(all((folder / name).is_file() for name in group) for group in TOKENIZERS):
        raise BaseModelError(
            "holds no tokenizer (tokenizer.json)", where=str(folder), hint="Copy the tokenizer's files of the same base into it."
        )
    for name in {name for group in TOKENIZERS for name in group}:
        path = folder / name
        if path.is_file() and path.stat().st_size > LARGEST_TOKENIZER_FILE:
            raise BaseModelError("is too large to be a tokenizer", where=str(path))
