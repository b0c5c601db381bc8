"""Reading data: from what a user names to rows that are checked, cleaned and split, and what was found on the way.

`read` is the whole of it for a run, `read_rows` for one file that is only measured with. Nothing here needs a model: whatever the
data alone can tell is told before one is loaded. (Rows longer than a base can take are found later, when tokens exist.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, model_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, DataError, listed
from tunewright.data.cleaning import Action, Cleaned, Pool, check_actions, clean
from tunewright.data.ledger import Findings, Ledger, labels, lengths, remarks
from tunewright.data.rows import LabelRow, Row
from tunewright.data.shapes import room as shapes
from tunewright.data.shapes._records import Settings, Table, read_table
from tunewright.data.sources import source_for
from tunewright.data.splitting import split

Place = Path | str


class DataConfig(Strict):
    """What to learn from, and how to read it.

    Args:
        train: a file, a folder, or a data set on the hub ("owner/name"). A folder or data set with splits brings its own.
        validation: rows that decide when training stops; split off `train` when not given.
        test: rows that are measured once, at the end; split off `train` when not given.
        shape: what the columns mean, where detection is wrong ("chat", "prompt_completion", ...).
        columns: names of columns in the file and the fields that they are (`{question: prompt}`).
        delimiter: what separates columns in .csv and .tsv files, where it is neither a comma nor a tab.
        group: a column; rows with the same value in it stay on one side of a split (a patient, a user, a document).
        validation_share: how much of `train` becomes validation.
        test_share: how much of `train` becomes test.
        bad_rows_limit: the share of unusable rows in a file from which on nothing is done at all.
        near_duplicates: from which similarity of inputs rows count as near duplicates; 0 looks for equal inputs only.
        cleaning: what to do about a filter's finds, `{near_duplicates: drop}`; each filter has its own default.
    """

    train: Place
    validation: Place | None = None
    test: Place | None = None
    shape: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    delimiter: str | None = None
    group: str | None = None
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    test_share: float = Field(default=0.1, ge=0, lt=1)
    bad_rows_limit: float = Field(default=0.05, ge=0, le=1)
    near_duplicates: float = Field(default=0.9, ge=0, le=1)
    cleaning: dict[str, Action] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        check_actions(self.cleaning)
        if self.shape is not None and self.shape not in shapes.names():
            raise ConfigurationError(f"there is no shape '{self.shape}'", where="shape", allowed=shapes.names(), given=self.shape)
        return self


@dataclass(frozen=True)
class Dataset:
    """Rows ready for use, in three splits, and what was found out about them."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    shape: str
    ledger: Ledger
    findings: Findings

    def splits(self) -> dict[str, list[Row]]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def sentence(self) -> str:
        """What was read, as one line."""
        kept = ", ".join(f"{len(rows)} {name}" for name, rows in self.splits().items())
        dropped = f", {len(self.ledger)} rows dropped" if len(self.ledger) else ""
        return f"{sum(self.findings.read.values())} rows of shape {self.shape}{dropped}: {kept}"


class Loaded(NamedTuple):
    """The rows of one file, and what was found out about them."""

    rows: list[Row]
    ledger: Ledger
    findings: Findings


def read(config: DataConfig, seed: int) -> Dataset:
    """Read, check, clean and split the data of a run.

    Args:
        config: what to read and how.
        seed: the run's seed; equal seeds give equal splits.

    Raises:
        DataError: the data cannot be used; the message names file and line.
        ConfigurationError: a shape, column or filter that is not there was named.
    """
    tables = _tables(config)
    pool = Pool(
        tuple(row for table in tables.values() for row in table.rows),
        tuple(role for role, table in tables.items() for _ in table.rows),
        config.near_duplicates,
    )
    cleaned = clean(pool, config.cleaning)
    splits = _splits(cleaned, config, seed)
    _check_labels(splits)
    ledger, findings = _account(tables, cleaned, splits)
    notes = findings.notes + _split_notes(cleaned.pool, splits, [role for role in splits if role not in tables])
    return Dataset(**splits, shape=findings.shape, ledger=ledger, findings=replace(findings, notes=notes))


def read_rows(place: Place, shape: str | None = None, columns: Mapping[str, str] | None = None) -> Loaded:
    """Read and check one file, without splitting it: for measuring. Duplicates are reported and kept.

    Raises:
        DataError: the data cannot be used; the message names file and line.
        ConfigurationError: a shape or column that is not there was named.
    """
    table = read_table([place], "test", Settings(shape, columns or {}))
    cleaned = clean(Pool(tuple(table.rows), ("test",) * len(table.rows)), {})
    ledger, findings = _account({"test": table}, cleaned, {"test": list(cleaned.pool.rows)})
    return Loaded(list(cleaned.pool.rows), ledger, findings)


