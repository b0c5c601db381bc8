"""Data sets on the Hugging Face hub, through `datasets.load_dataset`: "owner/name", "owner/name/configuration", with "[split]".

A file or folder of that name goes first; "hub:" in front says that none is meant."""

from __future__ import annotations

import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import DataError
from tunewright.data.sources import Note, Problem, Record, Source, _columns

if TYPE_CHECKING:
    import datasets

_PLACE = re.compile(r"(?:hub:)?(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<configuration>[\w.-]+))?(?:\[(?P<split>\w+)\])?")
_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "dev": "validation", "test": "test"}
_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".gz", ".zip", ".yaml", ".toml")


class Hub(Source):
    """A data set by its name. Nothing that a data set brings along is executed. Needs the network, or a cached copy."""

    def accepts(self, path: Path) -> bool:
        text = str(path)
        if text.startswith("hub:"):
            return True
        # A mistyped path must be told as one, and not looked up on the network.
        looks_local = path.suffix.lower() in _FILES or path.is_absolute() or path.parent.is_dir()
        return not looks_local and _PLACE.fullmatch(text) is not None

    def records(self, path: Path) -> Iterator[Record | Problem | Note]:
        loaded = _load(path)
        splits: dict[str, Any] = {str(name): part for name, part in loaded.items()} if isinstance(loaded, dict) else {"": loaded}
        if len(splits) > 1:
            raise DataError("has several splits; name one", where=str(path), allowed=[f"{path}[{name}]" for name in splits])
        dataset = next(iter(splits.values()))
        classes = _columns.class_names(dataset.features.to_dict())
        if classes:
            yield Note(str(path), f"class numbers are read as the names of their classes: {', '.join(classes)}")
        for number, value in enumerate(dataset, start=1):
            yield Record(_columns.named_classes(_columns.plain(value), classes), f"{path}:row {number}")

    def splits(self, path: Path) -> dict[str, list[Path]]:
        loaded = _load(path)
        if not isinstance(loaded, dict):
            return {}
        return {_SPLITS[name]: [Path(f"{path}[{name}]")] for name in map(str, loaded) if name in _SPLITS}


def _load(path: Path) -> datasets.Dataset | datasets.DatasetDict:
    match = _PLACE.fullmatch(str(path))
    if match is None:
        hint = "Write hub:owner/name, hub:owner/name/configuration or hub:owner/name[split]."
        raise DataError("is not the name of a data set on the hub", where=str(path), hint=hint)
    import datasets
    import datasets.config
    import datasets.exceptions
    import huggingface_hub.errors

    _check_reachable(path, Path(datasets.config.HF_DATASETS_CACHE) / match["name"].replace("/", "___"))
    try:
        return datasets.load_dataset(match["name"], match["configuration"], split=match["split"])  # type: ignore[return-value]
    # What `datasets` raises for absent names, unknown configurations and splits, and a network that breaks.
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()
        raise _unavailable(path, reason[0][:200] if reason else type(error).__name__) from None


def _check_reachable(path: Path, cached: Path) -> None:
    """Fail within seconds where there is no network and no copy: the hub's own client tries again for half a minute."""
    import huggingface_hub.constants

    # Behind a proxy only the client knows the way.
    if cached.exists() or urllib.request.getproxies():
        return
    address = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()
    except OSError as error:
        raise _unavailable(path, f"{address.hostname} cannot be reached: {error.strerror or error}") from None


def _unavailable(path: Path, reason: str) -> DataError:
    problem = f"there is no such file, and no data set of that name could be loaded from the hub ({reason})"
    hint = "If a file was meant, check its path. If the name is right, check the network (and access to it)."
    return DataError(problem, where=str(path), hint=hint)
