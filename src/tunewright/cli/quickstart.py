"""`quickstart`: the whole of it on the base and the examples that ship with the package, with no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from rich.console import RenderableType

ROWS_SHOWN = 3


def quickstart(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> Outcome:
    """See everything work, with the base and the examples that ship with the package; needs no network.

    Args:
        tokens: settings as flags; none are needed.
    """
    from tunewright import examples
    from tunewright.cli.flags import parse
    from tunewright.cli.settings_help import asks_for_help, settings_help

    if asks_for_help(tokens):
        return settings_help("quickstart")
    defaults = {"data.train": json.dumps(str(examples.path("quickstart.jsonl"))), "base": "embedded", "method": "lora"}
    run = parse(tokens).run(defaults)
    from tunewright.cli.result import finished
    from tunewright.cli.signals import stop_when_asked
    from tunewright.finetune import finetune

    with narrator() as told, stop_when_asked(told) as stop_asked:
        result = finetune(run, told, stop_asked)
    rows = _rows(result.folder)
    from rich.console import Group
    from rich.text import Text

    outcome = finished(result, [_shown(rows)] if rows else [])
    then = Text.assemble(("\nNow with your own examples: ", "dim"), ("tunewright tune your-examples.jsonl", "bold"))
    return Outcome(outcome.data | {"rows": rows}, Group(outcome.shown or "", then))


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The first test rows whose answer the tuning changed, or simply the first ones."""
    lines = (folder / "predictions" / "test.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [row for row in map(json.loads, filter(None, lines)) if row["tuned"] is not None]
    changed = [row for row in rows if row.get("base") != row["tuned"]]
    return (changed or rows)[:ROWS_SHOWN]


def _shown(rows: list[dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    from tunewright.cli.findings import clipped, pairs

    body: list[RenderableType] = [Text("Three rows of the test", style="bold")]
    for row in rows:
        facts = [("prompt", Text(clipped(row["prompt"], 300))), ("reference", Text(clipped(row["reference"]), style="dim"))]
        facts += [("base", Text(clipped(row.get("base") or "(nothing)"), style="red"))]
        facts += [("tuned", Text(clipped(row["tuned"] or "(nothing)"), style="green"))]
        body.append(Padding(pairs(facts), (0, 0, 1, 2)))
    return Group(*body)
