"""`combine`: what several runs changed in one base, added and subtracted, as one model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator


def combine(
    *runs: str,
    weights: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    adapter: Annotated[bool, Parameter(negative=())] = False,
    rank: int | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> Outcome:
    """Add what runs of one base changed, each times a weight, and write one whole model (task arithmetic).

    Args:
        runs: runs or adapters of the same base.
        weights: a number for each, in their order: --weights=1,0.5,-1; a negative one takes away what a run learned.
        out: the folder to write; it must not exist.
        adapter: write one LoRA in place of a whole model; all runs are LoRAs.
        rank: of that LoRA: the nearest of this rank; the sum of theirs, which is exact, when not given.
        force: also when fingerprints say that the bases differ.
    """
    from tunewright.core.errors import ConfigurationError, RunFolderError
    from tunewright.models.sources import resolve

    numbers = _numbers(weights)
    if len(numbers) != len(runs):
        hint = "Give one for each, in their order: --weights=1,0.5,-1"
        raise ConfigurationError(f"gives {len(numbers)} for {len(runs)} runs", where="--weights", hint=hint)
    if out.exists() or out.is_symlink():
        raise RunFolderError("exists already; nothing is ever overwritten", where=str(out), hint="Choose another folder.")
    if rank is not None and (rank < 1 or not adapter):
        hint = "It is the rank of the LoRA that --adapter writes."
        raise ConfigurationError("should be 1 or more" if adapter else "is for --adapter", where="--rank", hint=hint)
    for run in runs:
        resolve(run)
    with narrator() as told:
        from tunewright.run.combining import Term, combine_adapters
        from tunewright.run.combining import combine as put_together

        parts = [Term(run, weight) for run, weight in zip(runs, numbers, strict=True)]
        if adapter:
            made = combine_adapters(parts, out, told, rank=rank, force=force)
        else:
            made = put_together(parts, out, told, force=force)
        for note in made.notes:
            told.warn(note)
    from rich.text import Text

    kind = "adapter" if adapter else "model"
    terms = " ".join(f"{weight:+g} {run}" for run, weight in parts)
    what = f"   {kind}: base {terms}; {made.changed} weights changed"
    shown = Text.assemble(("combined  ", "dim"), (str(made.folder), "bold"), (what, "dim"))
    facts = {"folder": str(made.folder), "kind": kind, "parts": [part._asdict() for part in parts]}
    return Outcome({**facts, "changed": made.changed, "notes": list(made.notes)}, shown)


def _numbers(text: str) -> list[float]:
    """The weights that a text like "1,0.5,-1" means."""
    from tunewright.core.errors import ConfigurationError

    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            found.append(math.nan)
        if not math.isfinite(found[-1]):
            raise ConfigurationError(f"'{part.strip()}' is not a number", where="--weights", hint="Like --weights=1,0.5,-1")
    return found
