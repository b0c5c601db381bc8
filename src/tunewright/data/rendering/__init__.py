"""Rows to tokens, with exactly known trained tokens.

`Renderer` turns rows into trees; `Rendering` is its configuration; `audit` counts what is trained and refuses sets of which nothing
would be learned; `view` shows rows as the model sees them.
"""

from __future__ import annotations

from tunewright.data.rendering.drafts import Rendered
from tunewright.data.rendering.refusals import REASONS, Refusal, RowRefused
from tunewright.data.rendering.renderer import Renderer
from tunewright.data.rendering.settings import Rendering

__all__ = ["REASONS", "Refusal", "Rendered", "Renderer", "Rendering", "RowRefused"]
