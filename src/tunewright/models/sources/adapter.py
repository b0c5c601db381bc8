"""A folder with an adapter in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

from typing import ClassVar

from tunewright.core.errors import BaseModelError
from tunewright.models.safety import forbid_code, read_strict
from tunewright.models.sources import Resolved, Source, as_path, holds_any
from tunewright.models.sources.run import base_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class AdapterFolder(Source):
    """An adapter of PEFT or of ours. One beside a whole network is refused: transformers would put it on in silence."""

    order: ClassVar[int] = 20

    def claims(self, base: str) -> bool:
        return holds_any(as_path(base), CONFIG)

    def resolve(self, base: str) -> Resolved:
        folder = as_path(base)
        if holds_any(folder, "config.json"):
            raise BaseModelError(
                "holds a whole network and an adapter, so it is not clear which is meant", where=base, hint="Move one of them."
            )
        if not (folder / WEIGHTS).is_file():
            raise BaseModelError(
                f"holds an adapter without {WEIGHTS}",
                where=base,
                hint="Adapters are read from safetensors only, never from pickle.",
            )
        forbid_code(read_strict(folder / CONFIG), str(folder / CONFIG))
        return Resolved(base, "adapter", adapter=folder, base_of_adapter=base_of(folder))
