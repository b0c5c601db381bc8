"""Which tokens of the batch at hand belong to which tuning; what the modules of several tunings on one base agree on. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Lane(NamedTuple):
    """The flat tokens [start, stop) of a batch, which belong to one tuning."""

    tuning: int
    start: int
    stop: int


class Places(NamedTuple):
    """Where each flat token of a batch stands in its prompt: what comes before the first target of its path. Both [T], integers.

    Args:
        ahead_T: tokens of the prompt before it; -1 outside a prompt (answers, padding, virtual tokens).
        behind_T: tokens of the prompt after it; -1 likewise.
    """

    ahead_T: Tensor
    behind_T: Tensor


class Standing(NamedTuple):
    """Where the virtual tokens of one tuning stand in the pass at hand: N of them.

    Args:
        tuning: whose they are.
        rows_N, columns_N: the sequence and the place in it of each.
        numbers_N: which virtual token of the tuning each is.
        states: keys and values [P, 2 * blocks, heads, width] in place of theirs in every block; None where there are none.
    """

    tuning: int
    rows_N: Tensor
    columns_N: Tensor
    numbers_N: Tensor
    states: Tensor | None


class Lanes:
    """One object a model, shared by every attached module.

    The engine sets `runs` around each forward pass; a module reads it and changes the tokens of its own tuning only. Empty runs
    mean that the whole batch belongs to the one tuning there is, which is the ordinary case and costs nothing.

    Attributes:
        runs: the tokens of each tuning, in the order of the row (counted in `rows` where a layer is given only those).
        rows: the flat tokens of the batch that the layer at hand computes; None for all.
        places: where each token of the batch (of all of it) stands in its prompt; None where nobody asked.
        edges: for the tunings that ask for `places`, how many of a prompt's last tokens they tell apart.
        begins: for the tunings with virtual tokens, the ids (all negative) that each of their rows begins with.
        keyed: the tunings whose virtual tokens have keys and values of their own in every block.
        standing: where virtual tokens stand in the pass at hand; the input embedding notes it.
    """

    def __init__(self) -> None:
        self.runs: tuple[Lane, ...] = ()
        self.rows: Tensor | None = None
        self.places: Places | None = None
        self.edges: dict[int, int] = {}
        self.begins: dict[int, tuple[int, ...]] = {}
        self.keyed: set[int] = set()
        self.standing: tuple[Standing, ...] = ()
        self._open: dict[int, int] = {}  # how many parts of each tuning stand
        self._joined: int | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """The tunings that stand on the model, in order."""
        return tuple(sorted(self._open))

    @property
    def here(self) -> Places | None:
        """The places of the tokens that the layer at hand computes; None where nobody asked."""
        if self.places is None or self.rows is None:
            return self.places
        return Places(self.places.ahead_T[self.rows], self.places.behind_T[self.rows])

    def over(self, count: int, standing: Collection[int]) -> list[Lane]:
        """Whose each of the `count` tokens is that a layer was given.

        Args:
            standing: the tunings that change something there.

        Raises:
            ValueError: the lanes are those of another number of tokens, or there are none and several tunings stand there.
        """
        if len(self.runs) > 1:
            if self.runs[-1].stop != count:
                raise ValueError(f"the lanes end at token {self.runs[-1].stop} and a layer was given {count} tokens")
            return list(self.runs)
        if self.runs:  # one tuning owns everything, also where a layer is given only some tokens
            return [Lane(self.runs[0].tuning, 0, count)]
        if len(standing) > 1:
            raise ValueError(f"tunings {sorted(standing)} stand on one layer, and no lanes say whose tokens these are")
        return [Lane(tuning, 0, count) for tuning in standing]

    def open(self) -> int:
        """The number of a tuning that joins: the lowest that is free, or the one that its parts share (`joined`)."""
        free = next(number for number in range(len(self._open) + 1) if number not in self._open)
        slot = free if self._joined is None else self._joined
        self._open[slot] = self._open.get(slot, 0) + 1
        return slot

    def close(self, slot: int) -> None:
        """The tuning, or a part of it, has left; when nothing of it stands any more, its number may be given again.

        Raises:
            KeyError: no such tuning stands.
        """
        self._open[slot] -= 1
        if self._open[slot]:
            return
        del self._open[slot]
        self.edges.pop(slot, None)
        self.begins.pop(slot, None)
        self.keyed.discard(slot)

    @contextmanager
    def joined(self, slot: int) -> Iterator[None]:
        """Inside, `open` gives `slot`, however often it is asked: what is attached is a part of one tuning."""
        before, self._joined = self._joined, slot
        try:
            yield
        finally:
            self._joined = before

    @contextmanager
    def during(
        self,
        runs: Sequence[Lane],
        *,
        places: Places | None = None,
        rows: Tensor | None = None,
        standing: tuple[Standing, ...] | None = None,
    ) -> Iterator[None]:
        """`runs` hold inside the context; the rest too where it is given, else what held before."""
        before = self.runs, self.places, self.rows, self.standing
        self.runs = tuple(runs)
        self.places = self.places if places is None else places
        self.rows = self.rows if rows is None else rows
        self.standing = self.standing if standing is None else standing
        try:
            yield
        finally:
            self.runs, self.places, self.rows, self.standing = before
