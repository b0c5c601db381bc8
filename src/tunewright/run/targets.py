"""What a run would learn, as far as the data and a tokenizer can tell: objective, labels, tokens. Loads no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunewright.core.errors import ConfigurationError, DataError
from tunewright.core.units import share_text
from tunewright.data.mixing import telling
from tunewright.data.reading import Dataset
from tunewright.data.rendering import REASONS, Refusal, Rendered, Renderer
from tunewright.data.rendering.audit import TargetCounts, audit, count
from tunewright.data.replay import is_replayed
from tunewright.data.rows import (
    JudgedRow,
    LabelRow,
    LabelsRow,
    NumberRow,
    PreferenceRow,
    QuestionRow,
    RankingRow,
    RatingRow,
    Row,
    SoftLabelRow,
    TagsRow,
    TextRow,
)
from tunewright.evaluation.measuring import SCORED
from tunewright.objectives import Objective
from tunewright.objectives import room as objectives
from tunewright.training.aids.sense import require_sensible
from tunewright.training.settings import Training

if TYPE_CHECKING:
    from tunewright.finetune import Run

BY_ROWS: dict[type[Row], str] = {
    LabelRow: "classification",
    SoftLabelRow: "classification",
    LabelsRow: "multi_label_classification",
    NumberRow: "regression",
    TagsRow: "token_classification",
    QuestionRow: "question_answering",
    PreferenceRow: "dpo",
    JudgedRow: "kto",
    RankingRow: "reward",
    RatingRow: "reward",
    TextRow: "language_modeling",
}
"""The objective that rows suggest, where none is asked for; all others suggest `sft`."""


class Planted(NamedTuple):
    """Rows as trees (or why not), what is counted in them, and one line about it."""

    entries: list[Rendered | Refusal]
    counts: TargetCounts
    sentence: str


def objective_for(run: Run, dataset: Dataset) -> Objective:
    """What was asked for, or what the rows suggest. Raises `DataError` where the rows cannot serve it."""
    suggested = BY_ROWS.get(type(telling(dataset.train)), "sft") if dataset.train else "sft"
    objective = run.objective or objectives.make(suggested)
    if dataset.train and not isinstance(dataset.train[0], objective.rows):
        shapes = [kind.shape for kind in objective.rows]
        paired = isinstance(dataset.train[0], RankingRow) and PreferenceRow in objective.rows
        hint = "Make pairs of the answers: `data: {pairs: all}` (or best_worst, neighbours)." if paired else ""
        problem = f"rows of shape '{dataset.shape}' cannot serve this objective"
        raise DataError(problem, where="objective", allowed=shapes, given=dataset.shape, hint=hint)
    strange = next(
        (row for row in [*dataset.train, *dataset.test] if is_replayed(row) and not isinstance(row, objective.rows)), None
    )
    if strange is not None:
        problem = f"rows of shape '{strange.shape}' are replayed, and '{objectives.name_of(objective)}' cannot learn them"
        raise ConfigurationError(problem, where="data.replay", hint="Plain text is replayed beside `sft` and `language_modeling`.")
    watching(run.training, objective)
    require_sensible(run.training.aids, objective)
    compared = run.training.monitor not in ("loss", *objective.scores)
    if compared and dataset.validation and not any(row.has_answer() for row in dataset.validation):
        problem = f"'{run.training.monitor}' compares answers, and these rows have none"
        raise ConfigurationError(problem, where="training.monitor", hint="Monitor `loss`.")
    return objective


def watching(training: Training, objective: Objective) -> Training:
    """The settings with what is watched decided: the objective's own score where it has one, and nothing else was asked for.

    Raises:
        ConfigurationError: the loss, or a score, is to be watched and this objective measures none.
    """
    own = objective.scores
    if own and "monitor" not in training.model_fields_set:
        return training.model_copy(update={"monitor": own[0]})
    if (training.monitor == "loss" and own) or (training.monitor in SCORED and training.monitor not in own):
        name = objectives.name_of(objective)
        problem = f"'{name}' measures no {training.monitor} on validation rows"
        raise ConfigurationError(problem, where="training.monitor", hint=f"Monitor `{own[0] if own else 'loss'}`.")
    return training


def decided(objective: Objective, kind: str, dataset: Dataset) -> Objective:
    """The objective with everything decided that the kind of base and the rows decide."""
    return objective.decided(kind, dataset.train)


def plant(objective: Objective, rows: Sequence[Row], renderer: Renderer) -> Planted:
    """Rows as what is trained on. Raises `DataError` when they would teach nothing."""
    entries = objective.plant(rows, renderer)
    # On a decoder with a new head no token is a target, so there is nothing to guard; the counts stand all the same.
    learns = objective.learns if objective.with_head or objective.scores or objective.own_head else ""
    counts = (count if learns and renderer.kind != "encoder" else audit)(entries, renderer)
    if not counts.examples:
        raise DataError("no row is left to train on", hint=f"{_sentence(counts, learns)}.")
    return Planted(entries, counts, _sentence(counts, learns))


def look(run: Run, dataset: Dataset) -> tuple[Planted, Renderer]:
    """The training rows as the base's tokenizer and template render them; of the base only the small files are read."""
    from tunewright.models.facts import facts_of_folder
    from tunewright.models.loading import load_tokenizer
    from tunewright.models.sources import folder_of

    folder = folder_of(run.base)
    facts = facts_of_folder(folder)
    objective = decided(objective_for(run, dataset), facts.kind, dataset)
    tokenizer, _ = load_tokenizer(folder, facts.kind, facts.vocabulary)
    room = run.method.text_room(facts.context)
    renderer = Renderer(tokenizer, facts.kind, room, run.rendering.settled(dataset.train))
    return plant(objective, dataset.train, renderer), renderer


def _sentence(counts: TargetCounts, learns: str) -> str:
    learned = learns or f"{counts.trained} of {counts.tokens} tokens learned ({share_text(counts.trained, counts.tokens)})"
    windows = f" in {counts.examples} windows" if learns and counts.examples > counts.rows else ""
    refused = "".join(f"; {entry.rows} rows refused: {REASONS[entry.reason]}" for entry in counts.refused)
    cut = (
        f"; {counts.truncated_rows} rows truncated ({counts.answers_cut} of them lost a part of the answer)"
        if counts.truncated_rows
        else ""
    )
    return f"{counts.rows} rows{windows}, {learned}, longest {counts.length_max} tokens{cut}{refused}"
