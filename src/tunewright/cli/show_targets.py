"""`show targets`: rows as the model sees them, with the learned tokens marked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from tunewright.data.rendering import Refusal, Rendered
    from tunewright.run.targets import Planted

OWN = {"rows": True, "html": True}
DEFAULT_ROWS = 3


def show_targets(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> Outcome:
    """Show rows as the model sees them, with the learned tokens marked.

    Args:
        tokens: the data, --base, --rows, --html, and settings as flags.
    """
    from tunewright.cli.flags import parse
    from tunewright.cli.settings_help import asks_for_help, settings_help

    if asks_for_help(tokens):
        return settings_help("targets")
    asked = parse(tokens, OWN)
    run, wanted = asked.run(), _rows(asked.own.get("rows"))
    from tunewright.core.storage import write_text
    from tunewright.data.reading import read
    from tunewright.models.sources import resolve
    from tunewright.run.targets import look

    resolve(run.base)
    dataset = read(run.data, run.seed)
    with narrator() as told:
        told.stage(f"Render the rows with the tokenizer of {run.base}")
        planted, renderer = look(run, dataset)
    tokenizer: Any = renderer.encoding.tokenizer
    from tunewright.data.rendering.view import summary, to_html, to_terminal

    chosen = planted.entries[:wanted]
    if page := asked.own.get("html"):
        write_text(Path(page), to_html(chosen, tokenizer))
    data = {
        "base": run.base,
        "counts": planted.counts.as_dict(),
        "rows": [_as_data(entry, tokenizer, summary(entry)) for entry in chosen],
    }
    from rich.console import Group
    from rich.text import Text

    shown = [to_terminal(entry, tokenizer) for entry in chosen]
    page_line = [Text.assemble(("page  ", "dim"), page)] if page else []
    return Outcome(data | {"html": page}, Group(*shown, *_closing(planted), *page_line))


def _rows(given: str | None) -> int:
    from tunewright.core.errors import ConfigurationError

    if given is None:
        return DEFAULT_ROWS
    if not given.isdigit() or int(given) < 1:
        raise ConfigurationError(f"should be a whole number from 1, got '{given}'", where="--rows")
    return int(given)


def _closing(planted: Planted) -> list[Any]:
    from rich.text import Text

    return [Text(planted.sentence, style="bold"), Text("⟦ ⟧ and underlined: learned. Everything else is read only.", style="dim")]


def _as_data(entry: Rendered | Refusal, tokenizer: Any, line: str) -> dict[str, Any]:
    from tunewright.data.rendering import Refusal
    from tunewright.data.rendering.view import shown

    if isinstance(entry, Refusal):
        return {"summary": line, "refused": entry.reason, "segments": []}
    segments = [
        {
            "parent": segment.parent,
            "pieces": [{"text": one.text, "ids": list(one.ids), "weight": one.weight} for one in shown(segment, tokenizer)],
        }
        for segment in entry.tree.segments
    ]
    return {"summary": line, "refused": None, "segments": segments}
