"""What graders that ask another model share: looking at its run before anything loads, and asking it once for all answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewright.core.errors import ConfigurationError, TunewrightError
from tunewright.core.runs import settings_of
from tunewright.graders import GradeFailure, Judge, Sitting
from tunewright.graders._template import filled
from tunewright.models.sources import resolve

if TYPE_CHECKING:
    from tunewright.data.rows import Row

Said = Mapping[str, float] | str
WHERE = "grader.model"


def settings_for(model: str, objective: str) -> dict[str, Any]:
    """The settings of the objective that the run in `model` was tuned for.

    Raises:
        ConfigurationError: there is no such run, or it was tuned for another objective.
    """
    hint = f"Name the folder of a finished run with `objective: {objective}`."
    try:
        if resolve(model).kind == "hub":  # a misspelt `runs/judge` looks like one
            raise ConfigurationError("there is no such folder", hint=hint)
        settings = settings_of(model).get("objective")
    except TunewrightError as error:
        raise ConfigurationError(error.problem, where=f"{WHERE}: {model}", hint=error.hint) from None
    if not isinstance(settings, dict):
        raise ConfigurationError(f"'{model}' does not say what it was tuned for", where=WHERE, hint=hint)
    if settings.get("name") != objective:
        raise ConfigurationError(f"'{model}' was tuned for '{settings.get('name')}' and not '{objective}'", where=WHERE, hint=hint)
    return settings


class Asked:
    """A judge that reads many answers in few passes, and each only once.

    Args:
        template: what it is given of an answer (`graders._template`).
        expected: the answers that will be asked for; others are read when they are.
    """

    def __init__(self, judge: Judge, template: str, expected: Sequence[tuple[Row, str]]) -> None:
        self._judge, self._template = judge, template
        self._found: dict[tuple[int, str], Said] = {}
        self._read(expected)

    def _read(self, answers: Sequence[tuple[Row, str]]) -> None:
        given = {(id(row), answer): (row, filled(self._template, row, answer)) for row, answer in answers}
        told = {key: one for key, one in given.items() if one[1].strip()}  # what is empty is no answer that a model could read
        self._found |= dict.fromkeys(given, "")
        if told:
            self._found |= dict(zip(told, self._judge.judged(list(told.values())), strict=True))

    def __call__(self, row: Row, answer: str) -> Mapping[str, float] | None:
        """What the judge says of an answer; None of an empty one.

        Raises:
            GradeFailure: it cannot read it.
        """
        if (id(row), answer) not in self._found:
            self._read([(row, answer)])
        said = self._found[id(row), answer]
        if isinstance(said, str) and said:
            raise GradeFailure(f"cannot read it ({said})")
        return said or None  # type: ignore[return-value]


def judge_of(model: str, sitting: Sitting) -> Judge:
    """The judge that a run has opened under this name. Raises `ConfigurationError` outside of a run."""
    if model not in sitting.judges:
        raise ConfigurationError(f"the model '{model}' is not open", where=WHERE, hint="A run opens the models of its graders.")
    return sitting.judges[model]
