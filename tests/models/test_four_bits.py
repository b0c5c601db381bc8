"""Bases in four bits: what is asked of transformers, and where it is refused before anything is read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tunewright.core.errors import BaseModelError, ConfigurationError, MissingExtraError
from tunewright.evaluation.opening import load_base
from tunewright.methods.lora import LoRA
from tunewright.models import four_bits, loading
from tunewright.models.four_bits import FOUR_BITS, four_bit_options
from tunewright.testing.tiny import save_tiny, tiny


@pytest.mark.parametrize("kind", FOUR_BITS)
def test_without_a_gpu_it_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ConfigurationError, match=rf"training.base_precision: a base in four bits \(`{kind}`\) needs a GPU with CUDA"
    ):
        loading.load(save_tiny("llama", tmp_path), dtype=kind)


@pytest.mark.parametrize(("kind", "package"), [("nf4", "bitsandbytes"), ("int4", "torchao")])
def test_without_its_package_it_is_refused_by_name(kind: str, package: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda: False)
    monkeypatch.setattr("transformers.utils.import_utils.is_torchao_available", lambda: False)
    with pytest.raises(MissingExtraError, match=f"`{kind}` needs the package {package}. Install it: pip install {package}"):
        four_bit_options(kind)


def test_what_transformers_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr("transformers.utils.import_utils.is_bitsandbytes_available", lambda: True)
    seen: dict[str, Any] = {}
    kind = type(tiny("llama").network)
    plain = kind.from_pretrained

    def from_pretrained(path: str, **given: Any) -> Any:
        seen.update(given)
        return plain(path, **{name: value for name, value in given.items() if name not in ("quantization_config", "device_map")})

    monkeypatch.setattr(kind, "from_pretrained", from_pretrained)
    model = loading.load(save_tiny("llama", tmp_path), dtype="nf4")
    asked = seen["quantization_config"]
    assert (asked.load_in_4bit, asked.bnb_4bit_quant_type, asked.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert asked.bnb_4bit_compute_dtype == torch.bfloat16
    assert seen["device_map"] == {"": 0}
    assert seen["dtype"] == torch.float32  # of what is not quantised
    assert four_bits.held_beside("int4") == "bfloat16"
    LoRA(rank=2).attach(model, 0)


def test_an_adapter_is_no_base_in_four_bits(tmp_path: Path):
    base = save_tiny("llama", tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    model = loading.load(base)
    LoRA(rank=2).attach(model, 0).save(adapter)
    with pytest.raises(BaseModelError, match=r"is an adapter, and what it is merged into cannot be loaded as nf4\. Merge it first"):
        load_base(str(adapter), "nf4")
