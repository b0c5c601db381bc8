"""Everything a report shows, as plain data: `Report.model_dump_json()` is `report.json`, and the pages are drawn from it alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from tunewright.core.configuration import Strict
from tunewright.core.scores import Score
from tunewright.metrics.statistics.paired import Difference
from tunewright.models import Kind
from tunewright.objectives import Task

Outcome = Literal["better", "worse", "unclear", "unmeasured"]


def _named(kind: type[Any]) -> tuple[BeforeValidator, PlainSerializer]:
    """A named tuple that is written with its field names; a bare array in a JSON file explains nothing."""
    return (
        BeforeValidator(lambda value: kind(**value) if isinstance(value, dict) else value),
        PlainSerializer(lambda value: dict(zip(kind._fields, value, strict=True)), return_type=dict),
    )


def _encodable(value: object) -> object:
    """Lone surrogates, which broken files do hold, cannot be written as UTF-8; they are shown as `?`."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


UserText = Annotated[str, BeforeValidator(_encodable)]
Measured = Annotated[Score, *_named(Score)]
Compared = Annotated[Difference, *_named(Difference)]


class Verdict(Strict):
    """What tuning bought, in words. `unmeasured` means that there was nothing to compare with."""

    outcome: Outcome
    headline: str
    sentences: tuple[str, ...] = ()


Weights = Literal["peft_adapter", "own_adapter", "full_model"]


class Subject(Strict):
    """What was tuned, and how.

    Args:
        base: hub id, folder, or `embedded`.
        base_description: one line (architecture, parameters, precision).
        method: the name of the method; `method_description` one line on its settings.
        objective: the name of the objective.
        task: what the answers are ("classification", "regression", "generation", ...).
        weights: where the tuned weights lie in the run folder, and in whose format.
        kind: of the base; it decides with which of transformers' classes the weights load.
        head: whether there is a task head beside them, which is a file of ours.
        merges: whether an adapter can be put into the base's weights.
    """

    base: str
    base_description: str = ""
    method: str
    method_description: str = ""
    objective: str
    task: Task = "generation"
    weights: Weights = "peft_adapter"
    kind: Kind = "decoder"
    head: bool = False
    merges: bool = True

    @property
    def writes(self) -> bool:
        """Whether it can be asked to go on with a text: what learned hidden parts of texts cannot."""
        return self.task != "text" or self.kind == "decoder"


class Measure(Strict):
    """One metric on one set of rows, before and after. The first measure of the role `task` is the one the verdict is about.

    Args:
        metric: the name of the metric's file, or of a loss.
        title: what readers see.
        split: the rows it was measured on ("test", "validation", "general text").
        role: `task` for what was tuned for, `part` for one task of several, `retention` for what should not be lost.
        base: None when the base could not be measured.
        difference: tuned minus base on the same rows; None without a base.
        percent: the value is a share, shown as per cent, and differences as points.
    """

    metric: str
    title: str
    split: str = "test"
    role: Literal["task", "part", "retention"] = "task"
    base: Measured | None = None
    tuned: Measured
    difference: Compared | None = None
    higher_is_better: bool = True
    percent: bool = True


class Series(Strict):
    """One curve over optimizer steps; None where nothing was measured."""

    title: str
    steps: tuple[int, ...] = ()
    values: tuple[float | None, ...] = ()
    higher_is_better: bool = False
    percent: bool = False

    def points(self) -> list[tuple[int, float]]:
        """The measured points, in order of steps."""
        return sorted((step, value) for step, value in zip(self.steps, self.values, strict=True) if value is not None)


class Curves(Strict):
    """How training went. `kept_step` is the step whose weights were kept (the best on validation), where that was chosen.

    `measured` is what steps measured on their own: rewards, KL and length of the answers that a policy drew.
    """

    train_loss: Series = Series(title="Training loss")
    validation: tuple[Series, ...] = ()
    measured: tuple[Series, ...] = ()
    learning_rate: Series = Series(title="Learning rate")
    gradient_norm: Series = Series(title="Gradient norm")
    kept_step: int | None = None


class Finding(Strict):
    """Something seen in the data: what, how many rows, a few of them, and what was done about it."""

    name: str
    count: int
    examples: tuple[UserText, ...] = ()
    action: str = ""


class Lengths(Strict):
    """How long the rows of one split are, in tokens unless `unit` says otherwise."""

    shortest: float
    median: float
    percentile_95: float
    longest: float
    unit: str = "tokens"


