"""The outcome of a comparison as rows of text, as Markdown, as a plot (SVG) and as one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from tunewright.compare.methods import Compared, Comparison
from tunewright.compare.trial import Trial
from tunewright.core.storage import write_json, write_text
from tunewright.core.units import bytes_text, count_text
from tunewright.evaluation.report.scales import Scale, around, tick_text
from tunewright.evaluation.report.wording import bare_text, signed, value_text

WIDTH, ROW, LEFT, TOP = 920, 34, 190, 40
PANEL, GAP = 170, 18  # width of the narrow panels, and the space between panels


def _share_text(share: float) -> str:
    """Per cent with two digits; whole ones from 10 on, so that all is not `1e+02 %`."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"


class Column(NamedTuple):
    """One cost: its title, its value in a trial, how it is written, and whether its axis counts powers of ten."""

    title: str
    value: Callable[[Trial], float | int | None]
    text: Callable[[float], str]
    powers: bool = False


COLUMNS = (
    Column("trained", lambda trial: trial.parameters, count_text, powers=True),
    Column("share", lambda trial: trial.share, _share_text),
    Column("memory", lambda trial: trial.peak_memory, bytes_text),
    Column("s / 1k", lambda trial: trial.seconds_per_thousand, lambda value: f"{value:.3g}"),
    Column("on disk", lambda trial: trial.bytes, bytes_text),
    Column("slower", lambda trial: trial.slow_down, lambda value: f"{value:.2f}x"),
    Column("forgot", lambda trial: trial.forgetting, lambda value: signed(value, percent=False)),
)
DRAWN = ("trained", "memory", "s / 1k")


def rows_of(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The table: titles of columns, and one row a method; the best quality first, failures last."""
    entries = ranked(comparison.entries)
    known = next((trial for entry in entries for trial in entry.trials.values()), None)
    heads = ["method", f"{known.title if known is not None else 'quality'} (95 %)", *(column.title for column in COLUMNS)]
    return heads, [_cells(entry) for entry in entries]


def ranked(entries: Sequence[Compared]) -> list[Compared]:
    """The best quality first; methods of which nothing went through last."""

    def place(entry: Compared) -> float:
        if entry.quality is None:
            return math.inf
        sign = -1 if next(iter(entry.trials.values())).higher_is_better else 1
        return sign * entry.quality.value

    return sorted(entries, key=place)


def _cells(entry: Compared) -> list[str]:
    if entry.quality is None:
        return [entry.title, "failed", *[""] * len(COLUMNS)]
    percent = next(iter(entry.trials.values())).percent
    score = entry.quality
    interval = f"{bare_text(score.low, percent)} to {bare_text(score.high, percent)}"
    costs = [(column, entry.typical(column.value)) for column in COLUMNS]
    return [
        entry.title,
        f"{value_text(score.value, percent)} ({interval})",
        *("-" if value is None else column.text(value) for column, value in costs),
    ]


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, with what was compared above it and how to read it below."""
    heads, rows = rows_of(comparison)
    lines = [_about(comparison), "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", *legend(comparison)]) + "\n"


def _about(comparison: Comparison) -> str:
    asked = comparison.asked
    return f"{Path(asked.run.data.source).name} on {asked.run.base}, {asked.repeats} runs of each method."


def legend(comparison: Comparison) -> list[str]:
    """What the columns mean."""
    trials = [trial for entry in comparison.entries for trial in entry.trials.values()]
    cosine = any(trial.forgetting_kind == "cosine" for trial in trials)
    lost = (
        "one minus the cosine between the base's and the tuned model's vectors of general sentences"
        if cosine
        else "the rise of the loss per token on general text"
    )
    return [
        "Quality is the mean over the runs, each on the test rows of its own split (the same splits for every method); the "
        "interval counts the doubt about the rows and about the run. Memory is the peak of the whole process, libraries "
        "included. s / 1k is seconds of training steps alone, for 1,000 tokens of the user's rows. Slower is the time of reading "
        f"test rows with the tuning on, as a multiple of the base's. Forgot is {lost}."
    ]


def plot(comparison: Comparison) -> Markup:
    """Quality with its interval and three costs, one row a method, as SVG."""
    entries = [entry for entry in ranked(comparison.entries) if entry.quality is not None]
    if not entries:
        return Markup("")
    height = TOP + ROW * len(entries) + 30
    first = next(iter(entries[0].trials.values()))
    wide = WIDTH - LEFT - len(DRAWN) * (PANEL + GAP)
    parts = [_names(entries), _qualities(entries, first, wide)]
    for number, title in enumerate(DRAWN):
        column = next(column for column in COLUMNS if column.title == title)
        parts.append(_bars(entries, column, LEFT + wide + GAP + number * (PANEL + GAP)))
    return Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" role="img" aria-label="{a}">{body}</svg>').format(
        w=WIDTH, h=height, a=f"{first.title} and costs of {len(entries)} methods", body=_STYLE + Markup("").join(parts)
    )


