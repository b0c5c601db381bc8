"""The report as one self-contained HTML page: no script, no network, light and dark, printable."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tunewright.core.units import bytes_text, count_text, seconds_text, share_text
from tunewright.evaluation.report import charts
from tunewright.evaluation.report.schema import ConfusionTables, Data, Measure, Report, Rows
from tunewright.evaluation.report.verdict import outcome_of
from tunewright.evaluation.report.wording import bare_text, p_text, plain, points, signed, value_text

FEW_LABELS = 12  # a confusion matrix of up to this many labels is readable as a table
LISTED_LABELS = 24  # a label distribution of up to this many is a list of bars
MOST_MAPPED = 200


def render_html(report: Report) -> str:
    """The page of a report. Everything that came from rows, files or settings is escaped."""
    style = Markup(environment().get_template("style.css.jinja").render())
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            style=style,
            style_hash=digest,
            created=created_text(report.created),
            groups=_measure_groups(report.measures),
            curves=_curve_figures(report),
            confusion=_confusion(report.confusion) if report.confusion else None,
            labels=_labels(report.data),
            scatter=charts.scatter_plot(report.rows.scatter) if report.rows.scatter else None,
            rows=_row_groups(report.rows),
            settings=flat(report.settings.values),
        )
    )


@cache
def environment() -> Environment:
    """The templates beside this file, with the filters that write numbers."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name is not None and ".html." in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "value": value_text, "bare": bare_text, "signed": signed, "p": p_text, "plain": plain, "points": points,
        "bytes": bytes_text, "seconds": seconds_text, "count": count_text, "thousands": lambda number: f"{number:,}",
    }  # fmt: skip
    made.globals |= {"bar": charts.bar, "share": share_text, "outcome_of": outcome_of}
    return made


