"""Instruction templates: a labelled set as prompts in several wordings.

A template is a YAML file: which shapes of rows it takes, what its places are called, what stands for each label, and the wordings.
`{name}` in a wording is a place; `{{` and `}}` are braces. Nothing in a file is executed, and a value that holds braces stays as it
is.

The files beside this one are templates by name (`template: sentiment`); anything ending in .yaml is a user's own.

Source: Wei et al. 2022, "Finetuned Language Models Are Zero-Shot Learners" (FLAN), arXiv 2109.01652; Sanh et al. 2022, "Multitask
Prompted Training Enables Zero-Shot Task Generalization" (T0), arXiv 2110.08207. The wordings are our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tunewright.core.configuration import Strict, build, read_file
from tunewright.core.errors import ConfigurationError, UnknownNameError
from tunewright.data.shapes import room as shapes

FOLDER = Path(__file__).parent
OPTIONS = ("options", "option_lines")  # places that hold what may be answered, in a sentence and line by line
_PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\}")


def places(text: str) -> set[str]:
    """The names of the places in a wording."""
    return {name for name in _PLACE.findall(text) if name}


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with every place filled from `values`, in one pass: what stands in a value is never looked at."""
    return _PLACE.sub(lambda found: values[found[1]] if found[1] else found[0][0], text)


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _wording(value: Any) -> Any:
    return {"prompt": value} if isinstance(value, str) else value


class Wording(Strict):
    """One way to ask.

    Args:
        prompt: what is asked, with places in it.
        answer: what is to be answered; the template's `answer` when not given.
        choices: other words for labels than the template's, for this wording.
        inverted: the task turned round (to write a text that has a label); learned from, and never measured.
    """

    prompt: str = Field(min_length=1)
    answer: str | None = None
    choices: dict[str, str] = Field(default_factory=dict)
    inverted: bool = False


class Template(Strict):
    """A file of wordings for one kind of task.

    Args:
        about: what the task is, as a sentence.
        shapes: the shapes of rows that it takes.
        places: for each place the fields of a row, or columns of the file, that it may be filled from; the first that is there.
        answer: the place that is to be answered.
        choices: the word for each label; `any` takes the labels as they are; without it the answer is text.
        aliases: other names under which files hold the labels.
        empty: what is answered where a row accepts an empty answer.
        wordings: the ways to ask; a text alone is a wording without settings of its own.
    """

    about: str
    shapes: tuple[str, ...] = Field(min_length=1)
    places: dict[str, Annotated[tuple[str, ...], BeforeValidator(_several)]]
    answer: str
    choices: dict[str, str] | Literal["any"] | None = None
    aliases: dict[str, str] = Field(default_factory=dict)
    empty: str = ""
    wordings: tuple[Annotated[Wording, BeforeValidator(_wording)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Template:
        _one_of(self.answer, self.places, "answer")
        for name in self.shapes:
            _one_of(name, shapes.names(), "shapes")
        fixed = self.choices if isinstance(self.choices, dict) else {}
        for name in self.aliases.values():
            _one_of(name, fixed, "aliases")
        seen: dict[str, int] = {}
        for number, wording in enumerate(self.wordings):
            where = f"wordings.{number}"
            for label in wording.choices:
                _one_of(label, fixed, f"{where}.choices")
            self._check(wording, where)
            if seen.setdefault(" ".join(wording.prompt.split()), number) != number:
                raise ConfigurationError("says the same as another wording", where=where, hint="Leave one of them out.")
        if all(wording.inverted for wording in self.wordings):
            raise ConfigurationError("all wordings are inverted, so nothing could be measured", where="wordings")
        return self

    def _check(self, wording: Wording, where: str) -> None:
        """Refuse places that nothing fills, and an answer that stands in its own prompt."""
        known = [*self.places, *(OPTIONS if self.choices is not None else ())]
        asked, answered = places(wording.prompt), places(self.answer_of(wording))
        for name in sorted(asked | answered):
            _one_of(name, known, where)
        if not answered:
            raise ConfigurationError("the answer has no place in it, so it would be the same for every row", where=where)
        if not asked - set(OPTIONS):
            raise ConfigurationError("the prompt has no place for a row in it", where=where, hint="Write {name} there.")
        told = asked & answered if wording.inverted else asked & (answered | {self.answer})
        if told:
            problem = f"the prompt holds '{min(told)}', which is what is to be answered"
            hint = "Take it out, or mark the wording with `inverted: true` and give it an `answer` of its own."
            raise ConfigurationError(problem, where=where, hint=hint)

    def answer_of(self, wording: Wording) -> str:
        """The answer of a wording, with places in it."""
        return f"{{{self.answer}}}" if wording.answer is None else wording.answer

    def renamed(self, given: Mapping[str, str], present: Sequence[str]) -> dict[str, str]:
        """Columns to fields, with places meant by their names.

        Args:
            given: what the user said: a column, and the field or place that it is.
            present: the columns of the file. One that has a place's name is that place, unless the field is there already.
        """
        first = {place: fields[0] for place, fields in self.places.items() if place not in fields}
        columns = {column: first.get(name, name) for column, name in given.items()}
        for place, field in first.items():
            free = place in present and place not in columns and field not in present and field not in columns.values()
            columns |= {place: field} if free else {}
        return columns


def _one_of(name: str, allowed: Any, where: str) -> None:
    if name not in allowed:
        raise ConfigurationError(f"'{name}' is nothing that is known here", where=where, allowed=list(allowed), given=name)


def names() -> list[str]:
    """The templates that ship, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def is_file(name: str) -> bool:
    """Whether a template is meant by its file and not by its name."""
    return name.endswith((".yaml", ".yml"))


def known(name: str) -> str:
    """`name`, where a template of this name ships. Raises `UnknownNameError` with the nearest one."""
    if name not in names():
        hint = "A file of your own ends in .yaml."
        raise UnknownNameError(f"there is no template '{name}'", allowed=names(), given=name, hint=hint)
    return name


def load(name: str) -> Template:
    """The template of this name, or of this file.

    Raises:
        UnknownNameError: no such template ships, and it names no YAML file.
        ConfigurationError: the file is not a template; the message names key and wording.
    """
    path = Path(name) if is_file(name) else FOLDER / f"{known(name)}.yaml"
    return build(Template, read_file(path), str(path) if is_file(name) else name)
