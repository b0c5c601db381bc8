"""`evaluate`: measure a model on rows that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunewright.core.narrator import Narrator
    from tunewright.data.reading import Loaded
    from tunewright.evaluation.opening import Opened
    from tunewright.evaluation.report.schema import Measure


def evaluate(
    model: str,
    data: str,
    *,
    metrics: list[str] | None = None,
    written: int = 200,
    predictions: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> Outcome:
    """Measure a model on rows: every metric with its 95 % interval.

    Args:
        model: a run, a folder, an adapter, a hub id, or `embedded`.
        data: a file of rows with the right answers.
        metrics: names of metrics (repeat the flag for several); the objective's own when not given.
        written: rows for which an answer is written out; the loss is measured on all.
        predictions: a file to write every answer to, one JSON object a line.
        force: use an adapter although its base has changed.
    """
    from tunewright.core.errors import UnknownNameError
    from tunewright.metrics import room
    from tunewright.models.sources import resolve

    for name in metrics or ():
        if name not in room.names():
            raise UnknownNameError(f"there is no metric '{name}'", where="--metrics", allowed=room.names(), given=name)
    resolve(model)
    from tunewright.data.reading import read_rows

    read_rows(data)  # what is wrong with the file is said before anything heavy loads
    with narrator() as told:
        told.stage(f"Load {model}")
        from tunewright.evaluation.opening import open_model

        opened = open_model(model, force=force)
        told.stage("Answer")
        found, loaded = _measured(opened, data, tuple(metrics or ()), written, predictions)
        told.say(f"{len(loaded.rows)} rows, {len(loaded.ledger)} dropped")
        _warn(opened, loaded, told)
    values = [measure.model_dump(mode="json", exclude={"base", "difference"}) for measure in found]
    facts = {"model": model, "data": data, "rows": len(loaded.rows), "dropped": len(loaded.ledger), "measures": values}
    return Outcome(facts | {"predictions": None if predictions is None else str(predictions)}, table(found))


def _measured(
    opened: Opened, data: str, names: tuple[str, ...], written: int, predictions: Path | None
) -> tuple[list[Measure], Loaded]:
    from tunewright.cli.asking import Drawing
    from tunewright.core.errors import DataError
    from tunewright.data.reading import read_like
    from tunewright.evaluation.measuring import measures
    from tunewright.evaluation.predictions import write

    loaded = read_like(data, opened.settings)
    suit(opened, loaded, data)
    answers = opened.approach(Drawing().sampling(opened.settings)).answer(loaded.rows, written)
    found = measures(names or opened.objective.metrics, None, answers, loaded.rows, seed=0)
    if not found:
        raise DataError("nothing could be measured: no row has an answer to compare with", where=data)
    if predictions is not None:
        write(predictions, loaded.rows, None, answers)
    return found, loaded


def suit(opened: Opened, loaded: Loaded, data: str) -> None:
    """See that the model can answer rows of this kind; a plain language model is asked for labels in words."""
    from tunewright.core.errors import DataError
    from tunewright.data.rows import LabelRow
    from tunewright.objectives.classification import Classification

    labels = sorted({row.label for row in loaded.rows if isinstance(row, LabelRow)})
    if labels and opened.objective.writes and opened.model.kind != "encoder":
        opened.objective, opened.labels = Classification(head="words", labels=tuple(labels)), tuple(labels)
    if (loaded.rows and not isinstance(loaded.rows[0], opened.objective.rows)) or (labels and not opened.labels):
        hint = "It was tuned for rows of another shape." if opened.settings else "Tune it first: a bare encoder has no head."
        allowed = [kind.shape for kind in opened.objective.rows]
        raise DataError(
            f"rows of shape '{loaded.findings.shape}' are nothing that {opened.name} answers",
            where=data,
            allowed=allowed,
            hint=hint,
        )


def _warn(opened: Opened, loaded: Loaded, told: Narrator) -> None:
    from tunewright.core.errors import listed

    known = set(opened.labels)
    strange = sorted({label for row in loaded.rows for label in row.classes()} - known) if known else []
    if strange:
        told.warn(f"The model does not know these labels, so rows with them count as wrong: {listed(strange, 5)}")


def table(measures: Sequence[Measure]) -> RenderableType:
    """One line a measure: value, interval, rows."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from tunewright.evaluation.report.wording import bare_text, value_text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    shown.add_column("measure")
    for title in ("rows", "value", "95 % interval"):
        shown.add_column(title, justify="right", no_wrap=True)
    for one in measures:
        score = one.tuned
        ends = f"{bare_text(score.low, one.percent)} to {bare_text(score.high, one.percent)}"
        shown.add_row(
            Text(one.title),
            Text(f"{score.count:,}", style="dim"),
            Text(value_text(score.value, one.percent), style="bold"),
            Text(ends),
        )
    return shown