def created_text(created: str) -> str:
    """A date as people write it; what does not parse is shown as it is."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M}"


class MeasureGroup(NamedTuple):
    """The measures of one role with their interval plots."""

    title: str
    note: str
    entries: list[tuple[Measure, Markup]]


GROUPS = (
    (
        "task",
        "Before and after",
        "Dots are measured values, grey before and blue after; whiskers their 95 % intervals.",
    ),
    (
        "part",
        "Task by task",
        "The same two models on the rows of each task alone. What is held out was never trained on: it shows what carries over.",
    ),
    ("retention", "What it might have forgotten", "What was not to change: the same two models outside the task."),
)


def _measure_groups(measures: Iterable[Measure]) -> list[MeasureGroup]:
    groups = []
    for role, title, note in GROUPS:
        chosen = [measure for measure in measures if measure.role == role]
        if chosen:
            groups.append(MeasureGroup(title, note, _with_plots(chosen)))
    return groups


def _with_plots(measures: list[Measure]) -> list[tuple[Measure, Markup]]:
    """Shares have one range in common, with the axis under the last of them; every other unit has its own."""
    shares = [measure for measure in measures if measure.percent]
    entries = []
    for place, measure in enumerate(measures):
        ends = charts.plot_range(shares if measure.percent else [measure])
        last = not measure.percent or place + 1 == len(measures) or not measures[place + 1].percent
        entries.append((measure, charts.interval_plot(measure, ends, with_axis=last)))
    return entries


class CurveFigure(NamedTuple):
    """One chart with its title and its legend (class and name of each line)."""

    title: str
    chart: Markup
    legend: list[tuple[str, str]]


def _curve_figures(report: Report) -> dict[str, list[CurveFigure]]:
    curves = report.curves
    losses = [one for one in curves.validation if not one.percent and not one.higher_is_better]
    others = [one for one in curves.validation if one.percent or one.higher_is_better]
    loss = [charts.Line(curves.train_loss, "base"), *(charts.Line(one, "tuned") for one in losses)]
    main = [_figure("Loss", loss, curves.kept_step)]
    main += [_figure(one.title, [charts.Line(one, "tuned")], curves.kept_step) for one in (*others, *curves.measured)]
    folded = [_figure(one.title, [charts.Line(one, "third")], None) for one in (curves.learning_rate, curves.gradient_norm)]
    return {"main": [one for one in main if one.chart], "folded": [one for one in folded if one.chart]}


def _figure(title: str, lines: list[charts.Line], kept_step: int | None) -> CurveFigure:
    shown = [line for line in lines if line.series.points()]
    words = "; ".join(_described(line) for line in shown)
    legend = [(line.colour, line.series.title) for line in shown] if len(shown) > 1 else []
    return CurveFigure(title, charts.line_chart(lines, f"{title} by step. {words}", kept_step), legend)


def _described(line: charts.Line) -> str:
    seen = line.series.points()
    first, last = (value_text(value, line.series.percent) for _, value in (seen[0], seen[-1]))
    return f"{line.series.title}: from {first} at step {seen[0][0]} to {last} at step {seen[-1][0]}"


class Mistake(NamedTuple):
    """One pair of labels that was mixed up, with its rows under both models."""

    wanted: str
    answered: str
    base: int | None
    tuned: int
    rows: int


def _confusion(tables: ConfusionTables) -> dict[str, Any]:
    both = [("Before", tables.base), ("After", tables.tuned)]
    shown = [(name, matrix) for name, matrix in both if matrix is not None]
    drawn: list[tuple[str, Any]] = []
    if len(tables.labels) <= FEW_LABELS:
        drawn = [(name, _shaded(matrix)) for name, matrix in shown]
    elif len(tables.labels) <= MOST_MAPPED:
        note = "references down, answers across; the diagonal is right"
        drawn = [(name, charts.confusion_map(matrix, tables.labels, f"Confusion {name.lower()}: {note}")) for name, matrix in shown]
    return {"labels": tables.labels, "few": len(tables.labels) <= FEW_LABELS, "tables": drawn, "top": top_mistakes(tables)}


def _shaded(matrix: tuple[tuple[int, ...], ...]) -> list[list[tuple[int, int]]]:
    return [[(count, charts.level(count, sum(counts))) for count in counts] for counts in matrix]


def top_mistakes(tables: ConfusionTables, most: int = 12) -> list[Mistake]:
    """The pairs of labels the tuned model mixes up most often."""
    found = [
        Mistake(tables.labels[row], tables.labels[column], tables.base[row][column] if tables.base else None, count, sum(counts))
        for row, counts in enumerate(tables.tuned)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return sorted(found, key=lambda one: (-one.tuned, one.wanted, one.answered))[:most]


def _labels(data: Data) -> dict[str, Any] | None:
    """The label distribution: bars for the largest split, strokes for the others."""
    counted = {split: counts for split, counts in data.labels.items() if counts}
    if not counted:
        return None
    main = max(counted, key=lambda split: sum(counted[split].values()))
    splits = [main, *(split for split in counted if split != main)]
    totals = {split: sum(counted[split].values()) for split in splits}
    names = sorted({label for counts in counted.values() for label in counts}, key=lambda label: -counted[main].get(label, 0))
    shares = {label: [counted[split].get(label, 0) / max(totals[split], 1) for split in splits] for label in names}
    top = max(max(row) for row in shares.values()) or 1.0
    entries = [
        (label, charts.bar(row[0] / top, marks=[one / top for one in row[1:3]]), [counted[split].get(label, 0) for split in splits])
        for label, row in ((label, shares[label]) for label in names)
    ]
    many = len(names) > LISTED_LABELS
    described = f"Rows of each of {len(names)} labels in the {main} rows, most frequent first"
    chart = charts.columns({label: counted[main].get(label, 0) for label in names}, described) if many else None
    sizes = sorted(counted[main].get(label, 0) for label in names)
    spread = (sizes[0], sizes[len(sizes) // 2], sizes[-1])
    return {"main": main, "splits": splits, "entries": entries, "chart": chart, "spread": spread}


def _row_groups(rows: Rows) -> list[tuple[str, tuple[Any, ...]]]:
    named = [("Where it does worst", rows.worst), ("Where it does best", rows.best)]
    return [(title, shown) for title, shown in named if shown]


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted keys and their values as text."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            lines += flat(value, f"{name}.")
        else:
            lines.append((name, setting_text(value)))
    return lines


def setting_text(value: Any) -> str:
    """A setting as a run file would hold it."""
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(one) for one in value) or "[]"
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if value is None or isinstance(value, bool)
        else str(value)
    )
