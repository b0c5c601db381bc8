"""`rank`: a person compares two answers at a time, and the pairs become a file to tune on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, console
from tunewright.core.errors import ConfigurationError


@dataclass
class Asking:
    """How it is asked."""

    browser: Annotated[bool, Parameter(negative=())] = False
    """Ask on a page of this machine instead of in the terminal."""
    port: int = 0
    """Of the page; 0 takes a free one."""
    repeat_share: float = 0.0
    """The share of questions that is asked a second time with the sides changed, to see how well you agree with yourself."""
    seed: int = 0
    """Of the order, and of which answer stands on the left."""

    def __post_init__(self) -> None:
        if not 0 <= self.repeat_share <= 1:
            raise ConfigurationError(f"should be from 0 to 1, got {self.repeat_share}", where="--repeat-share")
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"should be from 0 to 65535, got {self.port}", where="--port")


def rank(
    first: Path,
    second: Path | None = None,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    answers: Annotated[list[str] | None, Parameter(negative=())] = None,
    asking: Annotated[Asking | None, Parameter(name="*")] = None,
) -> Outcome:
    """Compare answers by hand, two at a time and without seeing whose they are; what you prefer becomes pairs to tune on.

    Every answer is on the disk at once. The same command goes on where you stopped.

    Args:
        first: rows with a prompt and two or more answers, or a run: its base against what it was tuned to.
        second: another run, or another file of predictions: its answers against those of the first.
        output: the file of pairs (.jsonl); what stands in it stays. Ties and skips are in the log beside it.
        answers: columns that hold the answers, where they are not called as usual; repeat the flag for several.
        asking: how it is asked.
    """
    asking = asking or Asking()
    from tunewright.cli.rank_summary import outcome
    from tunewright.run.ranking import Ranking, questions_of
    from tunewright.run.ranking.candidates import read_candidates
    from tunewright.run.ranking.journal import Sitting, opened

    found = questions_of(read_candidates(first, second, answers or ()), asking.seed, asking.repeat_share)
    screen = console(sys.stderr)
    for note in found.notes:
        screen.print(f"! {note}", style="yellow")
    with opened(output, found.asked) as journal:
        sitting = Sitting(Ranking(found.asked, journal.before), journal, found.notes)
        if asking.browser:
            from tunewright.cli.rank_page import serve

            serve(sitting, screen, asking.port)
        else:
            from tunewright.cli.rank_terminal import ask

            ask(sitting, screen)
        return outcome(sitting)