class Data(Strict):
    """What was in the data, and what became of it.

    Args:
        source: the file or data set; `shape` is how its rows were understood ("text and label").
        read: rows in the source; `kept` those used.
        splits: the number of rows of each split, in order.
        dropped: each reason with its rows; `duplicates` and `leakage` likewise.
        labels: for each split, the number of rows of each label.
        lengths: for each split.
        notes: other findings, as sentences.
    """

    source: str = ""
    shape: str = ""
    read: int = 0
    kept: int = 0
    splits: dict[str, int] = Field(default_factory=dict)
    dropped: tuple[Finding, ...] = ()
    duplicates: tuple[Finding, ...] = ()
    leakage: tuple[Finding, ...] = ()
    labels: dict[str, dict[UserText, int]] = Field(default_factory=dict)
    lengths: dict[str, Lengths] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Targets(Strict):
    """What the loss saw: how many tokens were read, how many trained on, and in which layout.

    Args:
        rows: training rows.
        tokens: tokens of one epoch, prompts included; `trained_tokens` those that carry loss.
        rows_without_targets: rows that teach nothing (all their targets were cut away or masked).
        truncated_rows: rows that lost tokens to the length limit.
        packing_efficiency: tokens over places for tokens; 1 is no padding.
        layout: `forest` or `padded`; `layout_reason` says why.
        probe_difference: the largest difference of logits between packed and alone, that the choice rests on.
    """

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    rows_without_targets: int = 0
    truncated_rows: int = 0
    packing_efficiency: float | None = None
    layout: str = ""
    layout_reason: str = ""
    probe_difference: float | None = None

    @property
    def share(self) -> float:
        """The share of tokens that carry loss."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0


class ShownRow(Strict):
    """One row with what both models answered; `score` is the tuned answer's, by the measure `Rows.measured_by`."""

    prompt: UserText
    reference: UserText
    base_answer: UserText | None = None
    tuned_answer: UserText
    where: UserText = ""
    score: float | None = None


class LabelLine(Strict):
    """How one label was found after tuning, and its F1 before; `count` is how often it was wanted."""

    label: UserText
    count: int
    precision: float
    recall: float
    f1: float
    base_f1: float | None = None


class LabelReport(Strict):
    """Every label, type of entity or tag on a line; `unit` is what is counted ("rows", "entities", "words")."""

    unit: str
    lines: tuple[LabelLine, ...]


class Scatter(Strict):
    """True and predicted numbers of the same rows."""

    wanted: tuple[float, ...]
    answered: tuple[float, ...]


class Rows(Strict):
    """What the tuned model answers: the rows it does worst and best on, and all of them by label or as numbers, by task."""

    worst: tuple[ShownRow, ...] = ()
    best: tuple[ShownRow, ...] = ()
    measured_by: str = ""
    by_label: LabelReport | None = None
    scatter: Scatter | None = None


class ConfusionTables(Strict):
    """Rows are references, columns answers; both tables share the labels."""

    labels: tuple[UserText, ...]
    base: tuple[tuple[int, ...], ...] | None = None
    tuned: tuple[tuple[int, ...], ...]


class Settings(Strict):
    """The resolved run, and for every value that was chosen automatically (dotted key) the reason."""

    values: dict[str, Any] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)


class Environment(Strict):
    """Where and with what it ran: machine, versions of packages, hashes of data, base and code."""

    machine: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)


class Cost(Strict):
    """What it took: seconds of each stage, tokens, memory in bytes, parameters."""

    stages: dict[str, float] = Field(default_factory=dict)
    tokens: int = 0
    tokens_per_second: float | None = None
    predicted_tokens_per_second: float | None = None
    peak_memory: int | None = None
    estimated_memory: int | None = None
    trainable_parameters: int = 0
    total_parameters: int = 0

    @property
    def seconds(self) -> float:
        """All stages together."""
        return sum(self.stages.values())

    @property
    def share(self) -> float:
        """The share of parameters that were trained."""
        return self.trainable_parameters / self.total_parameters if self.total_parameters else 0.0


class Report(Strict):
    """One fine-tuning, told whole.

    Args:
        name: the run's.
        created: when, ISO 8601.
        verdict: from `verdict.judge`.
        baseline_note: what "before" means where it is not simply the base ("the majority label: the base has no head").
        warnings: sentences a reader must see before believing the numbers.
    """

    name: str
    created: str
    verdict: Verdict
    subject: Subject
    measures: tuple[Measure, ...] = ()
    baseline_note: str = ""
    curves: Curves = Curves()
    data: Data = Data()
    targets: Targets = Targets()
    rows: Rows = Rows()
    confusion: ConfusionTables | None = None
    settings: Settings = Settings()
    environment: Environment = Environment()
    cost: Cost = Cost()
    warnings: tuple[str, ...] = ()
