"""Who tells the user what happens. The library is silent; the command line gives a narrator that draws progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Narrator:
    """Hears what a run does. Every method does nothing here; a subclass shows what it likes.

    The order of calls is: `stage` at each part of the run, within it any number of `say`, `warn` and `progress`.
    """

    def stage(self, title: str) -> None:
        """A new part of the run begins."""

    def say(self, text: str) -> None:
        """A fact worth a line."""

    def warn(self, text: str) -> None:
        """Something the user should look at; it stands in the report too."""

    def progress(self, done: int, total: int, facts: Mapping[str, Any]) -> None:
        """`done` of `total` units of the current stage are finished; `facts` are current values (loss, tokens per second)."""


SILENT = Narrator()
