import json
import random
import struct
from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.safety import (
    check_configurations,
    check_folder,
    check_native,
    check_tokenizer,
    check_weights,
    read_header,
    read_strict,
)


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content) if length is None else length) + content + data)
    return path


def tensor(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_sound_file(tmp_path: Path):
    header = read_header(
        write(tmp_path / "x", {"__metadata__": {"format": "pt"}, "b": tensor([2], 4, 12), "a": tensor([], 0, 4)}, bytes(12))
    )
    assert header.tensors["b"].count == 2
    assert header.tensors["a"].count == 1
    assert header.data_bytes == 12


HOSTILE = {
    "unknown dtype": ({"a": tensor([1], 0, 4, "F31")}, 4, "dtype 'F31'"),
    "dtype of another type": ({"a": tensor([1], 0, 4, ["F32"])}, 4, "dtype"),  # type: ignore[arg-type]
    "overlap": ({"a": tensor([2], 0, 8), "b": tensor([1], 4, 8)}, 8, "overlap or leave a hole"),
    "hole": ({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, 12, "overlap or leave a hole"),
    "out of bounds": ({"a": tensor([4], 0, 16)}, 8, "truncated or has a tail"),
    "tail": ({"a": tensor([1], 0, 4)}, 8, "truncated or has a tail"),
    "end before begin": ({"a": tensor([1], 4, 0)}, 4, "cannot have -4 bytes"),
    "wrong size": ({"a": tensor([3], 0, 4)}, 4, "cannot have 4 bytes"),
    "overflow": ({"a": tensor([2**62, 4], 0, 0)}, 0, "not sizes"),
    "negative": ({"a": tensor([-1], 0, 4)}, 4, "not sizes"),
    "true is not one": ({"a": tensor([True], 0, 4)}, 4, "not sizes"),
    "zero rows of a trillion": ({"a": tensor([0, 10**12], 0, 0)}, 0, "impossible shape"),
    "a way out": ({"../../x": tensor([1], 0, 4)}, 4, "has the name"),
    "NUL": ({"a\0b": tensor([1], 0, 4)}, 4, "has the name"),
    "empty name": ({"": tensor([1], 0, 4)}, 4, "has the name"),
    "extra key": ({"a": {**tensor([1], 0, 4), "code": "x"}}, 4, "dtype, shape and data_offsets"),
    "metadata": ({"__metadata__": {"a": 1}, "a": tensor([1], 0, 4)}, 4, "metadata is not text"),
    "a list": ([1, 2], 0, "not a mapping"),
    "twice": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        4,
        "stands twice",
    ),
    "deep": (b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 0, "nested too deeply"),
    "not UTF-8": (b'{"\xff":1}', 0, "not readable as JSON"),
    "NaN": (b'{"a":NaN}', 0, "NaN is not JSON"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers(tmp_path: Path, case: str):
    header, size, message = HOSTILE[case]
    with pytest.raises(BaseModelError, match=message):
        read_header(write(tmp_path / "model.safetensors", header, bytes(size)))


@pytest.mark.parametrize("length", [2**63, 10**9, 100, 1, 0])
def test_header_lengths(tmp_path: Path, length: int):
    with pytest.raises(BaseModelError, match="header claims"):
        read_header(write(tmp_path / "x", {"a": tensor([1], 0, 4)}, b"", length))


def test_an_empty_file(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(BaseModelError, match="has 0 bytes"):
        read_header(tmp_path / "x")


def test_too_many_tensors(tmp_path: Path):
    with pytest.raises(BaseModelError, match="claims 100001 tensors"):
        read_header(write(tmp_path / "x", {f"a{index}": tensor([0], 0, 0) for index in range(100_001)}))


def test_mutated_headers_are_read_or_refused_and_nothing_else(llama: Path):
    content = (llama / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    draw, refused = random.Random(0), 0
    for _ in range(400):
        spoilt = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            spoilt[draw.randrange(length)] = draw.randrange(256)
        (llama / "x").write_bytes(spoilt)
        try:
            read_header(llama / "x")
        except BaseModelError:
            refused += 1
    assert refused > 300  # a changed letter within a name is still a sound file


def test_truncated_weights(llama: Path):
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BaseModelError, match="truncated"):
        check_folder(llama)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".ckpt", ".pkl", ".pth"])
def test_pickle_only(llama: Path, suffix: str):
    (llama / "model.safetensors").rename(llama / f"pytorch_model{suffix}")
    with pytest.raises(BaseModelError, match=r"only as pickle .* can run code.*safetensors"):
        check_weights(llama)


def test_no_weights(llama: Path):
    (llama / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="holds no weights"):
        check_weights(llama)


CODE = [
    {"auto_map": {"AutoModel": "evil.Model"}},
    {"trust_remote_code": True},
    {"text_config": {"deep": [{"trust_remote_code": True}]}},
    {"_attn_implementation_internal": "owner/kernel"},
    {"_experts_implementation_internal": "owner/kernel"},
    {"attn_implementation": "owner/kernel"},
    {"_attn_implementation": {"text": "owner/kernel"}},
    {"custom_code": "x"},
    {"custom_pipelines": {"a": {"impl": "evil.Pipeline"}}},
    {"custom_generate_code": "x"},
    {"use_kernels": True},
]


@pytest.mark.parametrize("keys", CODE, ids=lambda keys: next(iter(keys)))
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_from_a_folder(llama: Path, edit, keys: dict, file: str):
    edit(llama / file, **keys)
    with pytest.raises(BaseModelError, match="asks for code to be loaded"):
        check_configurations(llama)


def test_plain_implementations_are_fine(llama: Path, edit):
    edit(llama / "config.json", _attn_implementation_autoset=True, attn_implementation="sdpa")
    assert check_configurations(llama)["model_type"] == "llama"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"vision_config": {}}, "more than text"),
        ({"transformers_weights": "other.safetensors"}, "names its weights elsewhere"),
        ({"model_type": None}, "names no model_type"),
    ],
)
def test_bases_that_we_do_not_train(llama: Path, edit, keys: dict, message: str):
    edit(llama / "config.json", **keys)
    with pytest.raises(BaseModelError, match=message):
        check_configurations(llama)


