"""A folder with a saved tuning: PEFT's two files, or `tuning.json` and `tuning.safetensors` where PEFT has no such method."""

from __future__ import annotations

from typing import ClassVar

from tunewright.core.errors import BaseModelError
from tunewright.models.safety import forbid_code, read_strict
from tunewright.models.sources import Resolved, Source, as_path, holds_any
from tunewright.models.sources.run import DESCRIPTIONS, base_of


class AdapterFolder(Source):
    """An adapter of PEFT or of ours. One beside a whole network is refused: transformers would put PEFT's on in silence."""

    order: ClassVar[int] = 20

    def claims(self, base: str) -> bool:
        return holds_any(as_path(base), *DESCRIPTIONS)

    def resolve(self, base: str) -> Resolved:
        folder = as_path(base)
        if holds_any(folder, "config.json"):
            raise BaseModelError(
                "holds a whole network and an adapter, so it is not clear which is meant", where=base, hint="Move one of them."
            )
        description = next(name for name in DESCRIPTIONS if (folder / name).is_file())
        if not (folder / DESCRIPTIONS[description]).is_file():
            raise BaseModelError(
                f"holds an adapter without {DESCRIPTIONS[description]}",
                where=base,
                hint="Adapters are read from safetensors only, never from pickle.",
            )
        forbid_code(read_strict(folder / description), str(folder / description))
        return Resolved(base, "adapter", adapter=folder, base_of_adapter=base_of(folder))
