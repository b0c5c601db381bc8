"""Ctrl-C and SIGTERM while a run works: the first stops it at the next step with a checkpoint, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunewright.cli.rich_narrator import RichNarrator

ASKED = "Stopping after this step, with a checkpoint. Once more stops at once."
AT_ONCE = "Stopped at once."


@contextmanager
def stop_when_asked(told: RichNarrator) -> Iterator[Callable[[], bool]]:
    """Within it, a signal sets the answer of the callable that is yielded; `told` says so on the screen."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may listen
        return
    asked: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        told.interject(AT_ONCE if asked else ASKED, last=bool(asked))
        if asked:
            # Files are written beside their place and renamed, so there is nothing that leaving now could break.
            os._exit(1)
        asked.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
