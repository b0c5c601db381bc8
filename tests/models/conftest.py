"""Folders to load and to spoil."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunewright.testing.tiny import save_tiny


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A sound folder, free to be spoilt."""
    return save_tiny("llama", tmp_path / "llama")


@pytest.fixture
def edit() -> Callable[..., None]:
    """Put keys into a JSON file (None takes a key out)."""

    def change(path: Path, **keys: object) -> None:
        data = {**json.loads(path.read_text()), **keys}
        path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))

    return change


@pytest.fixture
def reweigh() -> Callable[[Path, Callable[[dict[str, torch.Tensor]], None]], None]:
    """Change the tensors of a folder in place."""

    def change(folder: Path, spoil: Callable[[dict[str, torch.Tensor]], None]) -> None:
        tensors = load_file(folder / "model.safetensors")
        spoil(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change