def _tables(config: DataConfig) -> dict[str, Table]:
    """The file of each split that the user has, read. Splits that stand beside `train` are used unless named otherwise."""
    source, path = source_for(config.train)
    beside = source.splits(path)
    places: dict[str, Sequence[Place]] = {"train": beside.get("train", [config.train])}
    for role, named, share in (
        ("validation", config.validation, config.validation_share),
        ("test", config.test, config.test_share),
    ):
        if named is not None:
            places[role] = _one_split(named, role)
        elif role in beside and share:
            places[role] = beside[role]
    settings = Settings(config.shape, config.columns, config.delimiter, config.group, config.bad_rows_limit)
    tables = {"train": read_table(places["train"], "train", settings)}
    # The other files are read as what the training file was found to be: a model learns one shape.
    settings = settings._replace(shape=tables["train"].shape.name)
    return tables | {role: read_table(files, role, settings) for role, files in places.items() if role != "train"}


def _one_split(place: Place, role: str) -> Sequence[Place]:
    source, path = source_for(place)
    beside = source.splits(path)
    if not beside:
        return [place]
    if role not in beside:
        raise DataError(f"has no {role} split", where=str(place), allowed=sorted(beside), hint="Name the file itself.")
    return beside[role]


def _splits(cleaned: Cleaned, config: DataConfig, seed: int) -> dict[str, list[Row]]:
    pool = cleaned.pool
    given = set(pool.roles)
    result: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for role, row in zip(pool.roles, pool.rows, strict=True):
        result[role].append(row)
    if not result["train"]:
        raise DataError("no row is left to train on", where=str(config.train), hint="The ledger of dropped rows says why.")
    wanted = {"validation": config.validation_share, "test": config.test_share}
    missing = {role: share for role, share in wanted.items() if role not in given}
    training = pool.without({index for index, role in enumerate(pool.roles) if role != "train"})
    try:
        return result | split(training, missing, seed)
    except DataError as error:
        # Few rows are left, most often, because most were the same row.
        counts = ", ".join(f"{count} x {kind}" for kind, count in Ledger(tuple(cleaned.drops)).counts().items())
        hint = f"{error.hint} Dropped before: {counts}." if counts else error.hint
        raise DataError(error.problem, where=error.where, hint=hint) from None


def _check_labels(splits: Mapping[str, Sequence[Row]]) -> None:
    train = [row for row in splits["train"] if isinstance(row, LabelRow)]
    if not train:
        return
    known = {row.label for row in train}
    everywhere = {row.label for rows in splits.values() for row in rows if isinstance(row, LabelRow)}
    if len(everywhere) == 1:
        hint = "Classification needs two. Is the right column read as the label?"
        raise DataError(f"every row has the same label, '{train[0].label}'", where=train[0].where.rsplit(":", 1)[0], hint=hint)
    for name in ("validation", "test"):
        strange = [row for row in splits[name] if isinstance(row, LabelRow) and row.label not in known]
        if strange:
            unseen = sorted({row.label for row in strange})
            problem = f"{len(strange)} {name} rows have a label that no training row has: {listed(unseen, 5)}"
            hint = "Add training rows with it, or take these rows out."
            raise DataError(problem, where=strange[0].where, allowed=sorted(known), given=strange[0].label, hint=hint)


def _account(tables: Mapping[str, Table], cleaned: Cleaned, splits: Mapping[str, list[Row]]) -> tuple[Ledger, Findings]:
    shape = next(iter(tables.values())).shape
    ledger = Ledger(tuple(drop for table in tables.values() for drop in table.drops) + tuple(cleaned.drops))
    notes = list(dict.fromkeys(note for table in tables.values() for note in table.notes))
    if shape.also:
        notes.append(f"the columns also fit: {', '.join(shape.also)} (choose with `--data.shape`)")
    findings = Findings(
        shape=shape.name,
        why=shape.why,
        read={role: len(table.rows) + len(table.drops) for role, table in tables.items()},
        kept={name: len(rows) for name, rows in splits.items()},
        dropped=ledger.by_kind(),
        found=cleaned.found,
        labels=labels(splits),
        lengths=lengths(splits),
        notes=notes + remarks(cleaned.pool.rows),
    )
    return ledger, findings


def _split_notes(pool: Pool, splits: Mapping[str, Sequence[Row]], made: Sequence[str]) -> list[str]:
    notes = []
    if made:
        notes.append(f"split off the training rows: {', '.join(f'{role} ({len(splits[role])} rows)' for role in made)}")
    if pool.instructions:
        text = min(pool.instructions)
        notes.append(f"many rows share one input ('{text[:60]}'): they are told apart by their answers")
    groups = {name: {row.group for row in rows if row.group is not None} for name, rows in splits.items()}
    for name in ("validation", "test"):
        both = groups["train"] & groups[name]
        if both:
            notes.append(f"{len(both)} groups stand in both train and {name}, for example '{min(both)}': the files given overlap")
    rare = [label for label, count in labels(splits).get("train", {}).items() if count == 1]
    if rare:
        notes.append(f"{len(rare)} labels have one training row only: {listed(rare, 5)}")
    return notes
