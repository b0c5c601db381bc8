"""`embedded`: the small decoder that ships with the package, so that everything works with no network."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tunewright.core.errors import BaseModelError
from tunewright.models.sources import Resolved, Source

FOLDER = Path(__file__).parents[1] / "embedded"


class Embedded(Source):
    """The base in the package's own folder."""

    order: ClassVar[int] = 0
    names: ClassVar[tuple[str, ...]] = ("embedded",)

    def claims(self, base: str) -> bool:
        return base == "embedded"

    def resolve(self, base: str) -> Resolved:
        if not (FOLDER / "config.json").is_file():
            raise BaseModelError("this installation lacks the embedded base", where=str(FOLDER), hint="Reinstall tunewright.")
        return Resolved(base, "embedded", FOLDER)
