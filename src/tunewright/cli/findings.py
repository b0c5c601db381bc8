"""What was found in the data, for people: shape, splits, labels, lengths, finds of the filters, dropped rows, first rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tunewright.data.reading import Dataset
from tunewright.data.rows import Row
from tunewright.data.templates.dressing import is_prompted

if TYPE_CHECKING:
    from tunewright.run.targets import Planted

ROWS_SHOWN = 3
LONGEST = 160  # characters of a row's text
LABELS_SHOWN = 12


def findings_shown(source: str, dataset: Dataset, planted: Planted | None) -> RenderableType:
    """The whole page of `check`."""
    findings = dataset.findings
    facts: list[tuple[str, str]] = [("data", source), ("shape", f"{findings.shape}: {findings.why}")]
    facts.append(("splits", ", ".join(f"{len(rows):,} {name}" for name, rows in dataset.splits().items())))
    facts += [(f"{name} lengths", _lengths(sides)) for name, sides in findings.lengths.items() if name == "train"]
    if findings.labels:
        facts.append(("labels", _labels(findings.labels.get("train", {}))))
    facts += [(name.replace("_", " "), _found(found)) for name, found in findings.found.items()]
    if planted is not None:
        facts.append(("learned", planted.sentence))
    body: list[RenderableType] = [pairs(facts)]
    body += [Text(f"! {note}", style="yellow") for note in [*findings.notes, *(planted.counts.notes if planted else ())]]
    if findings.dropped:
        body += [Text(), Text(f"{len(dataset.ledger):,} rows dropped", style="bold"), _dropped(findings.dropped)]
    body += [Text(), Text("First rows", style="bold"), *_first(dataset)]
    return Group(*body)


def first_rows(dataset: Dataset) -> list[Row]:
    """The first training rows; of a mixture the first of every part, tested where it is held out."""
    if not dataset.findings.parts:
        return dataset.train[:ROWS_SHOWN]
    rows = [*dataset.train, *dataset.test]
    return [next(row for row in rows if row.metadata.get("task") == name) for name in dataset.findings.parts]


def _origin(row: Row) -> str:
    """Where a row comes from, and in which wording it is asked."""
    wording = f", wording {row.metadata['wording']} of {row.metadata['template']}" if is_prompted(row) else ""
    return f"{row.where}{wording}"


def pairs(facts: Iterable[tuple[str, object]]) -> RenderableType:
    """Names and values in two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    for name, value in facts:
        table.add_row(Text(name), value if isinstance(value, Text) else Text(str(value)))
    return table


def clipped(text: str, longest: int = LONGEST) -> str:
    """A text on one line, cut where it is too long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _lengths(sides: dict[str, Any]) -> str:
    parts = []
    for side, found in sides.items():
        if found["max"]:
            parts.append(f"{side}s of {found['p50']:,} characters (median), {found['p95']:,} (95 %), {found['max']:,} (longest)")
    return "; ".join(parts)


def _labels(counts: dict[str, int]) -> str:
    shown = ", ".join(f"{label} ({count:,})" for label, count in list(counts.items())[:LABELS_SHOWN])
    return shown + (f" and {len(counts) - LABELS_SHOWN} more" if len(counts) > LABELS_SHOWN else "")


def _found(found: dict[str, Any]) -> Text:
    if not found["found"]:
        return Text("none", style="green")
    done = f"{found['dropped']:,} dropped" if found["dropped"] else "kept"
    example = next(iter(found["examples"]), "")
    shown = example if isinstance(example, str) else "; ".join(str(value) for value in example.values())
    return Text.assemble(
        (f"{found['found']:,}, {done}", "yellow"), (f"  for example {clipped(shown, 110)}" if shown else "", "dim")
    )


def _dropped(dropped: dict[str, Any]) -> RenderableType:
    rows = []
    for kind, facts in dropped.items():
        rows += [
            (f"{facts['count']:,} {kind.replace('_', ' ')}" if not place else "", f"{example['where']}: {example['message']}")
            for place, example in enumerate(facts["examples"][:3])
        ]
    return Padding(pairs(rows), (0, 0, 0, 2))


def _first(dataset: Dataset) -> list[RenderableType]:
    body: list[RenderableType] = []
    for row in first_rows(dataset):
        facts: list[tuple[str, object]] = [("", Text(_origin(row), style="dim")), ("input", clipped(row.input_text()))]
        facts += [("target", Text(clipped(row.target_text()), style="green"))] if row.target_text() else []
        body.append(Padding(pairs(facts), (0, 0, 1, 2)))
    return body
