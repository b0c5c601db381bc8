"""Ranking in a terminal: two answers side by side, one key each; through a pipe, one word a line."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tunewright.run.ranking.journal import Sitting

KEYS = {
    "left": ("a", "l", "\x1b[D", "\x1bOD"),
    "right": ("b", "r", "\x1b[C", "\x1bOC"),
    "tie": ("t", "="),
    "both_bad": ("n",),
    "skip": ("s",),
    "undo": ("u", "\x7f", "\x08"),
    "quit": ("q", "\x04", ""),
}
"""What a key, or a line of a pipe, means; its whole name is understood too."""
LEGEND = (
    ("a ←", "A is better"),
    ("b →", "B is better"),
    ("t", "tie"),
    ("n", "neither is good"),
    ("s", "skip"),
    ("u", "undo"),
    ("q", "quit"),
)
NARROW = 90  # columns; with fewer, answers stand under each other
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def ask(sitting: Sitting, screen: Console) -> None:
    """Ask until every question is answered, the input ends, or the person leaves (q, Ctrl-D, Ctrl-C)."""
    notice = begun = ""
    with suppress(KeyboardInterrupt), _reader(sys.stdin) as read:
        while (question := sitting.ranking.current) is not None:
            if begun and screen.is_terminal:  # what was said before the first question stays
                screen.clear()
            screen.print(_page(sitting, screen.width))
            screen.print(notice, style="yellow", end="\n" if notice else "")
            action, notice, begun = _action(read, screen), "", question.id
            if action == "quit":
                return
            if action != "undo":
                sitting.give(question.id, action)
            elif not sitting.take_back():
                notice = "There is nothing to take back."


def _action(read: Callable[[], str], screen: Console) -> str:
    while True:
        pressed = read()
        word = pressed.strip().lower() if len(pressed) > 1 and pressed[0] != "\x1b" else pressed
        for action, keys in KEYS.items():
            if word == action or word in keys or word.lower() in keys:
                return action
        screen.print(_legend())


@contextmanager
def _reader(stream: TextIO) -> Iterator[Callable[[], str]]:
    """What reads the next key of a terminal at once, or the next line of a pipe; an empty text is the end."""
    if not stream.isatty():
        yield lambda: _line(stream)
        return
    import termios
    import tty

    handle = stream.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        yield lambda: _key(handle)
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _line(stream: TextIO) -> str:
    line = stream.readline()
    return line.rstrip("\r\n") or " " if line else ""


def _key(handle: int) -> str:
    first = os.read(handle, 1)
    if first != b"\x1b":
        return first.decode("latin-1")
    # An arrow is three bytes that come at once; the escape key alone is one.
    more = os.read(handle, 8) if select.select([handle], [], [], 0.05)[0] else b""
    return (first + more).decode("latin-1")


def _page(sitting: Sitting, width: int) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from tunewright.run.ranking.candidates import prompt_text

    question = sitting.ranking.current
    assert question is not None
    total = len(sitting.ranking.questions)
    done = total - len(sitting.ranking.waiting)
    head = Table.grid(padding=(0, 2))
    head.add_row(Text(f"question {done + 1:,} of {total:,}", style="bold"), ProgressBar(total=total, completed=done, width=40))
    left, right = (
        Panel(Text(visible(answer.text) or "(empty)"), title=name, title_align="left", border_style="cyan")
        for name, answer in (("A", question.left), ("B", question.right))
    )
    answers: RenderableType = Group(left, right)
    if width >= NARROW:
        answers = Table.grid(expand=True, padding=(0, 1, 0, 0))
        answers.add_column(ratio=1)
        answers.add_column(ratio=1)
        answers.add_row(left, right)
    return Group(head, Text(), Text(visible(prompt_text(question.prompt))), Text(), answers, _legend())


def _legend() -> RenderableType:
    from rich.text import Text

    parts = [part for key, meaning in LEGEND for part in ((key, "bold cyan"), (f" {meaning}   ", "dim"))]
    return Text.assemble(*parts)


def visible(text: str) -> str:
    """A text without what would steer the terminal; models write such characters too."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
