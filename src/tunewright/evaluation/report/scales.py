"""Where numbers land on paper: ranges, ticks and thinning for the charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tunewright.evaluation.report.wording import MINUS, THIN

Point = tuple[float, float]


class Scale(NamedTuple):
    """A linear map from the numbers `low` to `high` onto the places `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers within the range, about `count` of them."""
        step = _round_step((self.high - self.low) / max(count - 1, 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(rough / (factor * power))))


def around(values: Iterable[float], share: bool = False) -> tuple[float, float]:
    """Ends of a range that holds all values with some air; never empty, and for shares within 0 and 1."""
    seen = list(values)
    low, high = min(seen), max(seen)
    air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    if share and low >= 0 and high <= 1:
        air = max(air, 0.01)
        return max(0.0, low - air), min(1.0, high + air)
    return (max(0.0, low - air) if low >= 0 else low - air), high + air


def rounded_out(low: float, high: float) -> tuple[float, float]:
    """The range widened to the next round numbers, so that its ends can be labelled."""
    step = _round_step((high - low) / 4)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def tick_text(value: float, percent: bool) -> str:
    """A tick's label, as short as it can be."""
    if percent:
        return f"{100 * value:.3g}{THIN}%"
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if not exponent and value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.0e}".partition("e")
    text = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return text.replace("-", MINUS)


def thinned(points: Sequence[Point], most: int = 240) -> list[Point]:
    """At most `most` points: means over neighbours, so that a long run is a line and not a smear."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def smoothed(points: Sequence[Point], memory: float = 0.9) -> list[Point]:
    """The running mean (exponential, corrected for its start), which the eye would draw through a noisy loss."""
    total = weight = 0.0
    line = []
    for x, y in points:
        total, weight = memory * total + (1 - memory) * y, memory * weight + 1 - memory
        line.append((x, total / weight))
    return line
