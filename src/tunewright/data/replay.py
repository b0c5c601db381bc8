"""Replay: general text learned beside the task, so that what the base could do before is not forgotten.

The task's rows stay as they are, each once an epoch; general rows come on top until they make up a share of all. They have no say
in when training stops, and their test rows stand apart in the report, as what was not to be lost.

Source: Robins 1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal"; for language models: Scialom et al. 2022,
"Fine-tuned Language Models are Continual Learners", arXiv 2205.12393 (1 % of the earlier data kept most of what was known).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from tunewright.core.configuration import Strict
from tunewright.core.errors import DataError
from tunewright.core.seeds import derive
from tunewright.core.units import share_text
from tunewright.data.ledger import Findings, Ledger, lengths
from tunewright.data.mixing import Blend
from tunewright.data.rows import ChatRow, Row, TextRow

MARK = "replayed"
GENERAL = "general text"
"""What the rows are called in a report."""


class Replay(Strict):
    """General rows to learn beside those of the task; a file alone is its `train`.

    Args:
        train: a file, a folder, or a data set on the hub: plain text, or rows of a kind that the objective learns.
        test: general rows that are measured, base and tuned; split off `train` when not given.
        share: how much of an epoch's rows they are; 0 learns none of them, and still measures what is forgotten.
        weight: of one of their tokens in the loss, against one of the task; when not given, by how much is learned of both, at
            most 1. (All of a text is learned, and of a prompt only its answer.)
        piece: characters of plain text that count as a row; a longer text is cut at white space, so that rows are of one size.
        shape: what the columns mean, where detection is wrong.
        columns: names of columns in the file, and the fields that they are.
    """

    train: Path | str
    test: Path | str | None = None
    share: float = Field(default=0.2, ge=0, lt=1)
    weight: float | None = Field(default=None, gt=0)
    piece: int = Field(default=1000, ge=50)
    shape: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)

    def as_set(self) -> dict[str, Any]:
        """How the rows are read: as a set of its own, which has no say in when training stops."""
        own = {name: getattr(self, name) for name in ("train", "test", "shape", "columns")}
        return {**own, "validation_share": 0.0}


def as_replay(value: Any) -> Any:
    """A file alone is what is replayed."""
    return {"train": value} if isinstance(value, str | Path) else value


class Held(Protocol):
    """Rows by split, and what was found in them."""

    @property
    def ledger(self) -> Ledger:
        """What was dropped of them."""
        ...

    @property
    def findings(self) -> Findings:
        """What there is to know about them."""
        ...

    def splits(self) -> dict[str, list[Row]]:
        """The rows by the name of their split."""
        ...


def is_replayed(row: Row) -> bool:
    """Whether a row is there to be kept in mind, and not for the task."""
    return MARK in row.metadata


def with_replay(task: Held, general: Held, settings: Replay, seed: int) -> Blend:
    """The task's rows with general ones behind them: in training up to their share, and all that are measured.

    Raises:
        DataError: general rows are asked for, and there are none to learn from.
    """
    held, others = task.splits(), general.splits()
    units = [piece for row in others["train"] for piece in pieces(row, settings.piece)]
    count = round(len(held["train"]) * settings.share / (1 - settings.share))
    if count and not units:
        raise DataError("holds no general rows to learn from", where=str(settings.train), hint="Name another file, or `share: 0`.")
    order = sorted(units, key=lambda row: derive(seed, "replay", row.key()))
    drawn = [_marked(order[place % len(order)]) for place in range(count)]
    weight = settings.weight or _weight(held["train"], drawn, settings.share)
    drawn = [replace(row, weight=row.weight * weight) for row in drawn]
    tested = [_marked(row) for row in others["test"]]
    splits = {**held, "train": [*held["train"], *drawn], "test": [*held["test"], *tested]}
    share = share_text(count, len(splits["train"]))
    again = f", {count - len(units)} of them repeated" if count > len(units) else ""
    name, whole = Path(str(settings.train)).name, len(splits["train"])
    note = f"'{name}' is replayed against forgetting: {count} of {whole} training rows ({share}), each token weighs {weight:.2g}"
    findings = replace(
        task.findings,
        read=task.findings.read | {f"replay {role}": number for role, number in general.findings.read.items()},
        kept={name: len(rows) for name, rows in splits.items()},
        lengths=lengths(splits),
        notes=[*task.findings.notes, f"{note}{again}; {len(tested)} of its rows are measured apart"],
    )
    ledger = Ledger((*task.ledger, *general.ledger))
    return Blend(splits, ledger, replace(findings, dropped=ledger.by_kind()))


def pieces(row: Row, most: int) -> list[Row]:
    """A plain text cut at white space into as few stretches of at most `most` characters as hold it; other rows are whole.

    A word that is longer stays whole.
    """
    if not isinstance(row, TextRow) or len(row.text) <= most:
        return [row]
    found = [""]
    for word in re.findall(r"\s*\S+", row.text):
        if len(found[-1]) + len(word) > most and found[-1]:
            found.append("")
        found[-1] += word
    return [replace(row, text=text.strip()) for text in found]


def _weight(task: Sequence[Row], general: Sequence[Row], share: float) -> float:
    """What a general token weighs where nobody says, from the characters that are learned of both sides; at most 1.

    Counted alike, whole texts drown a task of short answers. With the weight b for which general tokens are `share` of all that is
    learned, short tasks drown the texts. Between the two, sqrt(b) is taken: in docs/pretraining.md it keeps both.
    """
    own, others = (sum(len(learned_text(row)) * row.weight for row in rows) for rows in (task, general))
    return min(1.0, math.sqrt(share / (1 - share) * own / others)) if own and others else 1.0


def learned_text(row: Row) -> str:
    """What of a row is learned where answers are: the answers, or all of a plain text."""
    if isinstance(row, ChatRow):
        return "".join(message.content for message in row.messages if message.role == "assistant" and message.weight)
    return row.target_text() or row.input_text()


def _marked(row: Row) -> Row:
    return replace(row, metadata={**row.metadata, MARK: True})
