"""`merge`: an adapter put into its base, verified, as one folder that everything can load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tunewright.cli.terminal import Outcome, narrator


def merge(run: str, out: Path, *, force: Annotated[bool, Parameter(negative=())] = False) -> Outcome:
    """Put an adapter into its base and write one whole model, after checking that both compute the same.

    Args:
        run: a run or an adapter folder.
        out: the folder to write; it must not exist.
        force: also when the base has changed since.
    """
    from tunewright.core.errors import RunFolderError
    from tunewright.models.sources import resolve

    if out.exists():
        raise RunFolderError("exists already; nothing is ever overwritten", where=str(out), hint="Choose another folder.")
    resolve(run)
    with narrator() as told:
        from tunewright.run.merging import merge as put_together

        merged = put_together(run, out, told, force=force)
    from rich.text import Text

    shown = Text.assemble(
        ("merged  ", "dim"), (str(merged.folder), "bold"), (f"   equal within {merged.difference:.1e} of the largest value", "dim")
    )
    facts = {"run": run, "folder": str(merged.folder), "difference": merged.difference, "parameters": merged.parameters}
    return Outcome(facts, shown)
