"""What happened to the rows: the ledger of those that were dropped, and the findings for the report."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunewright.core.storage import write_text
from tunewright.data.rows import ChatRow, JudgedRow, PreferenceRow, RankingRow, Row

EXAMPLES = 5  # shown of each kind


class Drop(NamedTuple):
    """One row that was read and is not used: where it stands, why (as a word and as a sentence), and the split of its file."""

    where: str
    kind: str
    message: str
    split: str


@dataclass(frozen=True)
class Ledger:
    """Every dropped row. Rows read are always rows kept plus the length of this."""

    drops: tuple[Drop, ...] = ()

    def __len__(self) -> int:
        return len(self.drops)

    def __iter__(self) -> Iterator[Drop]:
        return iter(self.drops)

    def counts(self) -> dict[str, int]:
        """How many rows were dropped for each reason, most frequent first."""
        return dict(Counter(drop.kind for drop in self.drops).most_common())

    def by_kind(self) -> dict[str, Any]:
        """For each reason the count and the first examples, as JSON values."""
        return {
            kind: {
                "count": count,
                "examples": [
                    {"where": drop.where, "message": drop.message, "split": drop.split}
                    for drop in [drop for drop in self.drops if drop.kind == kind][:EXAMPLES]
                ],
            }
            for kind, count in self.counts().items()
        }

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger that `write` wrote."""
        return cls(tuple(Drop(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line))

    def write(self, path: Path) -> None:
        """Write one JSON object a row."""
        write_text(path, "".join(json.dumps(drop._asdict(), ensure_ascii=False) + "\n" for drop in self.drops))


@dataclass(frozen=True)
class Findings:
    """What is known about the data before any training, as plain JSON-able values.

    Args:
        shape: the shape that the rows were read as.
        why: why that one.
        read: rows read, for each file's split.
        kept: rows kept, for each split.
        dropped: for each reason the count and up to five examples.
        found: for each filter what it found (`found`, `dropped`, `examples`).
        labels: for each split how often each label occurs (of tags, in words); empty for rows without labels.
        lengths: for each split p50, p95 and max of the characters of inputs and answers.
        notes: what else should be known, as sentences.
        parts: for each part of a mixture what it gives (`share`, `train`, `validation`, `test`, `repeated`, `held_out`, ...).
    """

    shape: str
    why: str
    read: dict[str, int]
    kept: dict[str, int]
    dropped: dict[str, Any] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    lengths: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The findings as one JSON object."""
        return asdict(self)


def labels(splits: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, int]]:
    """For each split how often each label occurs, most frequent first."""
    counts = {name: Counter(label for row in rows for label in row.classes()) for name, rows in splits.items()}
    return {name: dict(sorted(count.items(), key=lambda item: (-item[1], item[0]))) for name, count in counts.items() if count}


def lengths(splits: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """For each split p50, p95 and max of the characters of inputs and answers."""
    return {
        name: {
            "input": _quantiles([len(row.input_text()) for row in rows]),
            "answer": _quantiles([len(row.target_text()) for row in rows]),
        }
        for name, rows in splits.items()
        if rows
    }


def _quantiles(values: list[int]) -> dict[str, int]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {"p50": ordered[round(0.5 * last)], "p95": ordered[round(0.95 * last)], "max": ordered[-1]}


# Text that tokenizers of common bases would read as a control token, and characters that the eye does not see.
_CONTROL = re.compile(
    r"</?s>|<\|[^|<>\s]{1,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|mask)>|\[(?:CLS|SEP|MASK|PAD)\]"
)
_HIDDEN = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


def remarks(rows: Sequence[Row]) -> list[str]:
    """Sentences about rows that are valid and yet may not be what was meant."""
    found: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    for row in rows:
        text = f"{row.input_text()}\n{row.target_text()}"
        marks = set(_CONTROL.findall(text))
        tokens.update(sorted(marks))  # in an order that does not change from process to process
        found["control"] += bool(marks)
        found["hidden"] += _HIDDEN.search(text) is not None
        found["no_input"] += not row.input_text().strip()
        found.update(_chat_remarks(row))
    shown = ", ".join(f"{token} ({count})" for token, count in tokens.most_common(EXAMPLES))
    sentences = {
        "control": f"hold text that looks like control tokens and is read as plain text: {shown}",
        "hidden": "hold characters that cannot be seen (zero width, or changing the direction of writing)",
        "no_input": "have an empty input",
        "ends_open": "end with a message that nothing answers: it is not learned from",
        "same_twice": "have two user messages or two answers in a row, which some chat templates refuse",
        "late_system": "have a system message that is not the first, which some chat templates refuse",
    }
    return [f"{_rows(found[name])} {sentence}" for name, sentence in sentences.items() if found[name]] + _one_sided(rows)


def _one_sided(rows: Sequence[Row]) -> list[str]:
    judged = {row.label for row in rows if isinstance(row, JudgedRow)}
    if len(judged) != 1:
        return []
    known, other = ("desirable", "undesirable") if judged == {True} else ("undesirable", "desirable")
    return [f"every answer was found {known}: without {other} ones there is nothing that it is told apart from"]


def _rows(count: int) -> str:
    return "1 row(s)" if count == 1 else f"{count:,} rows"


def _chat_remarks(row: Row) -> Iterable[str]:
    if not isinstance(row, ChatRow | PreferenceRow | JudgedRow | RankingRow):
        return
    roles = [message.role for message in row.messages]
    if isinstance(row, ChatRow) and roles[-1] != "assistant":
        yield "ends_open"
    if any(a == b and a in ("user", "assistant") for a, b in itertools.pairwise(roles)):
        yield "same_twice"
    if "system" in roles[1:]:
        yield "late_system"
