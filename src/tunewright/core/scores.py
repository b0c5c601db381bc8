"""A measured number never travels without its interval and its count."""

from __future__ import annotations

from typing import NamedTuple


class Score(NamedTuple):
    """One measured number: the value, the ends of its 95 % interval, and how many rows it was measured on."""

    value: float
    low: float
    high: float
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  (a tuple's own `count` is never asked)

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (n={self.count})"
