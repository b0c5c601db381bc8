"""Every random draw is a function of (seed, purpose, counters) and never of history.

So a run starts again at any step without replay, and logging, evaluating or saving more often changes nothing.
"""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: `derive(7, "order", epoch)`; equal arguments, equal seed, on every machine."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shuffled(count: int, seed: int, *purpose: str | int) -> list[int]:
    """A permutation of `range(count)` that depends on nothing but its arguments."""
    order = list(range(count))
    random.Random(derive(seed, *purpose)).shuffle(order)
    return order
