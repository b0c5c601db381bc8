"""`chat`: talk with a model; also through a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.asking import Drawing
from tunewright.cli.terminal import Outcome, console, narrator

if TYPE_CHECKING:
    from rich.console import Console

    from tunewright.engine.settings import Sampling
    from tunewright.evaluation.opening import Opened

COMMANDS = {"/quit": "end", "/reset": "forget the conversation", "/system TEXT": "say how to behave", "/help": "this"}


def chat(
    model: str,
    *,
    system: str = "",
    drawing: Annotated[Drawing | None, Parameter(name="*")] = None,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> Outcome:
    """Talk with a model; the conversation so far is kept. Commands: /quit /reset /system TEXT /help.

    Args:
        model: a run, a folder, an adapter, a hub id, or `embedded`.
        system: how it should behave.
        drawing: how answers are drawn.
        force: use an adapter although its base has changed.
    """
    from tunewright.core.errors import BaseModelError
    from tunewright.models.sources import resolve

    (drawing or Drawing()).sampling()
    resolve(model)
    with narrator() as told:
        told.stage(f"Load {model}")
        from tunewright.evaluation.opening import open_model

        opened = open_model(model, force=force)
    if not opened.objective.writes:
        hint = f"Ask it with: tunewright generate {model} 'your text'"
        raise BaseModelError("is a classifier: it has labels, and nothing to say", where=model, hint=hint)
    talk = _Talk(opened, (drawing or Drawing()).sampling(opened.settings), system, console(sys.stderr))
    return Outcome({"model": model, "messages": talk.run()})


class _Talk:
    """One conversation with a person or a pipe. Answers go to standard output, everything else to standard error."""

    def __init__(self, opened: Opened, sampling: Sampling, system: str, aside: Console) -> None:
        from tunewright.data.rows import Message

        self.message = Message
        self.opened, self.sampling, self.system, self.aside = opened, sampling, system, aside
        self.messages: list[Message] = []

    def run(self) -> list[dict[str, str]]:
        """Read lines until the end; the conversation that stands then."""
        person = sys.stdin.isatty()
        if person:
            self.aside.print("Type a message. /help lists the commands, Ctrl-D ends.", style="dim")
        while True:
            if person:
                self.aside.print("you › ", style="bold", end="")
            line = sys.stdin.readline()
            if not line or line.strip() in ("/quit", "/exit"):
                break
            if line.strip():
                self._hear(line.strip())
        before = [{"role": "system", "content": self.system}] if self.system else []
        return before + [{"role": message.role, "content": message.content} for message in self.messages]

    def _hear(self, line: str) -> None:
        if line == "/reset":
            self.messages = []
            self.aside.print("Forgotten.", style="dim")
        elif line.startswith("/system"):
            self.system, self.messages = line.removeprefix("/system").strip(), []
            self.aside.print("A new conversation begins.", style="dim")
        elif line.startswith("/") and " " not in line:
            for name, about in COMMANDS.items():
                self.aside.print(f"{name:<14}{about}", style="dim")
        else:
            self._answer(line)

    def _answer(self, line: str) -> None:
        from tunewright.cli.asking import conversation, written

        self.messages.append(self.message(role="user", content=line))
        first = [self.message(role="system", content=self.system)] if self.system else []
        ((text, _),) = written(self.opened, [conversation([*first, *self.messages])], self.sampling)
        self.messages.append(self.message(role="assistant", content=text))
        print(text.encode("utf-8", "replace").decode(), flush=True)
