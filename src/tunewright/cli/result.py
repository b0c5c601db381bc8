"""How a finished run is shown: the verdict, before and after, where the report lies, and what can be done next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewright.cli.terminal import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunewright.evaluation.report.schema import Subject
    from tunewright.finetune import Result

_ASKING = {"regression": "predict", "token_classification": "tag words", "question_answering": "find an answer"}


def finished(result: Result, between: Sequence[RenderableType] = ()) -> Outcome:
    """The outcome of `tune`, `resume` and `quickstart`.

    Args:
        between: what is shown between the table and the closing lines.
    """
    from rich.console import Group
    from rich.text import Text

    from tunewright.evaluation.report.terminal import render_terminal

    report, folder = result.report, result.folder
    data = {
        "run": str(folder),
        "report": str(folder / "report.html"),
        "verdict": report.verdict.model_dump(mode="json"),
        "measures": [measure.model_dump(mode="json") for measure in report.measures],
        "warnings": list(report.warnings),
        "cost": report.cost.model_dump(mode="json"),
    }
    body = [Text(), render_terminal(report), Text(), *between, _closing(str(folder), report.subject)]
    return Outcome(data, Group(*body))


def _closing(folder: str, subject: Subject) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_row(Text("report", style="dim"), Text(f"{folder}/report.html", style="bold"))
    for title, command in next_commands(folder, subject):
        table.add_row(Text(title, style="dim"), Text(command))
    return table


def next_commands(folder: str, subject: Subject) -> list[tuple[str, str]]:
    """What can be done with a finished run, as (purpose, command)."""
    name = f"'{folder}'" if " " in folder else folder
    if subject.task == "reward" or not subject.writes:
        found = []
    elif subject.task not in ("generation", "text", "preference"):
        asked = '{"question": "...", "context": "..."}' if subject.task == "question_answering" else "your text"
        found = [(_ASKING.get(subject.task, "label a text"), f"tunewright generate {name} '{asked}'")]
    else:
        found = [("try it", f"tunewright generate {name} 'your prompt'"), ("talk", f"tunewright chat {name}")]
    found.append(("measure", f"tunewright evaluate {name} more-examples.jsonl"))
    if subject.merges and subject.weights != "full_model":
        found.append(("merge", f"tunewright merge {name} merged-model"))
    return found
