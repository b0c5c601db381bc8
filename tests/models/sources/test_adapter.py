import json
from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.loading import load
from tunewright.models.sources import folder_of, resolve


@pytest.fixture
def adapter(tmp_path: Path, llama: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(llama)}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_it_names_its_base(adapter: Path, llama: Path):
    found = resolve(adapter)
    assert (found.kind, found.adapter, found.base_of_adapter) == ("adapter", adapter, str(llama))
    assert folder_of(found) == llama
    with pytest.raises(BaseModelError, match="is an adapter on the base"):
        load(adapter)


def test_it_names_none(adapter: Path):
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(BaseModelError, match="does not say which base"):
        folder_of(adapter)


def test_pickle_is_not_read(adapter: Path):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(BaseModelError, match="never from pickle"):
        resolve(adapter)


def test_it_names_code(adapter: Path, edit):
    edit(adapter / "adapter_config.json", tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(BaseModelError, match=r"tokenizer_kwargs\.trust_remote_code"):
        resolve(adapter)


def test_beside_a_whole_network(adapter: Path):
    (adapter / "config.json").write_text("{}")
    with pytest.raises(BaseModelError, match="not clear which is meant"):
        resolve(adapter)


@pytest.fixture
def own(tmp_path: Path, llama: Path) -> Path:
    """A tuning that PEFT has no format for."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "tuning.json").write_text(json.dumps({"format": 1, "method": {"name": "bitfit"}, "base": str(llama)}))
    (folder / "tuning.safetensors").write_bytes(b"")
    return folder


def test_a_tuning_of_ours_is_an_adapter_too(own: Path, llama: Path):
    found = resolve(own)
    assert (found.kind, found.adapter, found.base_of_adapter) == ("adapter", own, str(llama))
    assert folder_of(found) == llama
    (own / "tuning.safetensors").unlink()
    with pytest.raises(BaseModelError, match=r"holds an adapter without tuning\.safetensors"):
        resolve(own)


def test_the_stamp_names_the_base_where_nothing_else_does(adapter: Path, llama: Path):
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (adapter / "base.json").write_text(json.dumps({"base": str(llama), "fingerprint": "0"}))
    assert folder_of(adapter) == llama


def test_a_tuning_of_ours_names_code(own: Path, edit):
    edit(own / "tuning.json", method={"name": "bitfit", "auto_map": {"x": "y.Z"}})
    with pytest.raises(BaseModelError, match=r"method\.auto_map"):
        resolve(own)
