"""Folders that `datasets` wrote with `save_to_disk`. Their Arrow files are read directly: `datasets` itself is not imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewright.core.errors import DataError
from tunewright.data.sources import Note, Problem, Record, Source, room

_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}


class DatasetsFolder(Source):
    """A `Dataset` or a `DatasetDict` on disk; the splits of the latter are used as they are."""

    def accepts(self, path: Path) -> bool:
        return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        if (path / "dataset_dict.json").is_file():
            names = _read(path / "dataset_dict.json", "splits")
            raise DataError("holds several splits; name one", where=str(path), allowed=[str(path / name) for name in names])
        arrow = room["arrow"]()
        for entry in _read(path / "state.json", "_data_files"):
            yield from arrow.records(path / entry["filename"])

    def splits(self, path: Path) -> dict[str, list[Path]]:
        if not (path / "dataset_dict.json").is_file():
            return {}
        names = _read(path / "dataset_dict.json", "splits")
        return {_SPLITS[name]: [path / name] for name in names if name in _SPLITS}


def _read(path: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"is damaged ({type(error).__name__}: {error})", where=str(path), hint="Save the data set again.") from None
