"""Tunewright: fine-tune open models on your own examples, and prove what that bought.

Importing the package loads no torch; names are resolved when they are first used. The story of a run is told in
`tunewright.finetune`: `from tunewright.finetune import Run, finetune`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Run": "tunewright.finetune",
    "Score": "tunewright.core.scores",
    "TunewrightError": "tunewright.core.errors",
}
__all__ = ["Run", "Score", "TunewrightError", "__version__"]


def __getattr__(name: str) -> Any:
    """Public names, imported on first use (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tunewright' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The lazy names are listed like the others."""
    return sorted([*globals(), *_HOMES])
