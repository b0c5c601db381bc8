"""`compare-methods`: several methods on one base and one task, each several times: quality and costs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from tunewright.cli.flags import Asked
    from tunewright.compare.methods import Comparison, MethodComparison

OWN = {"methods": True, "repeats": True, "general": True}
DEFAULT = "lora, bottleneck_adapter, prompt_tuning, loreft, selective, full"


def compare_methods(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> Outcome:
    """Tune by several methods, several times each, and set quality and costs side by side.

    Args:
        tokens: the data, settings as flags, and `--methods`, `--repeats`, `--general`.
    """
    from tunewright.cli.flags import parse
    from tunewright.cli.settings_help import asks_for_help, settings_help

    if asks_for_help(tokens):
        return settings_help("compare-methods")
    asked = _asked(parse(tokens, OWN))
    from tunewright.cli.signals import stop_when_asked
    from tunewright.compare import page
    from tunewright.compare.methods import compare_methods as compare

    with narrator() as told, stop_when_asked(told) as stop_asked:
        comparison = compare(asked, told, stop_asked)
    written = page.write(comparison)
    failed = any(not entry.trials for entry in comparison.entries)
    return Outcome(page.outcome(comparison) | written, _shown(comparison, written["page"]), exit_code=1 if failed else 0)


def _asked(asked: Asked) -> MethodComparison:
    """What is compared. A wrong setting is refused before anything heavy loads."""
    from pathlib import Path

    from tunewright.core.configuration import build, parse_yaml
    from tunewright.core.errors import ConfigurationError
    from tunewright.finetune import Run

    for name in ("method", "seed"):
        if any(given == name or given.startswith(f"{name}.") for given in asked.given):
            hint = "Say which with --methods; settings go into its list: --methods '[{name: lora, rank: 4}, full]'."
            raise ConfigurationError("every method is run with seeds of its own", where=f"--{name}", hint=hint)
    run: Run = asked.run()
    text = asked.own.get("methods", DEFAULT)
    chosen: Any = parse_yaml(text if text.startswith("[") else f"[{text}]")
    from tunewright.compare.methods import MethodComparison

    if run.name is None:
        run = run.model_copy(update={"name": f"{run.data.name or 'data'}-methods"})
    repeats: Any = parse_yaml(asked.own.get("repeats", "3"))
    general = asked.own.get("general")
    if general is not None and not Path(general).is_file():
        raise ConfigurationError("there is no such file", where="--general", given=general)
    data = {"methods": chosen, "repeats": repeats, "general": general, "run": run.model_dump(mode="json")}
    return build(MethodComparison, data)


def _shown(comparison: Comparison, place: str) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tunewright.compare.page import failures, rows_of

    heads, rows = rows_of(comparison)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number == 0 else "right", no_wrap=number < 2)
    for row in rows:
        table.add_row(*(Text(cell, style="bold" if number == 1 else "") for number, cell in enumerate(row)))
    lines = [Text(line, style="red") for line in failures(comparison)]
    return Group(table, *lines, Text.assemble(("\npage  ", "dim"), (place, "bold")))
