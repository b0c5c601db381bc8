"""A run folder: what a run made, `model/` where it changed the whole network, `adapter/` where it stands on its base."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tunewright.core.configuration import read_file
from tunewright.core.errors import BaseModelError
from tunewright.models.safety import read_strict
from tunewright.models.sources import Resolved, Source, as_path, holds_any

# What describes a saved tuning -> the file beside it that holds its tensors.
DESCRIPTIONS = {"tuning.json": "tuning.safetensors", "adapter_config.json": "adapter_model.safetensors"}
# Where a saved tuning names its base; the stamp comes last, since files of PEFT name one themselves.
_NAMING = {"tuning.json": "base", "adapter_config.json": "base_model_name_or_path", "base.json": "base"}


class RunFolder(Source):
    """A folder with `run.yaml` or `manifest.json` of a run."""

    order: ClassVar[int] = 10

    def claims(self, base: str) -> bool:
        folder = as_path(base)
        return holds_any(folder, "run.yaml", "manifest.json") and not holds_any(folder, "config.json")

    def resolve(self, base: str) -> Resolved:
        folder = as_path(base)
        if (folder / "model" / "config.json").is_file():
            return Resolved(base, "run", folder / "model")
        if (folder / "adapter").is_dir():
            return Resolved(base, "run", adapter=folder / "adapter", base_of_adapter=base_of(folder / "adapter", folder))
        raise BaseModelError(
            "is a run that has no model/ and no adapter/ yet", where=base, hint="Let it finish: tunewright resume continues it."
        )


def base_of(adapter: Path, run: Path | None = None) -> str | None:
    """The base that an adapter names: in its run's file, in its own description, or in the stamp beside it."""
    if run is not None and (run / "run.yaml").is_file():
        named = read_file(run / "run.yaml").get("base")
        if isinstance(named, str):
            return named
    for name, key in _NAMING.items():
        path = adapter / name
        data = read_strict(path) if path.is_file() else None
        named = data.get(key) if isinstance(data, dict) else None
        if isinstance(named, str) and named:
            return named
    return None
