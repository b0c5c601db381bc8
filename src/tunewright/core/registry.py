"""The folder is the registry: `method: lora` loads `methods/lora.py` and takes its one concrete `Method`.

No enum, no decorator, no list to keep. A room's `__init__.py` says what an entry is; each public module beside it is one entry.
Third parties register through an entry-point group named `tunewright.<room>`.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from tunewright.core.configuration import Strict, build
from tunewright.core.errors import ConfigurationError, UnknownNameError

T = TypeVar("T")


class Room(Generic[T]):
    """The entries of one folder.

    Args:
        package: the dotted name of the folder ("tunewright.methods").
        kind: the abstract class whose one concrete subclass each module holds.
        noun: what an entry is called in messages ("method").
    """

    def __init__(self, package: str, kind: type[T], noun: str) -> None:
        self.package, self.kind, self.noun = package, kind, noun

    def names(self) -> list[str]:
        """Every name that can be asked for, sorted; nothing is imported to answer."""
        folder = Path(str(importlib.import_module(self.package).__file__)).parent
        own = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
        return sorted(own | set(self._foreign()))

    def __getitem__(self, name: str) -> type[T]:
        """The class of the entry called `name`. Raises `UnknownNameError` with the nearest name."""
        if name not in self.names():
            raise UnknownNameError(f"there is no {self.noun} '{name}'", allowed=self.names(), given=str(name))
        foreign = self._foreign()
        if name in foreign:
            return foreign[name].load()
        module = importlib.import_module(f"{self.package}.{name}")
        found = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, self.kind)
            and value.__module__ == module.__name__
            and not inspect.isabstract(value)
        ]
        if len(found) != 1:
            raise TypeError(f"{module.__name__} must define exactly one concrete {self.kind.__name__}, it defines {len(found)}")
        return found[0]

    def _foreign(self) -> dict[str, Any]:
        group = "tunewright." + self.package.rsplit(".", 1)[-1]
        return {point.name: point for point in _registered() if point.group == group}

    def make(self, value: Any) -> Any:
        """An entry from what a run file holds: a name, a mapping with `name`, or the entry itself.

        For rooms whose entries are their own configuration (`Strict` subclasses): methods and objectives.
        """
        if isinstance(value, self.kind):
            return value
        settings = {"name": value} if isinstance(value, str) else value
        if not isinstance(settings, dict):
            raise ConfigurationError(
                f"a {self.noun} is a name or a mapping with 'name', not {type(value).__name__}", allowed=self.names()
            )
        settings = dict(settings)
        name = settings.pop("name", None)
        if name is None:
            raise ConfigurationError(f"which {self.noun}? The key 'name' is missing", allowed=self.names())
        entry: Any = self[str(name)]
        if not issubclass(entry, Strict):
            if settings:
                raise ConfigurationError(
                    f"the {self.noun} '{name}' has no settings", where=str(next(iter(settings))), hint="Remove it."
                )
            return entry()
        return build(entry, settings)

    def name_of(self, entry: object) -> str:
        """The name under which `entry`'s class is known: its module's, or that of its entry point."""
        module = type(entry).__module__
        if not module.startswith(self.package + "."):
            for name, point in self._foreign().items():
                if point.load() is type(entry):
                    return name
        return module.rsplit(".", 1)[-1]

    def dump(self, entry: Any) -> dict[str, Any]:
        """What a run file holds for `entry`: the name and every setting, resolved."""
        return {"name": self.name_of(entry), **entry.model_dump(mode="json")}


@cache
def _registered() -> tuple[EntryPoint, ...]:
    """The entries that other packages bring; asked once, for the answer opens a file of every installed package."""
    points = entry_points()
    return tuple(point for group in points.groups if group.startswith("tunewright.") for point in points.select(group=group))
