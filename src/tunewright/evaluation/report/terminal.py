"""The before-and-after table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewright.evaluation.report.schema import Measure, Report
from tunewright.evaluation.report.verdict import outcome_of
from tunewright.evaluation.report.wording import bare_text, p_text, signed, value_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_COLOURS = {"better": "green", "worse": "red", "unclear": "yellow", "unmeasured": "dim"}


def render_terminal(report: Report) -> RenderableType:
    """The verdict and the table of measures, to be printed with `rich`."""
    from rich.console import Group
    from rich.text import Text

    verdict = report.verdict
    parts: list[RenderableType] = [Text(verdict.headline, style=f"bold {_COLOURS[verdict.outcome]}")]
    parts += [Text(sentence, style="dim" if place else "") for place, sentence in enumerate(verdict.sentences)]
    parts += [Text(f"! {warning}", style="yellow") for warning in report.warnings]
    if report.measures:
        parts += [Text(), measures_table(report.measures)]
    return Group(*parts)


def measures_table(measures: tuple[Measure, ...]) -> RenderableType:
    """One line a measure: before, after, and the difference with its interval and p."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("measure")
    for title in ("rows", "before", "after", "difference", "95 % interval", "p"):
        table.add_column(title, justify="right", no_wrap=True)
    for measure in measures:
        title = measure.title if measure.split == "test" else f"{measure.title} ({measure.split})"
        table.add_row(Text(title), Text(f"{measure.tuned.count:,}", style="dim"), *_numbers(measure))
    return table


def _numbers(measure: Measure) -> list[Text]:
    from rich.text import Text

    before = "-" if measure.base is None else value_text(measure.base.value, measure.percent)
    after = value_text(measure.tuned.value, measure.percent)
    found = measure.difference
    if found is None:
        ends = f"{bare_text(measure.tuned.low, measure.percent)} to {bare_text(measure.tuned.high, measure.percent)}"
        return [Text(before), Text(after, style="bold"), Text("-"), Text(ends), Text("-")]
    ends = f"{signed(found.low, measure.percent)} to {signed(found.high, measure.percent)}"
    colour = _COLOURS[outcome_of(measure)]
    change = Text(signed(found.value, measure.percent), style=f"bold {colour}")
    return [
        Text(before),
        Text(after, style="bold"),
        change,
        Text(ends),
        Text(p_text(found.p).removeprefix("p ").removeprefix("= ")),
    ]
