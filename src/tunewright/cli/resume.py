"""`resume`: go on with a run that was stopped or killed."""

from __future__ import annotations

from pathlib import Path

from tunewright.cli.terminal import Outcome, narrator


def resume(run: str) -> Outcome:
    """Go on with a run that was stopped or killed: the same bits as if it never had been.

    Args:
        run: the run's folder.
    """
    from tunewright.cli.result import finished
    from tunewright.cli.signals import stop_when_asked
    from tunewright.finetune import resume as go_on

    with narrator() as told, stop_when_asked(told) as stop_asked:
        result = go_on(Path(run), told, stop_asked)
    return finished(result)
