"""Mixtures: several sets learned together, each with its share, and sets that are held out to see what carries over.

How much of each part one epoch holds follows from the parts' sizes, evened out by a temperature, or from shares that were given.
A part that should give more rows than it has gives some of them several times, in another wording; that is counted and said.

Source: temperature and fixed shares: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", arXiv 1910.10683, section 3.5.2; tasks held out whole: Wei et al. 2022, "Finetuned Language Models Are Zero-Shot
Learners", arXiv 2109.01652.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, DataError
from tunewright.core.seeds import derive
from tunewright.core.units import share_text
from tunewright.data.cleaning import folded
from tunewright.data.ledger import EXAMPLES, Drop, Findings, Ledger, lengths
from tunewright.data.rows import ChatRow, PromptRow, Row, TextRow
from tunewright.data.templates.dressing import Dressing, Prompting, dressed, of_task

TOGETHER = {PromptRow.shape, ChatRow.shape, TextRow.shape}  # rows that one objective learns side by side
LEAK = "in_the_test_of_another_part"


def as_prompting(value: Any) -> Any:
    """A template's name alone is a template without settings of its own."""
    return {"name": value} if isinstance(value, str) else value


class Part(Strict):
    """One set of a mixture. How duplicates and bad rows are handled, and how splits are made, stands beside the mixture.

    Args:
        name: what the task is called in the report.
        train: a file, a folder, or a data set on the hub; the only rows of a part that is held out, unless it has a `test`.
        validation: rows that decide when training stops; split off `train` when not given.
        test: rows that are measured once, at the end; split off `train` when not given.
        template: how its rows become prompts: a name, a file, or a mapping with `name`; None where they are prompts already.
        shape: what the columns mean, where detection is wrong.
        columns: names of columns in the file, and the fields or places of the template that they are.
        delimiter: what separates columns, where it is neither a comma nor a tab.
        group: a column; rows with the same value in it stay on one side of a split.
        share: how much of an epoch it is, against the shares of the others (0.5 and 0.5 are 2 and 2).
        max_rows: most rows of it that are used: training rows, or test rows where it is held out.
        held_out: the part is never trained on, and only tested.
    """

    name: str = Field(pattern=r"^\w[\w.\- ]{0,59}$")
    train: Path | str
    validation: Path | str | None = None
    test: Path | str | None = None
    template: Annotated[Prompting | None, BeforeValidator(as_prompting)] = None
    shape: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    delimiter: str | None = None
    group: str | None = None
    share: float | None = Field(default=None, gt=0)
    max_rows: int | None = Field(default=None, ge=1)
    held_out: bool = False


class Mixture(Strict):
    """Several sets that are learned together; a list alone is the parts.

    Args:
        parts: the sets.
        temperature: sizes count as size^(1/temperature): 1 keeps them, 2 lifts small parts, a large one makes all parts equal.
        rows: training rows of one epoch; as many as all parts have together when not given.
    """

    parts: tuple[Part, ...] = Field(min_length=1)
    temperature: float = Field(default=1.0, ge=1)
    rows: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Mixture:
        names = [part.name for part in self.parts]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"two parts are named '{name}'", where="parts", hint="Each task has a name of its own.")
        if not self.learned:
            raise ConfigurationError("every part is held out, so nothing is trained on", where="parts")
        without = [part.name for part in self.learned if part.share is None]
        if without and len(without) < len(self.learned):
            problem = f"'{without[0]}' has no share, and other parts have one"
            raise ConfigurationError(problem, where="parts", hint="Give every part a share, or none.")
        if self.temperature != 1 and not without:
            raise ConfigurationError("shares are given, so there is nothing to even out", where="temperature", hint="Remove one.")
        for part in self.parts:
            if part.held_out and (part.share is not None or part.validation is not None):
                hint = "Remove its `share` and its `validation`."
                raise ConfigurationError(f"'{part.name}' is held out: it is only tested", where="parts", hint=hint)
        return self

    @property
    def learned(self) -> list[Part]:
        """The parts that are trained on."""
        return [part for part in self.parts if not part.held_out]


def as_mixture(value: Any) -> Any:
    """A list alone is the parts of a mixture."""
    return {"parts": value} if isinstance(value, list | tuple) else value


@contextmanager
def about(what: str) -> Iterator[None]:
    """Inside, an error about data says which of several sets it is about."""
    try:
        yield
    except (DataError, ConfigurationError) as error:
        problem = f"{error.problem} ({what})"
        raise type(error)(problem, where=error.where, allowed=error.allowed, given=error.given, hint=error.hint) from None


class Reading(NamedTuple):
    """One part as it was read: rows still as the file holds them, by split."""

    part: Part
    splits: Mapping[str, list[Row]]
    ledger: Ledger
    findings: Findings


class Blend(NamedTuple):
    """The rows of all parts together, and what was found in them."""

    splits: dict[str, list[Row]]
    ledger: Ledger
    findings: Findings


