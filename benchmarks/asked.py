"""What a measurement is asked for."""

from __future__ import annotations

from typing import NamedTuple


class Asked(NamedTuple):
    """How thoroughly to measure.

    Args:
        shape: the base's shape (see `material.SHAPES`).
        repeats: timed rounds.
        threads: processor threads of every contender.
    """

    shape: str = "S8"
    repeats: int = 7
    threads: int = 2
