"""Tiny bases in folders, rows in files, and a run over them in about a second."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tunewright.core.configuration import build
from tunewright.finetune import Run
from tunewright.testing.tiny import save_tiny

WORDS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny base, written once."""
    root = tmp_path_factory.mktemp("bases")

    def folder(family: str) -> str:
        place = root / family
        return str(place if place.is_dir() else save_tiny(family, place))

    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spelling(folder: Path) -> Path:
    """24 prompts and completions: a word to spell."""
    draw = random.Random(1)
    names = ["".join(draw.choices("abcdefgh", k=5)) for _ in range(24)]
    return write(folder / "pairs.jsonl", [{"prompt": f"spell {name}", "completion": "-".join(name[:3])} for name in names])


def describe(
    root: Path, base: str, rows: Path, *, name: str = "run", training: dict[str, Any] | None = None, **settings: Any
) -> Run:
    """A run of six steps on one thread; its folder is `root/runs/name`."""
    steps = {"max_steps": 6, "batch_size": 6, "learning_rate": 5e-3, "validate_every": 2, "patience": 9, "precision": "float32"}
    metric = "accuracy" if "labels" in rows.name else "exact_match"
    given = {
        "data": {"train": str(rows), "validation_share": 0.2, "test_share": 0.2},
        "base": base,
        "training": steps | (training or {}),
        "evaluation": {"metrics": [metric], "written": 3, "sampling": {"max_new_tokens": 4}},
        "threads": 1,
        "name": name,
        "folder": str(root / "runs"),
    }
    return build(Run, given | settings)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """24 prompts and completions in a file of their own."""
    return spelling(tmp_path)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """30 texts of two labels."""
    draw = random.Random(2)
    rows = []
    for number in range(30):
        words = draw.choices(WORDS[:4] if number % 2 else WORDS[4:], k=4)
        rows.append({"text": f"{' '.join(words)} {number}", "label": "early" if number % 2 else "late"})
    return write(tmp_path / "labels.jsonl", rows)


@pytest.fixture
def described(tmp_path: Path, base: Callable[[str], str]) -> Callable[..., Run]:
    """A run of few steps: `described("llama", pairs, method="full", training={...})`."""

    def make(family: str, rows: Path, **settings: Any) -> Run:
        return describe(tmp_path, settings.pop("base", None) or base(family), rows, **settings)

    return make


def weights(folder: Path) -> dict[str, Any]:
    """Every tensor that a run ended with."""
    found = {}
    for kind in ("adapter", "model"):
        for path in sorted((folder / kind).glob("*.safetensors")):
            found |= {f"{path.name}/{name}": tensor for name, tensor in load_file(path).items()}
    return found


def losses(folder: Path) -> list[tuple[int, float, dict[str, float]]]:
    """Number, loss and validation of every logged step."""
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [(line["number"], line["loss"], line["validation"]) for line in lines]
