"""What a verb hands back, and how it is shown: for people with `rich`, for programs as one JSON object."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from tunewright.core.surroundings import process, variable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tunewright.cli.rich_narrator import RichNarrator

PLAIN_WIDTH = 120  # columns where nobody says how wide the paper is: files and pipes


@dataclass(frozen=True)
class Outcome:
    """What came of a command.

    Args:
        data: for `--json`: plain values.
        shown: for people; None where everything was said already.
        exit_code: 0 done, 1 failed, 2 wrong request.
    """

    data: dict[str, Any] = field(default_factory=dict)
    shown: RenderableType | None = None
    exit_code: int = 0


def console(file: TextIO | None = None) -> Console:
    """A console on standard output, or on `file`; pipes get lines of a fixed width and no colours."""
    from rich.console import Console

    target = sys.stdout if file is None else file
    wide = None if target.isatty() or variable("COLUMNS") else PLAIN_WIDTH
    return Console(file=target, width=wide, highlight=False, emoji=False, markup=False)


def narrator() -> RichNarrator:
    """Who tells on standard error what happens; use it as a context. Of several processes only the first one is heard."""
    from tunewright.cli.rich_narrator import RichNarrator

    return RichNarrator(console(sys.stderr)) if process().rank == 0 else RichNarrator(console(io.StringIO()), heard=False)


def show(outcome: Outcome, as_json: bool) -> None:
    """Print what came of a command; of several processes the first one does."""
    if process().rank > 0:
        return
    if as_json:
        # A file's broken characters (lone surrogates) cannot be written as UTF-8; escaped they can. NaN is no JSON.
        sys.stdout.write(json.dumps(_plain(outcome.data), ensure_ascii=True, allow_nan=False) + "\n")
    elif outcome.shown is not None:
        console().print(outcome.shown)
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value if value is None or isinstance(value, str | int) else str(value)
