"""`generate`: answers to prompts, from the command line, a file or a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tunewright.cli.asking import Drawing
from tunewright.cli.terminal import Outcome, narrator

if TYPE_CHECKING:
    from tunewright.evaluation.opening import Opened


def generate(
    model: str,
    *prompts: str,
    file: Path | None = None,
    stdin: Annotated[bool, Parameter(name=["--stdin", "-"], negative=())] = False,
    drawing: Annotated[Drawing | None, Parameter(name="*")] = None,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> Outcome:
    """Answer prompts: with text, or, for a classifier, with a label and its probability.

    Args:
        model: a run, a folder, an adapter, a hub id, or `embedded`.
        prompts: what to answer; quote each.
        file: a text file with one prompt a line.
        stdin: read prompts from standard input, one a line.
        drawing: how answers are drawn.
        force: use an adapter although its base has changed.
    """
    asked = _prompts(prompts, file, stdin)
    sampling = (drawing or Drawing()).sampling()  # a value out of range is refused before anything loads
    from tunewright.models.sources import resolve

    resolve(model)
    with narrator() as told:
        told.stage(f"Load {model}")
        from tunewright.evaluation.opening import open_model

        opened = open_model(model, force=force)
        told.stage("Answer")
        answers = _answers(opened, asked, (drawing or Drawing()).sampling(opened.settings) if opened.settings else sampling)
    return _outcome(model, answers)


def _prompts(given: tuple[str, ...], file: Path | None, stdin: bool) -> list[str]:
    from tunewright.core.errors import ConfigurationError, DataError

    found = list(given)
    if file is not None:
        try:
            found += [line for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise DataError(
                f"the prompts cannot be read ({reason})", where=str(file), hint="Give a text file with one prompt a line."
            ) from None
    if stdin:
        found += [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not found:
        hint = "Write `tunewright generate MODEL 'your prompt'`, or use --file FILE, or - for standard input."
        raise ConfigurationError("there is no prompt", where="generate", hint=hint)
    return found


def _answers(opened: Opened, prompts: list[str], sampling: object) -> list[dict[str, object]]:
    from tunewright.cli.asking import as_row, written
    from tunewright.engine.settings import Sampling

    assert isinstance(sampling, Sampling)
    rows = [as_row(opened, prompt) for prompt in prompts]
    if not opened.objective.writes:
        found = opened.approach(sampling).answer(rows, len(rows))
        named = "label" if opened.objective.task == "classification" else "answer"
        return [
            {"prompt": prompt, named: one.text, "probability": one.confidence, **one.details, "finished": True}
            if named == "answer"
            else {"prompt": prompt, named: one.text, "probability": one.confidence}
            for prompt, one in zip(prompts, found, strict=True)
        ]
    texts = written(opened, rows, sampling)
    return [{"prompt": prompt, "answer": text, "finished": ended} for prompt, (text, ended) in zip(prompts, texts, strict=True)]


def _outcome(model: str, answers: list[dict[str, object]]) -> Outcome:
    from rich.console import Group
    from rich.text import Text

    body = []
    for place, one in enumerate(answers):
        if len(answers) > 1:
            body += [*([Text()] if place else []), Text(f"> {one['prompt']}", style="dim")]
        if "label" in one:
            body.append(Text.assemble((str(one["label"]), "bold"), (f"  {float(str(one['probability'])):.1%}", "dim")))
        else:
            body.append(Text(f"{one['answer']}{'' if one['finished'] else ' …'}"))
    return Outcome({"model": model, "answers": answers}, Group(*body))