_STYLE = Markup(
    "<style>text{font:13px system-ui,sans-serif;fill:#333}.head{font-weight:600}.axis{font-size:11px;fill:#777}"
    ".grid{stroke:#e4e4e4}.whisker{stroke:#2a63b0;stroke-width:2}.dot{fill:#2a63b0}.bar{fill:#b9cbe6}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{fill:#999}.grid{stroke:#333}.bar{fill:#3c5a86}"
    ".whisker{stroke:#7fb0f5}.dot{fill:#7fb0f5}}</style>"
)


def _middle(place: int) -> float:
    return TOP + ROW * place + ROW / 2


def _names(entries: Sequence[Compared]) -> Markup:
    text = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
    return Markup("").join(text.format(LEFT - 14, _middle(place) + 4, entry.title) for place, entry in enumerate(entries))


def _qualities(entries: Sequence[Compared], first: Trial, wide: float) -> Markup:
    scores = [entry.quality for entry in entries if entry.quality is not None]
    ends = around([end for score in scores for end in (score.low, score.high)], share=first.percent)
    across = Scale(*ends, LEFT, LEFT + wide)
    bottom = TOP + ROW * len(entries)
    parts = [Markup('<text class="head" x="{}" y="18">{}</text>').format(LEFT, first.title)]
    for value in across.ticks(4):
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(across(value), TOP - 6, bottom))
        label = Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>')
        parts.append(label.format(across(value), bottom + 18, tick_text(value, first.percent)))
    for place, score in enumerate(scores):
        line = Markup('<line class="whisker" x1="{}" x2="{}" y1="{y}" y2="{y}"/><circle class="dot" cx="{}" cy="{y}" r="5"/>')
        low, high = across(max(score.low, ends[0])), across(min(score.high, ends[1]))
        parts.append(line.format(low, high, across(score.value), y=_middle(place)))
    return Markup("").join(parts)


def _bars(entries: Sequence[Compared], column: Column, left: float) -> Markup:
    values = [entry.typical(column.value) for entry in entries]
    lengths = [None if value is None else math.log10(max(value, 1)) if column.powers else value for value in values]
    longest = max((length for length in lengths if length is not None), default=0) or 1
    parts = [Markup('<text class="head" x="{}" y="18">{}</text>').format(left, column.title)]
    for place, (value, length) in enumerate(zip(values, lengths, strict=True)):
        if value is not None and length is not None:
            bar = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="16" rx="2"/><text x="{}" y="{}">{}</text>')
            y, wide = _middle(place), round((PANEL - 70) * length / longest, 1)
            parts.append(bar.format(left, y - 8, wide, left + wide + 6, y + 4, column.text(value)))
    return Markup("").join(parts)


def html(comparison: Comparison) -> str:
    """One page that needs no network: plot, table, how to read it, what failed."""
    heads, rows = rows_of(comparison)
    body = Markup("<tr>{}</tr>").format(Markup("").join(Markup("<th>{}</th>").format(head) for head in heads))
    for row in rows:
        body += Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
    notes = Markup("").join(Markup("<p>{}</p>").format(line) for line in [*legend(comparison), *failures(comparison)])
    return str(Markup(_PAGE).format(title=f"Methods compared: {_about(comparison)}", plot=plot(comparison), body=body, notes=notes))


def failures(comparison: Comparison) -> list[str]:
    """A sentence for each run that did not go through."""
    return [
        f"{entry.title}, seed {seed}, failed: {reason}" for entry in comparison.entries for seed, reason in entry.failures.items()
    ]


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}}h1{{font-size:1.4rem}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.85rem;width:100%}}
th,td{{text-align:right;padding:.35rem .5rem;border-bottom:1px solid #8884}}th:first-child,td:first-child{{text-align:left}}
svg{{width:100%;height:auto;margin:1rem 0}}p{{max-width:46rem}}</style>
<h1>{title}</h1>{plot}<table>{body}</table>{notes}</html>
"""


def write(comparison: Comparison) -> dict[str, str]:
    """Write `comparison.html`, `.md`, `.svg` and `outcome.json` into the comparison's folder; their paths by kind."""
    folder = comparison.folder
    paths = {"page": folder / "comparison.html", "table": folder / "comparison.md", "plot": folder / "comparison.svg"}
    write_text(paths["page"], html(comparison))
    write_text(paths["table"], markdown(comparison))
    write_text(paths["plot"], str(plot(comparison)))
    write_json(folder / "outcome.json", outcome(comparison))
    return {kind: str(path) for kind, path in paths.items()} | {"outcome": str(folder / "outcome.json")}


def outcome(comparison: Comparison) -> dict[str, object]:
    """Everything measured, as JSON: the means, and every trial."""
    return {
        "folder": str(comparison.folder),
        "methods": [
            {
                "method": entry.title,
                "quality": None if entry.quality is None else list(entry.quality),
                "costs": {column.title: entry.typical(column.value) for column in COLUMNS},
                "trials": {str(seed): trial.model_dump(mode="json") for seed, trial in entry.trials.items()},
                "failures": {str(seed): reason for seed, reason in entry.failures.items()},
            }
            for entry in ranked(comparison.entries)
        ],
    }
