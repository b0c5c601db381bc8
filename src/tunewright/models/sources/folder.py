"""A folder in the Hugging Face layout: `config.json`, safetensors weights and a tokenizer."""

from __future__ import annotations

from typing import ClassVar

from tunewright.core.errors import BaseModelError, nearest
from tunewright.models.sources import Resolved, Source, as_path


class Folder(Source):
    """Any folder that is there, and any text that can only be meant as a path."""

    order: ClassVar[int] = 30

    def claims(self, base: str) -> bool:
        return as_path(base).exists() or base.startswith((".", "/", "~")) or base.count("/") > 1 or "\\" in base

    def resolve(self, base: str) -> Resolved:
        folder = as_path(base)
        if not folder.exists():
            siblings = [item.name for item in folder.parent.iterdir() if item.is_dir()] if folder.parent.is_dir() else []
            guess = nearest(folder.name, siblings)
            hint = f"Did you mean '{folder.parent / guess}'?" if guess else "Check the path."
            raise BaseModelError("there is no such folder", where=base, hint=hint)
        if not folder.is_dir():
            raise BaseModelError(
                "is a file; a base is a folder with config.json", where=base, hint=f"Did you mean '{folder.parent}'?"
            )
        return Resolved(base, "folder", folder)
