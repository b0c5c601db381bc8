"""`show`: one run, one base, or what one method, objective or metric does."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewright.cli.terminal import Outcome
from tunewright.core.errors import UnknownNameError

if TYPE_CHECKING:
    from rich.console import RenderableType


def show_run(run: str) -> Outcome:
    """Show a run: what it was asked, what came of it, where its parts lie.

    Args:
        run: the run's folder.
    """
    from tunewright.core.configuration import read_file
    from tunewright.core.runs import existing

    folder = existing(Path(run))
    settings = read_file(folder.settings)
    paths = {item.name: str(item) for item in sorted(folder.path.iterdir()) if not item.name.startswith(".")}
    data: dict[str, Any] = {
        "run": run,
        "finished": folder.is_done,
        "settings": settings,
        "paths": paths,
        "steps": len(folder.logged()),
    }
    if not folder.is_done:
        return Outcome(data, _run_page(data, None))
    from tunewright.core.configuration import build
    from tunewright.core.storage import read_json
    from tunewright.evaluation.report.schema import Report

    report = build(Report, read_json(folder.path / "report.json"), "report.json")
    data |= {
        "verdict": report.verdict.model_dump(mode="json"),
        "measures": [one.model_dump(mode="json") for one in report.measures],
    }
    from tunewright.evaluation.report.terminal import render_terminal

    return Outcome(data, _run_page(data, render_terminal(report)))


def _run_page(data: dict[str, Any], report: RenderableType | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from tunewright.cli.findings import pairs

    state = (
        Text("finished", style="green")
        if data["finished"]
        else Text(f"unfinished; go on with: tunewright resume {data['run']}", style="yellow")
    )
    facts = [("run", Text(data["run"], style="bold")), ("state", state), ("steps", data["steps"]), *_flat(data["settings"])]
    parts: list[RenderableType] = [pairs(facts), Text()]
    parts += [report, Text()] if report is not None else []
    return Group(*parts, pairs(list(data["paths"].items())))


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        elif value not in (None, [], {}, ""):
            shown = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
            found.append((f"{prefix}{key}", shown.replace("\n", "\\n")))
    return found


def show_base(base: str) -> Outcome:
    """Show the facts of a base, read from its files' headers; nothing is loaded.

    Args:
        base: a hub id, a folder, a run, or `embedded`.
    """
    from dataclasses import asdict

    from tunewright.cli.findings import pairs
    from tunewright.core.units import bytes_text, count_text
    from tunewright.models.facts import facts
    from tunewright.models.sources import folder_of

    found, folder = asdict(facts(base)), folder_of(base)
    words = {"parameters": count_text(found["parameters"]), "body": count_text(found["body"]), "bytes": bytes_text(found["bytes"])}
    rows = [(name.replace("_", " "), words.get(name, value)) for name, value in found.items()]
    return Outcome({"base": base, "folder": str(folder), **found}, pairs([("base", base), ("folder", folder), *rows]))


def show_method(name: str) -> Outcome:
    """Show what a method does, what it costs, when to use it, and its settings.

    Args:
        name: the method's name; `tunewright list methods` has them.
    """
    return _entry("tunewright.methods", name, "method")


def show_objective(name: str) -> Outcome:
    """Show what an objective minimises, when to use it, and its settings.

    Args:
        name: the objective's name; `tunewright list objectives` has them.
    """
    return _entry("tunewright.objectives", name, "objective")


def show_metric(name: str) -> Outcome:
    """Show what a metric measures.

    Args:
        name: the metric's name; `tunewright list metrics` has them.
    """
    return _entry("tunewright.metrics", name, "")


def _entry(package: str, name: str, key: str) -> Outcome:
    from rich.console import Group
    from rich.text import Text

    room = import_module(package).room
    if name not in room.names():
        raise UnknownNameError(f"there is no {room.noun} '{name}'", where="show", allowed=room.names(), given=name)
    entry = room[name]
    # Docstrings are broken for the width of our sources; paragraphs and their `Keyword:` lines stay apart.
    about = re.sub(r"(?<=\S)\n(?!\n|\w+( \w+)?: | {4})", " ", inspect.cleandoc(entry.__doc__ or ""))
    body: list[RenderableType] = [Text(name, style="bold"), Text(about)]
    found: list[dict[str, str]] = []
    if key:
        from tunewright.cli.settings import settings
        from tunewright.cli.settings_help import settings_table

        chosen = [one for one in settings({key: name}).values() if one.name.startswith(f"{key}.") and one.name != f"{key}.name"]
        found = [{"name": one.name, "default": one.default, "about": one.about} for one in chosen]
        body += [Text(), settings_table((f"--{one.name}", one.default, one.about) for one in chosen)]
    return Outcome({"name": name, "about": about, "settings": found}, Group(*body))
