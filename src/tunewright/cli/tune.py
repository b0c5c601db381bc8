"""`tune`: examples in, a tuned and tested model with its report out."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator
from tunewright.core.collector import paused


def tune(*tokens: Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]) -> Outcome:
    """Tune a base on your examples, test it once, and write the report.

    Args:
        tokens: the data, and settings as flags; see `tunewright tune --help`.
    """
    with paused():
        from tunewright.cli.flags import parse
        from tunewright.cli.settings_help import asks_for_help, settings_help

        if asks_for_help(tokens):
            return settings_help("tune")
        run = parse(tokens).run()
        from tunewright.cli.result import finished
        from tunewright.cli.signals import stop_when_asked
        from tunewright.finetune import finetune

    with narrator() as told, stop_when_asked(told) as stop_asked:
        result = finetune(run, told, stop_asked)
    return finished(result)
