"""Labelling functions: what each one is, and those of a Python file that a user names.

A labelling function takes a row and gives a label as text, or None where it has nothing to say:

>>> def asks_for_money(row):
...     return "spam" if "send money" in row.text.lower() else None
"""

from __future__ import annotations

import contextlib
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import Parameter, isfunction, signature
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tunewright.core.errors import ConfigurationError
from tunewright.data.rows import LabelRow

F = TypeVar("F", bound=Callable[..., Any])
MODULE = "labelling_functions"  # the name under which a user's file is run
LONGEST = 200  # characters of what a function raised
_MARK = "_labels_rows"


@dataclass(frozen=True)
class LabellingFunction:
    """One rule.

    Args:
        name: unique among all functions of a labelling.
        call: gives the label of a row, or None. The row's own label is never shown to it.
        source: the file that it stands in.
        labels: what it may give, where that is known before it is called.
    """

    name: str
    call: Callable[[LabelRow], object]
    source: str = ""
    labels: tuple[str, ...] = ()


class Attempt(NamedTuple):
    """What somebody's own code gave, or the error that it raised, as one line."""

    value: Any = None
    failure: str = ""


def labelling_function(function: F) -> F:
    """Mark a function of a Python file as a labelling function. Where a file marks any, its other functions are only helpers."""
    setattr(function, _MARK, True)
    return function


def python_functions(path: Path) -> list[LabellingFunction]:
    """The labelling functions of a Python file, in the order of the file: the marked ones, else all public ones defined in it.

    The file is run in this process, with all that you may do: name only files that you would run yourself.

    Raises:
        ConfigurationError: the file cannot be run, has no function, or one that does not take exactly one row.
    """
    with quiet():
        run = attempted(lambda: runpy.run_path(str(path), run_name=MODULE))
    if run.failure:
        raise ConfigurationError(f"cannot be run: {run.failure}", where=str(path))
    own = {name: value for name, value in run.value.items() if isfunction(value) and value.__module__ == MODULE}
    marked = {name: value for name, value in own.items() if hasattr(value, _MARK)}
    found = marked or {name: value for name, value in own.items() if not name.startswith("_")}
    if not found:
        hint = "A labelling function is `def name(row): return 'label'`, or None where it abstains."
        raise ConfigurationError("defines no function", where=str(path), hint=hint)
    for name, value in found.items():
        _require_one_row(name, value, path)
    return [LabellingFunction(name, value, str(path)) for name, value in found.items()]


def attempted(call: Callable[..., Any], *arguments: object) -> Attempt:
    """Call somebody's own code; what it raises is told and stops nothing."""
    try:
        return Attempt(call(*arguments))
    except Exception as error:  # whatever it is, it is this one call's affair
        return Attempt(failure=f"{type(error).__name__}: {error}".replace("\n", " ").strip(": ")[:LONGEST])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What somebody's own code prints goes to standard error: standard output may be read by a program."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def require_different_names(functions: Sequence[LabellingFunction]) -> None:
    """Raise `ConfigurationError` where two functions have one name, or there is none at all."""
    if not functions:
        raise ConfigurationError("there is no labelling function", where="--functions", hint="Name a .yaml or a .py file.")
    seen: dict[str, str] = {}
    for one in functions:
        if one.name in seen:
            hint = f"{seen[one.name]} has it too; rename one of them."
            raise ConfigurationError(f"the name '{one.name}' is given twice", where=one.source, hint=hint)
        seen[one.name] = one.source


def _require_one_row(name: str, function: Callable[..., Any], path: Path) -> None:
    needed = [
        one.name
        for one in signature(function).parameters.values()
        if one.default is Parameter.empty and one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]
    if len(needed) != 1:
        shown = ", ".join(needed) or "nothing"
        hint = "Let helpers begin with an underscore, or mark the labelling functions with `@labelling_function`."
        raise ConfigurationError(f"'{name}' takes {shown}, a labelling function takes one row", where=str(path), hint=hint)
