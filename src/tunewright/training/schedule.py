"""The learning rate as a pure function of the step, so that it needs no state to resume."""

from __future__ import annotations

import math
from typing import Literal


def factor(step: int, total: int, kind: Literal["linear", "cosine", "constant"], warmup_steps: int) -> float:
    """What the peak learning rate is multiplied by at optimizer step `step` (0-based) of `total`.

    Rises linearly over `warmup_steps`, then falls to 0 linearly or along half a cosine, or stays. Equal to the schedules of
    transformers (`get_scheduler`), which count the same way.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    if kind == "constant":
        return 1.0
    done = (step - warmup_steps) / max(1, total - warmup_steps)
    return max(0.0, 1.0 - done) if kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
