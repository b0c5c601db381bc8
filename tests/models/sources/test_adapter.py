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
