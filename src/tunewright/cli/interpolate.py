"""`interpolate`: a tuned model at a part of what it was tuned by, measured or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunewright.core.narrator import Narrator
    from tunewright.data.rows import Row
    from tunewright.run.interpolating import Between, Point


@dataclass
class Measuring:
    """What is measured on the rows of every file."""

    metrics: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Names of metrics (repeat the flag for several); the objective's own when not given."""
    written: int = 200
    """Rows of each file for which an answer is written out; the loss is measured on all."""


def interpolate(
    run: str,
    *,
    at: Annotated[list[float], Parameter(negative=())],
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    evaluate: Annotated[list[str] | None, Parameter(negative=())] = None,
    measuring: Annotated[Measuring | None, Parameter(name="*")] = None,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> Outcome:
    """Put a tuned model between its base and itself (WiSE-FT): measure it at several places, or write it at one.

    Args:
        run: a run, an adapter folder, or a merged model.
        at: the part of the change, from 0 (the base) to 1 (as tuned); repeat the flag for several.
        out: a folder to write the model or adapter to; for one place.
        evaluate: a file of rows to measure on; repeat the flag for rows of other kinds.
        measuring: what is measured.
        force: also when the base has changed since.
    """
    files, measuring = list(evaluate or ()), measuring or Measuring()
    _refuse(at, out, files, measuring.metrics)
    from tunewright.data.reading import read_rows
    from tunewright.models.sources import resolve

    resolve(run)
    for data in files:
        read_rows(data)  # what is wrong with a file is said before anything heavy loads
    with narrator() as told:
        from tunewright.run.interpolating import between

        found = between(run, told, force=force)
        points = _measured(found, at, _rows(found, files), measuring, told) if files else []
        kept = None
        if out is not None:
            told.stage("Write, read back and compare")
            kept = found.write(out, at[0])
    values = [
        {
            "at": point.factor,
            "data": point.data,
            "measures": [one.model_dump(mode="json", exclude={"base", "difference"}) for one in point.measures],
        }
        for point in points
    ]
    folder = None if kept is None else {"folder": str(kept.folder), "kind": kept.kind, "at": kept.factor}
    return Outcome({"run": run, "points": values, "written": folder}, _shown(points, folder))


def _refuse(at: Sequence[float], out: Path | None, files: Sequence[str], names: Sequence[str]) -> None:
    """Say what cannot be done before anything is read."""
    from tunewright.core.errors import ConfigurationError, RunFolderError, UnknownNameError
    from tunewright.metrics import room

    for factor in at:
        if not 0 <= factor <= 1:
            hint = "Beyond the ends: `tunewright combine RUN --weights=1.5`."
            raise ConfigurationError(f"should be between 0 (the base) and 1 (as tuned), got {factor:g}", where="--at", hint=hint)
    if out is None and not files:
        hint = "Give --evaluate FILE to measure, or -o FOLDER to write."
        raise ConfigurationError("there is nothing to do with it", where="interpolate", hint=hint)
    if out is not None and len(at) != 1:
        raise ConfigurationError(
            f"one model is written, and {len(at)} places are given", where="--at", hint="Give the one to write."
        )
    if out is not None and (out.exists() or out.is_symlink()):
        raise RunFolderError("exists already; nothing is ever overwritten", where=str(out), hint="Choose another folder.")
    for name in names:
        if name not in room.names():
            raise UnknownNameError(f"there is no metric '{name}'", where="--metrics", allowed=room.names(), given=name)


def _rows(found: Between, files: Sequence[str]) -> dict[str, Sequence[Row]]:
    """The rows of every file, of a kind that the model answers."""
    from tunewright.cli.evaluate import suit
    from tunewright.data.reading import read_like

    rows: dict[str, Sequence[Row]] = {}
    for data in files:
        loaded = read_like(data, found.opened.settings)
        suit(found.opened, loaded, data)
        rows[data] = loaded.rows
    return rows


def _measured(
    found: Between, at: Sequence[float], rows: dict[str, Sequence[Row]], measuring: Measuring, told: Narrator
) -> list[Point]:
    from tunewright.cli.asking import Drawing

    told.stage("Answer")
    points, sampling = [], Drawing().sampling(found.opened.settings)
    for point in found.measured(at, rows, measuring.metrics, sampling, measuring.written):
        told.say(f"{point.factor:g} of the change on {point.data}: {len(rows[point.data])} rows")
        points.append(point)
    return points


def _shown(points: Sequence[Point], folder: dict[str, object] | None) -> RenderableType:
    """For each file and measure one line a place; then what was written."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tunewright.evaluation.report.wording import bare_text, value_text

    body: list[RenderableType] = []
    if points:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        shown.add_column("rows")
        shown.add_column("measure")
        for title in ("at", "value", "95 % interval"):
            shown.add_column(title, justify="right", no_wrap=True)
        titles = dict.fromkeys((point.data, one.title) for point in points for one in point.measures)
        for data, title in titles:
            same = [(point.factor, one) for point in points for one in point.measures if (point.data, one.title) == (data, title)]
            for place, (factor, one) in enumerate(same):
                ends = f"{bare_text(one.tuned.low, one.percent)} to {bare_text(one.tuned.high, one.percent)}"
                value = Text(value_text(one.tuned.value, one.percent), style="bold")
                names = (Text(data, style="dim"), Text(title)) if place == 0 else (Text(), Text())
                shown.add_row(*names, f"{factor:g}", value, ends)
        body.append(shown)
    if folder is not None:
        what = f"   {folder['kind']} at {folder['at']:g}"
        body.append(Text.assemble(("written  ", "dim"), (str(folder["folder"]), "bold"), (what, "dim")))
    return Group(*body)
