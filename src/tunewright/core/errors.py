"""Every error of Tunewright, in one tree and one grammar.

A message always answers four questions, in this order: *where* (file and line, or key path), *what was given*,
*what is allowed* (with the nearest name), *what to do*. Two branches decide the exit code of the command line:
`RequestError` (2: the request was wrong, nothing was done) and `WorkError` (1: the work itself failed).

To add one: subclass the branch it belongs to, also inherit the matching builtin, and say in the docstring when it is raised.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_UNSET: Any = object()


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to `name`, or None when nothing is close enough to be what was meant."""
    choices = list(known)
    by_lower = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.55)
    return by_lower[matches[0]] if matches else None


def listed(names: Iterable[str], limit: int = 16) -> str:
    """Names as a sentence part: `a, b, c` with the tail counted when there are more than `limit`."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


class TunewrightError(Exception):
    """The root of the tree; raise a subclass.

    Args:
        problem: what is wrong, as a clause without a final full stop ("unknown key 'rnk'").
        where: file and line ("data.jsonl:17") or key path ("method.rank").
        allowed: the names or values that would have been accepted.
        given: the offending name, used to suggest the nearest of `allowed`.
        hint: what to do, as a sentence.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str = "", allowed: Iterable[str] = (), given: str = "", hint: str = "") -> None:
        self.problem, self.where, self.given, self.hint = problem, where, given, hint
        self.allowed = tuple(allowed)
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        parts = [f"{self.where}: {self.problem}" if self.where else self.problem]
        if self.allowed:
            guess = nearest(self.given, self.allowed) if self.given else None
            if guess:
                parts.append(f"Did you mean '{guess}'?")
            parts.append(f"Allowed: {listed(self.allowed)}")
        if self.hint:
            parts.append(self.hint)
        return " ".join(part if part.endswith(("?", ".", "!")) else part + "." for part in parts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default protocol; errors must cross process borders.
        return (_rebuild, (type(self), self.problem, self.where, self.allowed, self.given, self.hint))

    def as_dict(self) -> dict[str, object]:
        """The same message as data, for `--json` and the service."""
        return {
            "error": type(self).__name__,
            "message": str(self),
            "where": self.where,
            "given": self.given,
            "allowed": list(self.allowed),
            "hint": self.hint,
        }


def _rebuild(
    kind: type[TunewrightError], problem: str, where: str, allowed: tuple[str, ...], given: str, hint: str
) -> TunewrightError:
    return kind(problem, where=where, allowed=allowed, given=given, hint=hint)


class RequestError(TunewrightError):
    """The request was wrong: a name, a value, a file, a folder. Raised before work begins; nothing was changed."""

    exit_code = 2


class ConfigurationError(RequestError, ValueError):
    """A run file, a flag or a configuration object holds an unknown, missing or ill-typed value."""


class UnknownNameError(ConfigurationError, LookupError):
    """A name was looked up in a room (method, objective, metric, base) that has no such entry."""


class DataError(RequestError, ValueError):
    """A user's file cannot be read, or its rows cannot be used as they are."""


class BaseModelError(RequestError, ValueError):
    """A base cannot be found, is unsafe to load, is damaged, or does not fit the tuning put on it."""


class RunFolderError(RequestError, FileExistsError):
    """A run folder is occupied, locked by another process, not writable, or not a run at all."""


class MissingExtraError(RequestError, ImportError):
    """An optional package is needed for what was asked; the message names the extra to install."""


class DoesNotFitError(RequestError, MemoryError):
    """The estimate says that the run cannot fit this machine; the hint says what would fit."""


class WorkError(TunewrightError):
    """The work failed although the request was right."""


class DivergedError(WorkError, ArithmeticError):
    """The loss, the gradients or the trained weights stopped being finite numbers; nothing after that was saved."""


class GraderError(WorkError, ValueError):
    """A grader raised, hung or gave what is no number for an answer; the run keeps what it has learned so far."""


class EndpointError(WorkError, ConnectionError):
    """A server that was to answer is down, out of reach, or refuses every request; answers that came in before are kept."""


class StorageError(WorkError, OSError):
    """A file could not be written or read back: disk full, permission lost, device error."""


class CheckpointError(WorkError):
    """No checkpoint of the run can be read; each one refused is named with its reason."""


class VerificationError(WorkError):
    """A promised equality (merged = attached, reloaded = saved) does not hold; nothing was written."""


class Interrupted(WorkError):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has stopped at a step boundary, with a checkpoint."""
