"""Where bases come from: one source a file (`embedded`, `minilm`, a run folder, an adapter folder, a folder, the hub).

An entry is a `Source`. Given what a user wrote after `--base`, the sources are asked in their order whether it is theirs. To add
one, add a file; names that users can write go into `names`, so that a misspelling finds them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tunewright.core.errors import BaseModelError
from tunewright.core.registry import Room


@dataclass(frozen=True)
class Resolved:
    """What a base's name means, before anything of it is read.

    Args:
        base: as the user wrote it.
        kind: the source that knows it (`embedded`, `minilm`, `run`, `adapter`, `folder`, `hub`).
        folder: the folder of a whole network; None for an adapter, and for a hub id that must first be fetched.
        adapter: the folder of an adapter that stands on another base.
        hub_id: the hub's name for it, with `@revision` where the user gave one.
        base_of_adapter: the base that the adapter was made on, as its run or its own configuration names it.
    """

    base: str
    kind: str
    folder: Path | None = None
    adapter: Path | None = None
    hub_id: str | None = None
    base_of_adapter: str | None = None


class Source(ABC):
    """One place where bases come from.

    Contract: `claims` reads names and the presence of files only; `resolve` reads small text files only; nothing but `fetch` uses
    the network; every failure is a `RequestError` that says what to do.
    """

    order: ClassVar[int]
    names: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def claims(self, base: str) -> bool:
        """Whether what the user wrote means this source."""

    @abstractmethod
    def resolve(self, base: str) -> Resolved:
        """What it means here."""

    def fetch(self, resolved: Resolved) -> Path:
        """The folder with the files on this machine."""
        assert resolved.folder is not None
        return resolved.folder


room: Room[Source] = Room("tunewright.models.sources", Source, "source of bases")  # type: ignore[type-abstract]


def all_sources() -> list[Source]:
    """Every source, in the order in which they are asked."""
    return sorted((_make(room[name]) for name in room.names()), key=lambda source: source.order)


def _make(kind: Any) -> Source:
    return kind()


def resolve(base: str | Path) -> Resolved:
    """What a base's name means: a name of ours, a run, an adapter, a folder or a hub id; nothing is loaded or fetched.

    Raises:
        BaseModelError: no source knows it; the nearest name is suggested.
        MissingExtraError: it needs a package that is not installed.
    """
    text = str(base)
    if not text.strip() or any(ord(letter) < 32 for letter in text) or any(len(part) > 255 for part in text.split("/")):
        raise BaseModelError(f"{text[:80]!r} cannot be the name of a base", where="base", hint="Give a name, a folder or a hub id.")
    sources = all_sources()
    for source in sources:
        if source.claims(text):
            return source.resolve(text)
    known = [name for source in sources for name in source.names]
    raise BaseModelError(
        f"there is no base or folder '{text}'",
        where="base",
        allowed=[*known, "a folder", "a run folder", "a hub id (owner/name)"],
        given=text,
    )


def folder_of(base: str | Path | Resolved) -> Path:
    """The folder of the whole network that a base's name leads to, fetched if need be; an adapter leads to its base's.

    Raises:
        BaseModelError: it cannot be found, or an adapter does not say what it stands on.
    """
    resolved = base if isinstance(base, Resolved) else resolve(base)
    for _ in range(8):  # an adapter on a run on an adapter: legal, but nobody builds long chains, and a ring must end
        if resolved.adapter is None:
            return next(source for source in all_sources() if room.name_of(source) == resolved.kind).fetch(resolved)
        resolved = resolve(named_base(resolved))
    raise BaseModelError("its adapters stand on each other in a ring", where=resolved.base)


def named_base(resolved: Resolved) -> str:
    """The base that a resolved adapter names. Raises `BaseModelError` when it names none."""
    if not resolved.base_of_adapter:
        raise BaseModelError(
            "does not say which base it was made on",
            where=str(resolved.adapter),
            hint="Add base_model_name_or_path to its adapter_config.json.",
        )
    return resolved.base_of_adapter


def as_path(base: str) -> Path:
    """What a user wrote, as a path; `~` is the own home, and nobody else's."""
    return Path(base).expanduser() if base == "~" or base.startswith("~/") else Path(base)


def holds_any(folder: Path, *names: str) -> bool:
    """Whether `folder` has a file of any of these names."""
    return any((folder / name).is_file() for name in names)