@pytest.mark.parametrize("text", ["garbage", "[1]", '{"model_type": "llama", "model_type": "gpt2"}', '{"a": NaN}', ""])
def test_a_damaged_configuration(llama: Path, text: str):
    (llama / "config.json").write_text(text)
    with pytest.raises(BaseModelError, match=r"config\.json"):
        check_configurations(llama)


def test_a_configuration_of_five_megabytes(llama: Path):
    (llama / "config.json").write_text(json.dumps({"model_type": "llama", "x": "y" * 5_000_000}))
    with pytest.raises(BaseModelError, match="more than such a file can need"):
        check_configurations(llama)


def test_nested_beyond_reason(llama: Path):
    (llama / "config.json").write_text('{"model_type": "llama", "x": ' + "[" * 60 + "]" * 60 + "}")
    with pytest.raises(BaseModelError, match="nested too deeply"):
        check_configurations(llama)


def test_no_folder_and_no_configuration(tmp_path: Path):
    with pytest.raises(BaseModelError, match="no such folder"):
        check_configurations(tmp_path / "x")
    with pytest.raises(BaseModelError, match=r"holds no config\.json"):
        check_configurations(tmp_path)


def test_infinity_is_data(llama: Path):
    (llama / "x.json").write_text('{"time_step_limit": [0.0, Infinity]}')
    assert read_strict(llama / "x.json")["time_step_limit"][1] == float("inf")


def test_native_families():
    check_native({"model_type": "llama"}, "here")
    with pytest.raises(BaseModelError, match=r"no model type 'llamas'\. Did you mean 'llama'\?"):
        check_native({"model_type": "llamas"}, "here")


def sharded(folder: Path, places: dict[str, str]) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/x.safetensors", "x.bin", "a/b.safetensors"])
def test_shards_stay_in_the_folder(llama: Path, shard: str):
    sharded(llama, {"a": shard})
    with pytest.raises(BaseModelError, match="not a plain safetensors file"):
        check_weights(llama)


def test_a_missing_shard_and_a_lost_tensor(llama: Path):
    sharded(llama, {"a": "x.safetensors", "b": "x.safetensors"})
    with pytest.raises(BaseModelError, match="named by the index but missing"):
        check_weights(llama)
    write(llama / "x.safetensors", {"a": tensor([1], 0, 4)}, bytes(4))
    with pytest.raises(BaseModelError, match=r"'b' \(1 in all\) is in the index but in no file"):
        check_weights(llama)
    write(llama / "x.safetensors", {"a": tensor([1], 0, 4), "c": tensor([1], 4, 8)}, bytes(8))
    with pytest.raises(BaseModelError, match=r"'c' lies in x\.safetensors, but the index says None"):
        check_weights(llama)


def test_no_tokenizer(llama: Path):
    check_tokenizer(llama)
    (llama / "tokenizer.json").unlink()
    with pytest.raises(BaseModelError, match="holds no tokenizer"):
        check_tokenizer(llama)
