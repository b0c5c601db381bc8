"""Reading data: from what a user names to rows that are checked, cleaned and split, and what was found on the way.

`read` is the whole of it for a run, `read_rows` for one file that is only measured with. Nothing here needs a model: whatever the
data alone can tell is told before one is loaded. (Rows longer than a base can take are found later, when tokens exist.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from tunewright.core.configuration import Strict, build
from tunewright.core.errors import ConfigurationError, DataError, listed
from tunewright.data.cleaning import Action, Cleaned, Pool, check_actions, clean
from tunewright.data.ledger import Findings, Ledger, labels, lengths, remarks
from tunewright.data.mixing import Mixture, Part, Reading, about, as_mixture, as_prompting, blend
from tunewright.data.pairing import Pairing, as_pairing, as_pairs
from tunewright.data.replay import Replay, as_replay, with_replay
from tunewright.data.rows import LabelsRow, PromptRow, RankingRow, Row, labels_of
from tunewright.data.shapes import room as shapes
from tunewright.data.shapes._records import Settings, Table, read_table
from tunewright.data.sources import Record, records, source_for
from tunewright.data.splitting import split
from tunewright.data.templates import load
from tunewright.data.templates.dressing import Dressing, Prompting, dressed

Place = Path | str
OF_ONE_SET = ("train", "validation", "test", "template", "shape", "columns", "delimiter", "group")
"""What says how one set is read; a mixture says it for each part."""


class DataConfig(Strict):
    """What to learn from, and how to read it.

    Args:
        train: a file, a folder, or a data set on the hub ("owner/name"). A folder or data set with splits brings its own. Not
            given where there is a mixture.
        mixture: several sets learned together: a list of parts, or a mapping with `parts`.
        template: how rows become prompts in several wordings: a name, a file, or a mapping with `name`.
        pairs: how rankings and ratings become preference pairs, once rows are split: `all`, `best_worst` or `neighbours`, or a
            mapping with `take` and `least_difference`.
        replay: general text that is learned beside, so that it is not forgotten: a file, or a mapping with `train` and `share`.
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

    train: Place | None = None
    mixture: Annotated[Mixture | None, BeforeValidator(as_mixture)] = None
    template: Annotated[Prompting | None, BeforeValidator(as_prompting)] = None
    pairs: Annotated[Pairing | None, BeforeValidator(as_pairing)] = None
    replay: Annotated[Replay | None, BeforeValidator(as_replay)] = None
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
        if self.train is None and self.mixture is None:
            raise ConfigurationError("the key 'train' is required", where="train", hint="Add it, or a `mixture`.")
        beside = [name for name in OF_ONE_SET if self.mixture is not None and getattr(self, name) not in (None, {})]
        if beside:
            hint = "Give it to the parts that it is meant for."
            raise ConfigurationError(f"'{beside[0]}' says nothing about a mixture as a whole", where=beside[0], hint=hint)
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on")
        check_actions(self.cleaning)
        if self.shape is not None and self.shape not in shapes.names():
            raise ConfigurationError(f"there is no shape '{self.shape}'", where="shape", allowed=shapes.names(), given=self.shape)
        return self

    @property
    def source(self) -> str:
        """What is read, for people: the file, or the names of the parts."""
        if self.mixture is None:
            return str(self.train)
        return f"mixture of {', '.join(part.name for part in self.mixture.parts)}"

    @property
    def name(self) -> str:
        """A short name for what is read: the file's without its suffix, or `mixture`."""
        return "mixture" if self.mixture is not None else Path(str(self.train)).stem


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
        ConfigurationError: a shape, column, template or filter that is not there was named.
    """
    if config.mixture is not None:
        found = _as_dataset(blend(config.mixture, [_part(config, part, seed) for part in config.mixture.parts], seed))
    else:
        found = _as_held(config, seed)
        found = found if config.template is None else _as_prompts(found, config.template, seed)
    if config.pairs is not None:
        found = _as_dataset(as_pairs(found.splits(), config.pairs, found.ledger, found.findings))
    return found if config.replay is None else _replayed(config, config.replay, found, seed)


def _as_held(config: DataConfig, seed: int) -> Dataset:
    """The rows as the file holds them, before a template makes prompts of them."""
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
    made = [role for role, rows in splits.items() if role not in tables and rows]
    notes = findings.notes + _split_notes(cleaned.pool, splits, made)
    return Dataset(**splits, shape=findings.shape, ledger=ledger, findings=replace(findings, notes=notes))


def _as_prompts(found: Dataset, template: Prompting, seed: int) -> Dataset:
    dressing = Dressing(template, [row for rows in found.splits().values() for row in rows], found.train, seed)
    splits = {name: dressed(rows, dressing, learned=name == "train") for name, rows in found.splits().items()}
    findings = replace(
        found.findings,
        shape=PromptRow.shape,
        why=f"rows of shape {found.shape} as prompts of the template '{template.name}'",
        kept={name: len(rows) for name, rows in splits.items()},
        lengths=lengths(splits),
    )
    return Dataset(**splits, shape=PromptRow.shape, ledger=found.ledger, findings=findings)


def _replayed(config: DataConfig, replay: Replay, found: Dataset, seed: int) -> Dataset:
    with about("the general rows of `replay`"):
        held = _as_held(build(DataConfig, _of_all_sets(config) | replay.as_set()), seed)
    return _as_dataset(with_replay(found, held, replay, seed))


def _as_dataset(found: tuple[Mapping[str, list[Row]], Ledger, Findings]) -> Dataset:
    splits, ledger, findings = found
    return Dataset(**splits, shape=findings.shape, ledger=ledger, findings=findings)


def _of_all_sets(config: DataConfig) -> dict[str, Any]:
    """The settings that hold for every set that is read, whatever it is for."""
    own = (*OF_ONE_SET, "mixture", "pairs", "replay")
    return {name: getattr(config, name) for name in DataConfig.model_fields if name not in own}


def _part(config: DataConfig, part: Part, seed: int) -> Reading:
    """One part of a mixture, read and split like a set of its own; one that is held out has test rows only, and its examples."""
    shots = part.template.shots if part.template is not None else 0
    settings = _of_all_sets(config) | {name: getattr(part, name) for name in OF_ONE_SET}
    with about(f"the part '{part.name}'"):
        apart = True
        if part.held_out:
            source, path = source_for(part.train)
            apart = bool(shots) or part.test is not None or "test" in source.splits(path)
            settings |= {"validation_share": 0.0, "test_share": config.test_share if apart else 0.0}
        found = _as_held(build(DataConfig, settings), seed)
    splits = found.splits()
    if part.held_out:
        splits = {"train": splits["train"] if shots else [], "validation": [], "test": splits["test" if apart else "train"]}
    return Reading(part, splits, found.ledger, found.findings)


def read_rows(
    place: Place,
    shape: str | None = None,
    columns: Mapping[str, str] | None = None,
    template: Prompting | None = None,
    seed: int = 0,
) -> Loaded:
    """Read and check one file, without splitting it: for measuring. Duplicates are reported and kept.

    Args:
        template: makes prompts of the rows; without examples, since there are no training rows to take them from.

    Raises:
        DataError: the data cannot be used; the message names file and line.
        ConfigurationError: a shape or column that is not there was named.
    """
    if template is not None:
        columns = _columns(template, columns or {}, place)
    table = read_table([place], "test", Settings(shape, columns or {}))
    cleaned = clean(Pool(tuple(table.rows), ("test",) * len(table.rows)), {})
    ledger, findings = _account({"test": table}, cleaned, {"test": list(cleaned.pool.rows)})
    loaded = Loaded(list(cleaned.pool.rows), ledger, findings)
    return loaded if template is None else _loaded_prompts(loaded, template, table, place, seed)


def read_like(place: Place, settings: Mapping[str, Any]) -> Loaded:
    """One file, read as a run has read its own: shape, columns, template and pairs are those of its resolved `settings`.

    Raises:
        DataError, ConfigurationError: as `read_rows`.
    """
    data = settings.get("data", {})
    template = None if data.get("template") is None else build(Prompting, data["template"], "data.template")
    found = read_rows(place, data.get("shape"), data.get("columns"), template, settings.get("seed", 0))
    if data.get("pairs") is None or not (found.rows and isinstance(found.rows[0], RankingRow)):
        return found
    pairing = build(Pairing, data["pairs"], "data.pairs")
    splits, ledger, findings = as_pairs({"test": found.rows}, pairing, found.ledger, found.findings)
    return Loaded(splits["test"], ledger, findings)


def _loaded_prompts(loaded: Loaded, template: Prompting, table: Table, place: Place, seed: int) -> Loaded:
    _takes(template, table, place)
    rows = dressed(loaded.rows, Dressing(template.model_copy(update={"shots": 0}), loaded.rows, (), seed), learned=False)
    findings = replace(loaded.findings, shape=PromptRow.shape, lengths=lengths({"test": rows}))
    if template.shots:
        findings.notes.append(f"measured without the {template.shots} examples that stood in front of every prompt in training")
    return Loaded(rows, loaded.ledger, findings)


def _tables(config: DataConfig) -> dict[str, Table]:
    """The file of each split that the user has, read. Splits that stand beside `train` are used unless named otherwise."""
    train = config.train or ""
    source, path = source_for(train)
    beside = source.splits(path)
    places: dict[str, Sequence[Place]] = {"train": beside.get("train", [train])}
    for role, named, share in (
        ("validation", config.validation, config.validation_share),
        ("test", config.test, config.test_share),
    ):
        if named is not None:
            places[role] = _one_split(named, role)
        elif role in beside and share:
            places[role] = beside[role]
    columns = (
        config.columns
        if config.template is None
        else _columns(config.template, config.columns, places["train"][0], config.delimiter)
    )
    settings = Settings(config.shape, columns, config.delimiter, config.group, config.bad_rows_limit)
    tables = {"train": read_table(places["train"], "train", settings)}
    if config.template is not None:
        _takes(config.template, tables["train"], train)
    # The other files are read as what the training file was found to be: a model learns one shape.
    settings = settings._replace(shape=tables["train"].shape.name)
    return tables | {role: read_table(files, role, settings) for role, files in places.items() if role != "train"}


def _columns(template: Prompting, given: Mapping[str, str], place: Place, delimiter: str | None = None) -> dict[str, str]:
    """The columns that are meant, where some have the names of a template's places."""
    first = next((item for item in records(place, delimiter) if isinstance(item, Record)), None)
    return load(template.name).renamed(given, list(first.value) if first else [])


