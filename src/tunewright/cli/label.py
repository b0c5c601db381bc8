"""`label`: labels from rules that vote, with what the rules are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunewright.run.labelling import Labelled

SHOWN = 5  # rows that are left out


def label(
    data: str,
    *,
    functions: list[Path],
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    gold: str | None = None,
    columns: str = "",
) -> Outcome:
    """Label rows by rules that vote, weighed by how they agree, and say what each rule does.

    Args:
        data: a file of texts; labels that it has are not learned from, only measured with.
        functions: a file of rules (.yaml) or of Python functions (.py), which is run; repeat the flag for several.
        out: the file to write (.jsonl): each row with the probability of every label, for `tunewright tune`.
        gold: a few rows with known labels, to measure the rules with.
        columns: names of columns and the fields that they are: --columns '{review: text}'
    """
    from tunewright.run.labelling import label as label_rows

    found = label_rows(data, functions, out, gold=gold, columns=columns_of(columns))
    return Outcome(found.as_dict(), _page(found))


def columns_of(text: str) -> dict[str, str]:
    """The columns that `--columns` names, and the fields that they are. Raises `ConfigurationError`: it is no such mapping."""
    from tunewright.core.configuration import parse_yaml
    from tunewright.core.errors import ConfigurationError

    value = parse_yaml(text, "--columns") if text else {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for pair in value.items() for name in pair):
        raise ConfigurationError(
            f"should be columns and fields, got '{text}'", where="--columns", hint="Like --columns '{review: text}'"
        )
    return value


def _page(found: Labelled) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tunewright.cli.findings import pairs
    from tunewright.core.units import share_text

    analysis = found.analysis
    total = len(found.left_out) + found.written
    facts = [
        ("rows", f"{analysis.rows:,}"),
        ("coverage", f"{share_text(analysis.coverage, 1)} of rows have a vote"),
        ("overlaps", f"{share_text(analysis.overlaps, 1)} have two or more"),
        ("conflicts", f"{share_text(analysis.conflicts, 1)} have votes that disagree"),
        *_measured(found),
        ("written", f"{found.written:,} of {total:,} rows to {found.out}"),
    ]
    if len(found.left_out):
        first = ", ".join(drop.where for drop in list(found.left_out)[:SHOWN])
        facts.append(("left out", f"{len(found.left_out):,} rows (first: {first}); all of them: {found.ledger}"))
    notes = [Text(f"! {note}", style="yellow") for note in found.notes]
    follow = Text.assemble(("next  ", "dim"), f"tunewright tune {found.out}")
    return Group(_table(found), Text(), pairs(facts), *notes, Text(), follow)


def _table(found: Labelled) -> RenderableType:
    from rich.table import Table

    from tunewright.core.units import share_text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("function")
    table.add_column("gives")
    judged = found.compared is not None
    for name in ("votes", "coverage", "overlaps", "conflicts", "believed", *(["right"] if judged else [])):
        table.add_column(name, justify="right")
    for one in found.analysis.functions:
        counts = (one.coverage, one.overlaps, one.conflicts, found.fitted.accuracies[one.name])
        right = f"{share_text(one.right, one.judged)} of {one.judged}" if one.judged else "-"
        shares = [share_text(round(share, 3), 1) for share in counts]
        believed = shares.pop() if one.votes else "-"
        table.add_row(
            one.name,
            ", ".join(one.polarity) or "never votes",
            f"{one.votes:,}",
            *shares[:3],
            believed,
            *([right] if judged else []),
        )
    return table


def _measured(found: Labelled) -> list[tuple[str, str]]:
    if found.compared is None:
        return []
    compared = found.compared
    difference = compared.difference
    test = (
        f"{100 * difference.value:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], p = {difference.p:.2g}"
    )
    return [
        ("known labels", f"{compared.covered:,} of {compared.rows:,} rows with one have a vote; on these:"),
        ("majority vote", f"right {_percent(compared.majority)}"),
        ("label model", f"right {_percent(compared.model)}; {test}"),
    ]


def _percent(score: tuple[float, float, float, int]) -> str:
    value, low, high, _ = score
    return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
