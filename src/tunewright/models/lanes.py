"""Which tokens of the batch at hand belong to which tuning; what the modules of several tunings on one base agree on. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple


class Lane(NamedTuple):
    """The flat tokens [start, stop) of a batch, which belong to one tuning."""

    tuning: int
    start: int
    stop: int


class Lanes:
    """One object a model, shared by every attached module.

    The engine sets `runs` around each forward pass; a module reads it and changes the tokens of its own tuning only. Empty runs
    mean that the whole batch belongs to the one tuning there is, which is the ordinary case and costs nothing.
    """

    def __init__(self) -> None:
        self.runs: tuple[Lane, ...] = ()
        self._open: set[int] = set()

    @property
    def members(self) -> tuple[int, ...]:
        """The tunings that stand on the model, in order."""
        return tuple(sorted(self._open))

    def open(self) -> int:
        """The number of a tuning that joins: the lowest that is free."""
        slot = next(number for number in range(len(self._open) + 1) if number not in self._open)
        self._open.add(slot)
        return slot

    def close(self, slot: int) -> None:
        """The tuning has left; its number may be given again.

        Raises:
            KeyError: no such tuning stands.
        """
        self._open.remove(slot)

    @contextmanager
    def during(self, runs: Sequence[Lane]) -> Iterator[None]:
        """`runs` hold inside the context."""
        before, self.runs = self.runs, tuple(runs)
        try:
            yield
        finally:
            self.runs = before
