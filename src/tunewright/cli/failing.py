"""How a command ends that did not work: one message, the right exit code, never a traceback on the screen."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from datetime import datetime
from pathlib import Path

from tunewright.core.errors import DivergedError, Interrupted, RequestError, TunewrightError
from tunewright.core.surroundings import process

# Every process of a run finds these alike: the request is the same, and loss and stopping are agreed upon.
COMMON = (RequestError, DivergedError, Interrupted)


def refused(error: TunewrightError, as_json: bool, debug: bool) -> int:
    """Say what is wrong, in the grammar of `core.errors`. What all processes of a run find alike, the first one says."""
    if not (process().rank and isinstance(error, COMMON)):
        _tell(str(error), error.as_dict(), as_json)
    if debug:
        traceback.print_exception(error)
    return error.exit_code


def crashed(error: Exception, as_json: bool, debug: bool) -> int:
    """A bug of ours: one line, with the traceback in a file."""
    first = next(iter(str(error).strip().splitlines()), "")[:300]
    problem = f"{type(error).__name__}: {first}" if first else type(error).__name__
    place = _keep_traceback(error)
    hint = (
        f"This should not happen; the traceback is in {place}." if place else "This should not happen; run it again with --debug."
    )
    facts = {
        "error": type(error).__name__,
        "message": f"{problem}. {hint}",
        "where": place,
        "given": "",
        "allowed": [],
        "hint": hint,
    }
    _tell(f"{problem}\n{hint}", facts, as_json)
    if debug:
        traceback.print_exception(error)
    return 1


def stopped(as_json: bool) -> int:
    """Ctrl-C where there is nothing to keep."""
    _tell("Stopped.", {"error": "Stopped", "message": "Stopped.", "where": "", "given": "", "allowed": [], "hint": ""}, as_json)
    return 1


def reader_left() -> int:
    """Whoever read our output is gone (`tunewright list | head`): end without a word."""
    # Python flushes standard output once more on its way out, and would complain there.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _tell(text: str, facts: dict[str, object], as_json: bool) -> None:
    own = process()
    if own.rank:  # standard output belongs to the first process
        text, as_json = f"process {own.rank} of {own.world}: {text}", False
    # Lone surrogates (a file name that is not UTF-8) would break the very message that is about them.
    safe = text.encode("utf-8", "backslashreplace").decode()
    if as_json:
        print(json.dumps(facts), flush=True)
        return
    from rich.text import Text

    from tunewright.cli.terminal import console

    message = Text(safe)
    head, colon, _ = safe.partition(": ")
    if colon and "\n" not in head:
        message.stylize("bold", 0, len(head))
    screen = console(sys.stderr)
    # In a file or a pipe a message is one line, so that it can be found.
    screen.print(Text.assemble(("✗ ", "bold red"), message), soft_wrap=not screen.is_terminal)


def _keep_traceback(error: Exception) -> str:
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        handle, name = tempfile.mkstemp(prefix=f"tunewright-{moment}-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{' '.join(sys.argv)}\n\n")
            traceback.print_exception(error, file=file)
    except OSError:
        return ""
    return str(Path(name))
