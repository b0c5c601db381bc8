"""What is wrong with rows that are each valid alone: one filter a file.

An entry is a `Filter`. It sees the `Pool` of all rows (of all files of a run) and objects to some of them. What then happens is the
user's choice, filter by filter: `drop` (into the ledger, with the reason), `report` (kept and counted) or `off`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

from tunewright.core.errors import ConfigurationError
from tunewright.core.registry import Room
from tunewright.data.ledger import EXAMPLES, Drop
from tunewright.data.rows import LabelRow, Row, TextRow

Action = Literal["drop", "report", "off"]
SHARED = 0.2  # an input that more than this share of rows has is an instruction, not a question


@dataclass(frozen=True)
class Pool:
    """Rows and the split that each belongs to, with what filters and splitting ask about them computed once.

    Args:
        rows: the rows.
        roles: for each row, "train", "validation" or "test": the file it came from.
        similarity: from which Jaccard similarity on inputs are near duplicates; 0 or 1 looks for equal ones only.
    """

    rows: tuple[Row, ...]
    roles: tuple[str, ...] = ()
    similarity: float = 0.9

    def __post_init__(self) -> None:
        if not self.roles:
            object.__setattr__(self, "roles", ("train",) * len(self.rows))

    @cached_property
    def keys(self) -> list[str]:
        """For each row the hash of its content."""
        return [row.key() for row in self.rows]

    @cached_property
    def instructions(self) -> set[str]:
        """Inputs that so many rows share that rows must be told apart by their answers ("Write a product text." 500 times)."""
        counts = Counter(folded(row.input_text()) for row in self.rows if not isinstance(row, LabelRow | TextRow))
        return {text for text, count in counts.items() if count > max(10, SHARED * len(self.rows))}

    @cached_property
    def inputs(self) -> list[str]:
        """For each row the text by which it is recognised on the other side of a split: its input, case and spacing evened out."""
        texts = [folded(row.input_text()) for row in self.rows]
        if not self.instructions:
            return texts
        return [
            f"{text}\n{folded(row.target_text())}" if text in self.instructions else text
            for text, row in zip(texts, self.rows, strict=True)
        ]

    @cached_property
    def sides(self) -> list[int]:
        """For each row the number of its cluster: rows with equal or nearly equal inputs have the same one."""
        from tunewright.data.cleaning._similarity import clusters

        return clusters(self.inputs, self.similarity)

    def without(self, dropped: set[int]) -> Pool:
        """The pool without some rows; what was computed about the others is kept."""
        if not dropped:
            return self
        left = [index for index in range(len(self.rows)) if index not in dropped]
        pool = Pool(tuple(self.rows[i] for i in left), tuple(self.roles[i] for i in left), self.similarity)
        for name in ("keys", "inputs", "sides"):
            if name in self.__dict__:
                pool.__dict__[name] = [self.__dict__[name][index] for index in left]
        if "instructions" in self.__dict__:
            pool.__dict__["instructions"] = self.instructions
        return pool


def folded(text: str) -> str:
    """`text` with case and spacing evened out."""
    return " ".join(text.casefold().split())


class Verdict(NamedTuple):
    """An objection to one row: its place in the pool and the reason as a sentence."""

    place: int
    message: str


class Filter(ABC):
    """One thing that may be wrong with rows.

    `order` is when the filter runs (dear ones last, on fewer rows), `action` what happens unless the user says otherwise, and
    `roles` where rows may be dropped: a test file that the user gave stays as it is, unless a row cannot be scored at all.
    """

    order: ClassVar[int]
    action: ClassVar[Action]
    roles: ClassVar[tuple[str, ...]] = ("train",)

    @abstractmethod
    def judge(self, pool: Pool) -> Iterable[Verdict]:
        """The rows that the filter objects to.

        Raises:
            DataError: so much is wrong that the file as a whole cannot be meant.
        """


room: Room[Filter] = Room("tunewright.data.cleaning", Filter, "filter")  # type: ignore[type-abstract]


class Cleaned(NamedTuple):
    """What is left, what was dropped, and what each filter found: `{name: {found, dropped, examples}}`."""

    pool: Pool
    drops: list[Drop]
    found: dict[str, Any]


def check_actions(actions: Mapping[str, str]) -> None:
    """Refuse names that are no filter. Raises `ConfigurationError` with the nearest name."""
    names = room.names()
    for name in actions:
        if name not in names:
            raise ConfigurationError(f"there is no filter '{name}'", where="cleaning", allowed=names, given=name)


def clean(pool: Pool, actions: Mapping[str, Action]) -> Cleaned:
    """Run every filter over the pool, in their order.

    Args:
        pool: all rows of a run.
        actions: what to do about a filter's finds, where it is not the filter's own default.
    """
    check_actions(actions)
    drops: list[Drop] = []
    found: dict[str, Any] = {}
    filters = sorted(((name, room[name]()) for name in room.names()), key=lambda item: (item[1].order, item[0]))
    for name, entry in filters:
        action = actions.get(name, entry.action)
        if action == "off":
            continue
        verdicts = list(entry.judge(pool))
        dropped = {v.place: v for v in verdicts if action == "drop" and pool.roles[v.place] in entry.roles}
        found[name] = {
            "found": len(verdicts),
            "dropped": len(dropped),
            "examples": [{"where": pool.rows[v.place].where, "message": v.message} for v in verdicts[:EXAMPLES]],
        }
        drops += [Drop(pool.rows[i].where, name, verdict.message, pool.roles[i]) for i, verdict in dropped.items()]
        pool = pool.without(set(dropped))
    return Cleaned(pool, drops, found)