def _takes(template: Prompting, table: Table, place: Place) -> None:
    accepted = load(template.name).shapes
    if table.shape.name not in accepted:
        raise DataError(
            f"rows of shape '{table.shape.name}' are nothing that the template '{template.name}' takes",
            where=str(place),
            allowed=accepted,
            hint=f"Name the columns with `columns: {{YOURS: {next(iter(load(template.name).places))}}}`, or take another template.",
        )


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
    train = [row for row in splits["train"] if row.classes()]
    if not train:
        return
    known = {label for row in train for label in labels_of(row)}
    everywhere = {label for rows in splits.values() for row in rows for label in labels_of(row)}
    # Of labels that may hold or not, one is enough.
    if len(everywhere) == 1 and not isinstance(train[0], LabelsRow):
        hint = "Classification needs two. Is the right column read as the label?"
        raise DataError(
            f"every row has the same label, '{train[0].classes()[0]}'", where=train[0].where.rsplit(":", 1)[0], hint=hint
        )
    for name in ("validation", "test"):
        strange = [row for row in splits[name] if not known.issuperset(row.classes())]
        if strange:
            unseen = sorted({label for row in strange for label in row.classes()} - known)
            problem = f"{len(strange)} {name} rows have a label that no training row has: {listed(unseen, 5)}"
            hint = "Add training rows with it, or take these rows out."
            raise DataError(problem, where=strange[0].where, allowed=sorted(known), given=unseen[0], hint=hint)


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
    parts = ", ".join(f"{role} ({len(splits[role])} rows)" for role in made)
    notes = [f"split off the training rows: {parts}"] if made else []
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
