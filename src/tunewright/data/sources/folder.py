"""A folder of data files: `train.*`, `validation.*` and `test.*` are used as the splits, else all files are one data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tunewright.core.errors import DataError, listed
from tunewright.data.sources import Note, Problem, Record, Source, room, source_for

# `train.jsonl`, and the shards that the hub has: `train-00000-of-00002.parquet`, `train_1.jsonl`.
_SPLIT = re.compile(r"(train|training|validation|valid|val|dev|test)(?:[-_]\d+(?:-of-\d+)?)?", re.IGNORECASE)
_NAMES = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
_ABOUT = ("readme", "license", "licence", "source", "notice")


class Folder(Source):
    """Every file in a folder (and the folders in it) that some other source reads, in the order of their names."""

    def accepts(self, path: Path) -> bool:
        return path.is_dir() and not any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        for file in _files(path):
            source, place = source_for(file)
            yield from source.records(place)

    def splits(self, path: Path) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for file in _files(path):
            match = _SPLIT.fullmatch(file.stem)
            if match:
                name = match[1].lower()
                found.setdefault(_NAMES.get(name, name), []).append(file)
        return found if "train" in found else {}


def _files(folder: Path) -> list[Path]:
    suffixes = [suffix for name in room.names() for suffix in room[name].suffixes]
    inside = sorted(item for item in folder.rglob("*") if item.is_file())
    visible = [item for item in inside if not any(part.startswith(".") for part in item.relative_to(folder).parts)]
    files = [item for item in visible if item.suffix.lower() in suffixes and item.stem.lower() not in _ABOUT]
    if not files:
        held = listed([item.name for item in visible], 5) or "nothing"
        raise DataError(f"the folder holds no data file (it holds {held})", where=str(folder), allowed=sorted(suffixes))
    return files