def counts(mixture: Mixture, sizes: Mapping[str, int]) -> dict[str, int]:
    """Training rows of each part in one epoch; their sum is exact, and each is within one row of its share.

    Args:
        sizes: the training rows that each learned part has.

    Raises:
        DataError: a part has no rows, or none at its share.
    """
    for name, size in sizes.items():
        if not size:
            raise DataError(f"the part '{name}' is empty", where="data.mixture", hint="Take it out, or give it rows.")
    shares = {part.name: part.share for part in mixture.learned}
    rates = {name: shares[name] or size ** (1 / mixture.temperature) for name, size in sizes.items()}
    total = mixture.rows or sum(sizes.values())
    due = {name: total * rate / sum(rates.values()) for name, rate in rates.items()}
    found = {name: int(exact + 1e-9) for name, exact in due.items()}
    # What rounding down left over goes to the largest remainders.
    for name in sorted(due, key=lambda name: (found[name] - due[name], name))[: total - sum(found.values())]:
        found[name] += 1
    for name, count in found.items():
        if not count:
            hint = "Raise `rows` or the temperature, or take the part out."
            raise DataError(f"of {total} rows none would be of the part '{name}'", where="data.mixture", hint=hint)
    return found


def blend(mixture: Mixture, readings: Sequence[Reading], seed: int) -> Blend:
    """The parts as one set: capped, freed of each other's test rows, dressed, mixed by their shares.

    Args:
        readings: every part, in order; a held-out one has the rows that are tested under "test", and examples under "train".

    Raises:
        DataError: a part is empty, parts cannot be learned side by side, or a template does not fit its rows.
    """
    readings, leaks, notes = _apart([_capped(one, seed) for one in readings])
    tables = [_Table(one, _ready(one, seed)) for one in readings]
    learned = {table.name: table for table in tables if not table.part.held_out}
    wanted = counts(mixture, {name: len(table.units) for name, table in learned.items()})
    train = [table.drawn(wanted[table.name], seed) for table in learned.values()]
    measured = {
        split: [table.measured(split) for table in tables if split == "test" or not table.part.held_out]
        for split in ("validation", "test")
    }
    splits = {"train": in_turn(train), **{split: in_turn(parts) for split, parts in measured.items()}}
    _check_shapes(splits)
    ledger = Ledger(tuple(drop for one in readings for drop in one.ledger) + tuple(leaks))
    return Blend(splits, ledger, _findings(tables, splits, ledger, wanted, notes))


class _Table:
    """One part with its dressing, and what it can give."""

    def __init__(self, reading: Reading, dressing: Dressing | None) -> None:
        self.reading, self.dressing = reading, dressing
        self.part, self.name = reading.part, reading.part.name
        rows: Sequence[Row] = [] if self.part.held_out else reading.splits["train"]
        self.units: list[tuple[Row, int | None]] = dressing.training(rows) if dressing else [(row, None) for row in rows]

    def drawn(self, count: int, seed: int) -> list[Row]:
        """So many training rows: each as often as any other, but for one."""
        order = sorted(self.units, key=lambda unit: derive(seed, "mixture", self.name, unit[0].key(), unit[1] or 0))
        found = []
        for place in range(count):
            copy, index = divmod(place, len(order))
            row, number = order[index]
            found.append(self.dressing.one(row, wording=number, copy=copy) if self.dressing else row)
        return [of_task(row, self.name) for row in found]

    def measured(self, split: str) -> list[Row]:
        """The rows of a split that is only measured."""
        return [of_task(row, self.name) for row in dressed(self.reading.splits[split], self.dressing, learned=False)]


def in_turn(parts: Sequence[Sequence[Row]]) -> list[Row]:
    """One row of each part after the other, so that the first rows, which are looked at more closely, are of all parts."""
    return [row for rows in itertools.zip_longest(*parts) for row in rows if row is not None]


def telling(rows: Sequence[Row]) -> Row:
    """The row that says what is learned: the first one that is more than plain text, where there is one."""
    return next((row for row in rows if not isinstance(row, TextRow)), rows[0])


def _ready(reading: Reading, seed: int) -> Dressing | None:
    if reading.part.template is None:
        return None
    every = [row for rows in reading.splits.values() for row in rows]
    return Dressing(reading.part.template, every, reading.splits["train"], seed)


def _capped(reading: Reading, seed: int) -> Reading:
    """No more rows than the part may have, drawn by their content."""
    part, split = reading.part, "test" if reading.part.held_out else "train"
    rows = reading.splits[split]
    if not rows:
        kind = "test rows" if part.held_out else "training rows"
        raise DataError(
            f"the part '{part.name}' is empty: it has no {kind}", where=str(part.train), hint="Take it out of the mixture."
        )
    if part.max_rows is None or len(rows) <= part.max_rows:
        return reading
    chosen = set(sorted(range(len(rows)), key=lambda place: derive(seed, "cap", part.name, rows[place].key()))[: part.max_rows])
    kept = [row for place, row in enumerate(rows) if place in chosen]
    return reading._replace(splits={**reading.splits, split: kept})


