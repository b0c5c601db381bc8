"""`answer`: a model's answers to a file of questions, as rows that a student learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.asking import Drawing
from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tunewright.graders import Grader
    from tunewright.run.answering import Answered, How
    from tunewright.run.answering.endpoint import Endpoint


@dataclass
class Server:
    """An OpenAI-compatible server, in place of a model on this machine."""

    endpoint: str | None = None
    """Its address, up to /chat/completions: http://localhost:8000/v1"""
    parallel: int = 4
    """Requests at a time."""
    retries: int = 5
    """Further tries of a request that failed in a way that may pass."""
    timeout: float = 120.0
    """Seconds until a request counts as lost."""
    key_from: str = "TUNEWRIGHT_API_KEY"
    """The environment variable that holds the key."""

    def asked(self) -> Endpoint | None:
        """The same, checked; None where no address is given. Raises `ConfigurationError`: out of range."""
        if self.endpoint is None:
            return None
        from tunewright.core.configuration import build
        from tunewright.run.answering.endpoint import Endpoint

        return build(Endpoint, {"url": self.endpoint, **{name: one for name, one in vars(self).items() if name != "endpoint"}})


@dataclass
class Wish:
    """What is wanted of the answers."""

    samples: int = 1
    """Answers a question, drawn at a --temperature above 0."""
    best: str = ""
    """A grader that keeps the best of these: a name, or --best '{name: ..., ...}'"""
    probabilities: Annotated[bool, Parameter(negative=())] = False
    """Of every label, from a classifier: what `tune` learns as a distribution."""
    keep_unfinished: Annotated[bool, Parameter(negative=())] = False
    """Keep answers that were cut off."""
    columns: str = ""
    """Names of columns and the fields that they are: --columns '{question: prompt}'"""
    system: str = ""
    """A text in front of every conversation that the teacher sees and the student will not."""
    force: Annotated[bool, Parameter(negative=())] = False
    """Use an adapter although its base has changed."""


def answer(
    data: str,
    *,
    model: str,
    output: Annotated[Path, Parameter(name=["--output", "--out", "-o"])],
    server: Annotated[Server | None, Parameter(name="*")] = None,
    wish: Annotated[Wish | None, Parameter(name="*")] = None,
    drawing: Annotated[Drawing | None, Parameter(name="*")] = None,
) -> Outcome:
    """Write a model's answers to every question of a file, as rows for `tunewright tune`; what was stopped goes on where it was.

    Args:
        data: prompts, conversations or texts; answers that they have are not shown to the model.
        model: a run, a folder, an adapter, a hub id, or `embedded`; with --endpoint, the server's name for it.
        output: the file to write (.jsonl).
        server: where the model is, if not here.
        wish: what is wanted.
        drawing: how answers are drawn.
    """
    how = _how(server or Server(), wish or Wish(), drawing or Drawing())
    if how.endpoint is None:
        from tunewright.models.sources import resolve

        resolve(model)
    with narrator() as told:
        from tunewright.run.answering import answer as answer_rows

        found = answer_rows(data, model, output, how, told)
    facts = found._asdict() | {"out": str(found.out), "ledger": None if found.ledger is None else str(found.ledger)}
    return Outcome(facts, _page(found))


def _how(server: Server, wish: Wish, drawing: Drawing) -> How:
    """Everything that can be refused before anything loads."""
    drawing.sampling()
    endpoint = server.asked()
    given = {name: value for name, value in vars(drawing).items() if value is not None}
    from tunewright.cli.label import columns_of
    from tunewright.run.answering import How

    return How(
        drawing=given,
        samples=wish.samples,
        best=_grader(wish.best),
        probabilities=wish.probabilities,
        unfinished=wish.keep_unfinished,
        columns=columns_of(wish.columns),
        system=wish.system,
        endpoint=endpoint,
        force=wish.force,
    )


def _grader(text: str) -> Grader | None:
    if not text:
        return None
    from tunewright.core.configuration import parse_yaml
    from tunewright.graders import made

    return made(parse_yaml(text, "--best"))


def _page(found: Answered) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tunewright.cli.findings import pairs

    facts = [("questions", f"{found.rows:,}"), ("written", f"{found.written:,} rows to {found.out}")]
    if found.resumed:
        facts.append(("from before", f"{found.resumed:,} answers"))
    if found.ledger is not None:
        reasons = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in found.left_out.items())
        facts.append(("left out", f"{reasons} (first: {found.first}); all of them: {found.ledger}"))
    return Group(pairs(facts), Text(), Text.assemble(("next  ", "dim"), f"tunewright tune {found.out}"))
