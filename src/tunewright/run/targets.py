"""What a run would learn, as far as the data and a tokenizer can tell: objective, labels, tokens. Loads no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunewright.core.errors import BaseModelError, ConfigurationError, DataError
from tunewright.core.units import share_text
from tunewright.data.reading import Dataset
from tunewright.data.rendering import REASONS, Refusal, Rendered, Renderer
from tunewright.data.rendering.audit import TargetCounts, audit, count
from tunewright.data.rows import LabelRow, Row
from tunewright.objectives import Objective
from tunewright.objectives.classification import Classification
from tunewright.objectives.sft import SFT

if TYPE_CHECKING:
    from tunewright.finetune import Run


class Planted(NamedTuple):
    """Rows as trees (or why not), what is counted in them, and one line about it."""

    entries: list[Rendered | Refusal]
    counts: TargetCounts
    sentence: str


def objective_for(run: Run, dataset: Dataset) -> Objective:
    """What was asked for, or what the rows suggest. Raises `DataError` where the rows cannot serve it."""
    labelled = bool(dataset.train) and isinstance(dataset.train[0], LabelRow)
    objective = run.objective or (Classification() if labelled else SFT())
    if dataset.train and not isinstance(dataset.train[0], objective.rows):
        shapes = [kind.shape for kind in objective.rows]
        raise DataError(
            f"rows of shape '{dataset.shape}' cannot serve this objective", where="objective", allowed=shapes, given=dataset.shape
        )
    if run.training.monitor != "loss" and dataset.validation and not any(row.target_text() for row in dataset.validation):
        problem = f"'{run.training.monitor}' compares answers, and these rows have none"
        raise ConfigurationError(problem, where="training.monitor", hint="Monitor `loss`.")
    return objective


def decided(objective: Objective, kind: str, dataset: Dataset) -> Objective:
    """The objective with everything decided that the kind of base and the rows decide."""
    if not isinstance(objective, Classification):
        if kind == "encoder":
            hint = "Take a decoder or an encoder-decoder (`--base embedded`), or rows with labels."
            raise BaseModelError("an encoder reads and cannot write answers", where="base", hint=hint)
        return objective
    labels = objective.labels or labels_of(dataset)
    for row in dataset.train if objective.labels else ():
        if isinstance(row, LabelRow) and row.label not in labels:
            problem = f"the label '{row.label}' of {row.where} is not among the labels of the objective"
            raise ConfigurationError(problem, where="objective.labels", allowed=labels, given=row.label)
    return objective.resolve(kind).model_copy(update={"labels": labels})


def labels_of(dataset: Dataset) -> tuple[str, ...]:
    """The labels of the training rows, in order."""
    return tuple(sorted({row.label for row in dataset.train if isinstance(row, LabelRow)}))


def plant(objective: Objective, rows: Sequence[Row], renderer: Renderer) -> Planted:
    """Rows as what is trained on. Raises `DataError` when they would teach nothing."""
    entries = objective.plant(rows, renderer)
    # On a decoder with a new head no token is a target, so there is nothing to guard; the counts stand all the same.
    reads_only = isinstance(objective, Classification) and objective.with_head
    counts = (count if reads_only and renderer.kind != "encoder" else audit)(entries, renderer)
    if not counts.examples:
        raise DataError("no row is left to train on", hint=f"{_sentence(counts, reads_only)}.")
    return Planted(entries, counts, _sentence(counts, reads_only))


def look(run: Run, dataset: Dataset) -> tuple[Planted, Renderer]:
    """The training rows as the base's tokenizer and template render them; of the base only the small files are read."""
    from tunewright.models.facts import facts_of_folder
    from tunewright.models.loading import load_tokenizer
    from tunewright.models.sources import folder_of

    folder = folder_of(run.base)
    facts = facts_of_folder(folder)
    objective = decided(objective_for(run, dataset), facts.kind, dataset)
    tokenizer, _ = load_tokenizer(folder, facts.kind, facts.vocabulary)
    renderer = Renderer(tokenizer, facts.kind, facts.context, run.rendering.settled(dataset.train))
    return plant(objective, dataset.train, renderer), renderer


def _sentence(counts: TargetCounts, reads_only: bool) -> str:
    learned = (
        "one label a row"
        if reads_only
        else f"{counts.trained} of {counts.tokens} tokens learned ({share_text(counts.trained, counts.tokens)})"
    )
    refused = "".join(f"; {entry.rows} rows refused: {REASONS[entry.reason]}" for entry in counts.refused)
    cut = (
        f"; {counts.truncated_rows} rows truncated ({counts.answers_cut} of them lost a part of the answer)"
        if counts.truncated_rows
        else ""
    )
    return f"{counts.rows} rows, {learned}, longest {counts.length_max} tokens{cut}{refused}"