def _apart(readings: Sequence[Reading]) -> tuple[list[Reading], list[Drop], list[str]]:
    """The parts without training rows that stand, question and answer, in the test of another part.

    An input alone that stands in both is another task on the same text, which is what some mixtures are made of: it is said.
    """
    tested = [{(folded(row.input_text()), row.target_text().casefold()): row for row in one.splits["test"]} for one in readings]
    inputs = [{text for text, _ in rows} for rows in tested]
    drops, found = [], []
    shared: dict[tuple[str, str], int] = {}
    for place, one in enumerate(readings):
        kept, others = [], [other for other in range(len(readings)) if other != place]
        for row in one.splits["train"]:
            text, answer = folded(row.input_text()), row.target_text().casefold()
            leak = next((other for other in others if (text, answer) in tested[other]), None)
            if leak is not None:
                problem = f"also stands in the test of '{readings[leak].part.name}' ({tested[leak][text, answer].where})"
                drops.append(Drop(row.where, LEAK, problem, "train"))
                continue
            kept.append(row)
            for other in [other for other in others if text in inputs[other]][:1]:
                pair = (one.part.name, readings[other].part.name)
                shared[pair] = shared.get(pair, 0) + 1
        if one.splits["train"] and not kept:
            raise DataError(
                f"the part '{one.part.name}' is empty: all its training rows stand in the tests of other parts",
                where=str(one.part.train),
                hint="The same file serves two parts; take one of them out.",
            )
        found.append(one._replace(splits={**one.splits, "train": kept}))
    notes = [
        f"{count} training rows of '{name}' have an input that stands in the test of '{other}', with another answer"
        for (name, other), count in shared.items()
    ]
    return found, drops, notes


def _check_shapes(splits: Mapping[str, Sequence[Row]]) -> None:
    kinds: dict[str, Row] = {}
    for row in itertools.chain.from_iterable(splits.values()):
        kinds.setdefault(row.shape, row)
    if len(kinds) > 1 and not set(kinds) <= TOGETHER:
        (one, row), (other, second) = list(kinds.items())[:2]
        names = row.metadata["task"], second.metadata["task"]
        problem = f"rows of shape '{one}' ('{names[0]}') and of shape '{other}' ('{names[1]}') cannot be learned together"
        raise DataError(problem, where="data.mixture", hint="Give each part a `template`: then all are prompts.")


def _findings(
    tables: Sequence[_Table], splits: Mapping[str, list[Row]], ledger: Ledger, wanted: Mapping[str, int], notes: Sequence[str]
) -> Findings:
    findings = {table.name: table.reading.findings for table in tables}
    parts = {table.name: _facts(table, wanted, splits) for table in tables}
    said = [_sentence(name, facts) for name, facts in parts.items()]
    return Findings(
        shape=telling(splits["train"]).shape,
        why=f"a mixture of {len(tables)} parts ({', '.join(findings)})",
        read={f"{name} {role}": count for name, one in findings.items() for role, count in one.read.items()},
        kept={split: len(rows) for split, rows in splits.items()},
        dropped=ledger.by_kind(),
        found=_together(one.found for one in findings.values()),
        lengths=lengths(splits),
        notes=[*said, *notes, *(f"{name}: {note}" for name, one in findings.items() for note in one.notes)],
        parts=parts,
    )


def _facts(table: _Table, wanted: Mapping[str, int], splits: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """What is known about one part, as JSON values."""
    here = {split: sum(row.metadata["task"] == table.name for row in rows) for split, rows in splits.items()}
    drawn = wanted.get(table.name, 0)
    dressing = table.dressing
    return {
        "held_out": table.part.held_out,
        "template": dressing.prompting.name if dressing else None,
        "wordings": len(dressing.template.wordings) if dressing else 0,
        "shots": dressing.prompting.shots if dressing else 0,
        "has": len(table.units),
        "share": drawn / sum(wanted.values()),
        "repeated": max(0, drawn - len(table.units)),
        "left_out": max(0, len(table.units) - drawn),
        **here,
    }


def _sentence(name: str, facts: Mapping[str, Any]) -> str:
    if facts["held_out"]:
        return f"'{name}' is held out: never trained on, {facts['test']:,} test rows"
    more = (
        f", {facts['repeated']:,} of them repeated (no row more than {-(-facts['train'] // facts['has'])} times)"
        if facts["repeated"]
        else ""
    )
    less = f", {facts['left_out']:,} of its {facts['has']:,} left out" if facts["left_out"] else ""
    share = share_text(facts["share"], 1)
    return f"'{name}' gives {facts['train']:,} training rows, {share} of the mixture{more}{less}"


def _together(found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the filters found in all parts."""
    result: dict[str, Any] = {}
    for name, facts in itertools.chain.from_iterable(one.items() for one in found):
        known = result.setdefault(name, {"found": 0, "dropped": 0, "examples": []})
        for key in ("found", "dropped"):
            known[key] += facts[key]
        known["examples"] = [*known["examples"], *facts["examples"]][:EXAMPLES]
    return result
