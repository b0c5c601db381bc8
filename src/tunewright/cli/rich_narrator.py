"""The narrator of the command line: stages with their seconds, a live bar while training, one line for each validation.

On a terminal the stage that runs is drawn anew ten times a second and left standing when it is over; elsewhere every fact is a
plain line, and the bar is a line now and then.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tunewright.core.errors import Interrupted
from tunewright.core.narrator import Narrator
from tunewright.core.units import count_text, seconds_text

if TYPE_CHECKING:
    from rich.console import RenderableType

VALIDATIONS_SHOWN = 8  # lines; all of them are in steps.jsonl and in the report
PLAIN_EVERY = 15.0  # seconds between lines of progress where there is no terminal
VALIDATION = "validation "


class RichNarrator(Narrator):
    """Draws a run on a console; `close` (or leaving the context) ends the last stage.

    Args:
        heard: whether words from within a signal handler go to standard error.
    """

    def __init__(self, console: Console, heard: bool = True) -> None:
        self.console, self.heard = console, heard
        self.live = Live(console=console, get_renderable=lambda: self, refresh_per_second=10, transient=True)
        self.drawing = console.is_terminal and not console.is_dumb_terminal
        self.title = ""
        self.lines: list[Text] = []
        self.validations: list[Text] = []
        self.notice = ""
        self.began = 0.0
        self.bar: _Bar | None = None

    def __enter__(self) -> RichNarrator:
        if self.drawing:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(kind)

    def stage(self, title: str) -> None:
        self._finish()
        self.title, self.began = title, time.perf_counter()
        if not self.drawing:
            self.console.print(Text(title))

    def say(self, text: str) -> None:
        self._line(Text(text, style="dim"))

    def warn(self, text: str) -> None:
        self._line(Text(f"! {text}", style="yellow"))

    def progress(self, done: int, total: int, facts: Mapping[str, Any]) -> None:
        if self.bar is None:
            self.bar = _Bar(done)
        self.bar.see(done, total, facts)
        validation = {name.removeprefix(VALIDATION): value for name, value in facts.items() if name.startswith(VALIDATION)}
        if validation:
            found = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in validation.items())
            self._line(Text.assemble(f"step {done:>{len(str(total))}}", (f"   validation  {found}", "dim")), self.validations)
        elif not self.drawing and self.bar.due(done == total):
            self._line(Text(f"step {done} of {total}  {self.bar.sentence()}"), self.validations)

    def interject(self, text: str, last: bool) -> None:
        """Say something from within a signal handler, which may come in the middle of any print: no locks, no consoles.

        Args:
            last: the process ends right after it.
        """
        if not self.heard:
            return
        if self.drawing and not last:
            self.notice = text  # drawn with the next frame
            return
        show_cursor = "\x1b[?25h" if self.drawing else ""
        os.write(2 if sys.__stderr__ is None else sys.__stderr__.fileno(), f"{show_cursor}\n{text}\n".encode())

    def close(self, failed: type[BaseException] | None = None) -> None:
        """End the last stage and leave the terminal as it was."""
        self._finish(failed)
        if self.drawing:
            self.live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield self._block(live=True)

    def _line(self, text: Text, lines: list[Text] | None = None) -> None:
        (self.lines if lines is None else lines).append(text)
        if not self.drawing:
            self.console.print(Text.assemble("  ", text), soft_wrap=True)

    def _finish(self, failed: type[BaseException] | None = None) -> None:
        if self.title and self.drawing:
            block = self._block(live=False, failed=failed)
            self.title = ""
            self.console.print(block)
        elif self.title and time.perf_counter() - self.began >= 1:
            self.console.print(Text(f"  {seconds_text(time.perf_counter() - self.began)}"))
        self.title, self.lines, self.validations, self.bar = "", [], [], None

    def _block(self, live: bool, failed: type[BaseException] | None = None) -> RenderableType:
        """The stage: its mark, title and seconds, then its lines, then the bar."""
        head = Table.grid(expand=False, padding=(0, 1))
        mark = self._spinner() if live else _mark(failed)
        head.add_row(mark, Text(self.title, style="bold"), Text(seconds_text(time.perf_counter() - self.began), style="dim"))
        earlier = len(self.validations) - VALIDATIONS_SHOWN
        more = [Text(f"… {earlier} validations before", style="dim")] if earlier > 0 else []
        body = [_indented(line) for line in (*self.lines, *more, *self.validations[-VALIDATIONS_SHOWN:])]
        if live and self.bar is not None:
            body.append(_indented(self.bar.drawn()))
        body += [_indented(Text(self.notice, style="yellow"))] if live and self.notice else []
        return Group(head, *body)

    def _spinner(self) -> RenderableType:
        return Spinner("dots", style="cyan").render(time.perf_counter())


class _Bar:
    """How far a stage is, how fast it goes, and when it will be over."""

    def __init__(self, done: int) -> None:
        self.first, self.began = done, time.perf_counter()
        self.done, self.total, self.facts = done, max(done, 1), dict[str, Any]()
        self.told = self.began

    def see(self, done: int, total: int, facts: Mapping[str, Any]) -> None:
        """Take in one report."""
        self.done, self.total = done, total
        self.facts |= facts

    def due(self, last: bool) -> bool:
        """Whether a plain line should be written now."""
        now = time.perf_counter()
        if not last and now - self.told < PLAIN_EVERY:
            return False
        self.told = now
        return True

    def sentence(self) -> str:
        """Loss, learning rate, speed and the time left, as far as they are known."""
        parts = []
        if "loss" in self.facts:
            parts.append(f"loss {self.facts['loss']:.4f}")
        if "learning_rate" in self.facts:
            parts.append(f"lr {self.facts['learning_rate']:.1e}")
        if "tokens_per_second" in self.facts:
            parts.append(f"{count_text(self.facts['tokens_per_second'])} tok/s")
        if self.done > self.first and self.done < self.total:
            each = (time.perf_counter() - self.began) / (self.done - self.first)
            parts.append(f"{seconds_text(each * (self.total - self.done))} left")
        return "  ".join(parts)

    def drawn(self) -> RenderableType:
        """The bar with its numbers on one line."""
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=self.total, completed=self.done, width=24, complete_style="cyan", finished_style="green")
        line.add_row(bar, Text(f"{self.done}/{self.total}"), Text(self.sentence(), style="dim"))
        return line


def _mark(failed: type[BaseException] | None) -> Text:
    if failed is None:
        return Text("✓", style="green")
    return Text("■", style="yellow") if issubclass(failed, Interrupted) else Text("✗", style="red")


def _indented(content: RenderableType) -> RenderableType:
    from rich.padding import Padding

    # Not padded to the margin: there the ^C that a terminal echoes would wrap, and the region be a line higher than rich knows.
    return Padding(content, (0, 0, 0, 2), expand=False)
