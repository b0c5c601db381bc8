from pathlib import Path

import pytest

from tunewright.core.errors import BaseModelError
from tunewright.models.sources import resolve


def test_a_folder_relative_and_from_home(llama: Path, monkeypatch: pytest.MonkeyPatch):
    assert resolve(llama).folder == llama
    monkeypatch.chdir(llama.parent)
    assert resolve("llama").kind == "folder"
    monkeypatch.setenv("HOME", str(llama.parent))
    assert resolve("~/llama").folder == llama


def test_a_missing_folder_suggests_its_neighbour(llama: Path):
    with pytest.raises(BaseModelError, match=f"Did you mean '{llama}'"):
        resolve(f"{llama.parent}/lama")
    with pytest.raises(BaseModelError, match="Check the path"):
        resolve("~nobody/x")


def test_a_file_is_not_a_base(llama: Path):
    with pytest.raises(BaseModelError, match=f"is a file.*Did you mean '{llama}'"):
        resolve(llama / "config.json")
