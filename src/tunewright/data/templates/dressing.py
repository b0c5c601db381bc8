"""Rows through a template: each becomes a prompt and a completion, with examples in front where they are asked for.

Which wording a row gets, and which examples, is a function of the seed and of the row's content: never of its place in the file,
and never of what was drawn before.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from tunewright.core.configuration import Strict
from tunewright.core.errors import ConfigurationError, DataError, listed
from tunewright.core.seeds import derive
from tunewright.data.cleaning import folded
from tunewright.data.rendering.settings import separator_for
from tunewright.data.rows import ORIGIN, PromptRow, Row
from tunewright.data.templates import OPTIONS, Template, Wording, filled, is_file, known, load, places

TRIES = 20  # random draws for one example, before every row is looked at in turn


def _as_words(value: Any) -> Any:
    """In YAML the label 0 is a number; in a row it is the word "0"."""
    if not isinstance(value, dict):
        return value
    return {str(key) if type(key) is int else key: name for key, name in value.items()}


class Prompting(Strict):
    """How rows become prompts.

    Args:
        name: a template that ships, or a YAML file of your own.
        wordings: `one` draws a wording for each row; `all` makes a training row of every wording. Rows that are only measured
            always have one.
        shots: how many solved examples stand in front of every prompt. They come from the training rows, never from the test.
        labels: the file's labels and those of the template (`{0: negative, 1: positive}`).
        values: what fills a place that no column fills (`{target_language: German}`).
    """

    name: str
    wordings: Literal["one", "all"] = "one"
    shots: int = Field(default=0, ge=0, le=64)
    labels: Annotated[dict[str, str], BeforeValidator(_as_words)] = Field(default_factory=dict)
    values: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        # A file of one's own is looked at when rows are read: a run can be resumed without it.
        return name if is_file(name) else known(name)


class Dressing:
    """One template made ready for one set of rows.

    Args:
        prompting: the template and how it is used.
        rows: every row that will be dressed; what labels there are is read off them.
        pool: the rows that examples are drawn from.
        seed: the run's seed.

    Raises:
        DataError: a label that the template has no word for, two labels with one word, no rows to draw examples from.
        ConfigurationError: a place that no column fills.
    """

    def __init__(self, prompting: Prompting, rows: Sequence[Row], pool: Sequence[Row], seed: int) -> None:
        self.prompting, self.seed, self.pool = prompting, seed, list(pool)
        self.template: Template = load(prompting.name)
        self._inputs = [folded(row.input_text()) for row in self.pool] if prompting.shots else []
        self.labels = _labels(self.template, prompting, rows)
        self.measured = [number for number, wording in enumerate(self.template.wordings) if not wording.inverted]
        for number, wording in enumerate(self.template.wordings):
            words = [self._words(wording)[label] for label in dict.fromkeys(self.labels.values())]
            if len(set(words)) < len(words):
                problem = f"wording {number + 1} of '{prompting.name}' has one word for several labels of these rows"
                hint = f"They have {listed(sorted(set(self.labels.values())))}."
                raise DataError(problem, where=_file_of(rows), hint=hint)
        if rows:
            self._check_places(rows[0])

    def training(self, rows: Sequence[Row]) -> list[tuple[Row, int | None]]:
        """What may be trained on: every row, or every row in every wording; the number of the wording where it is fixed."""
        numbers = range(len(self.template.wordings)) if self.prompting.wordings == "all" else (None,)
        return [(row, number) for row in rows for number in numbers]

    def one(self, row: Row, *, wording: int | None = None, copy: int = 0, measured: bool = False) -> PromptRow:
        """The row as prompt and completion.

        Args:
            wording: the number of the wording; None draws one.
            copy: the how-manieth time the row is used; a repeated row is asked in another wording.
            measured: the answer will be compared, so inverted wordings are left out.

        Raises:
            DataError: there are too few other rows for the examples.
        """
        numbers = self.measured if measured else list(range(len(self.template.wordings)))
        if wording is None:
            # Copies go through the wordings in turn, so that no two of them are the same before all were there.
            wording = numbers[(derive(self.seed, "wording", row.key()) + copy) % len(numbers)]
        asked = self.template.wordings[wording]
        prompt, completion = self._pair(row, asked)
        shots = [self._pair(shot, asked) for shot in self._shots(row, copy)]
        shown = [f"{given}{separator_for(given, answer)}{answer}" for given, answer in shots]
        return PromptRow(
            prompt="\n\n".join([*shown, prompt]),
            completion=completion,
            where=row.where,
            group=row.group,
            weight=row.weight,
            metadata={**row.metadata, "template": self.prompting.name, "wording": wording + 1},
        )

    def _pair(self, row: Row, wording: Wording) -> tuple[str, str]:
        values = self._values(row)
        if self.template.choices is not None:
            words = self._words(wording)
            shown = list(dict.fromkeys(words[label] for label in self.labels.values()))
            lines = "\n".join(f"- {word}" for word in shown)
            values |= {
                self.template.answer: words[self.labels[values[self.template.answer]]],
                **dict(zip(OPTIONS, (_sentence(shown), lines), strict=True)),
            }
        return filled(wording.prompt.strip(), values), filled(self.template.answer_of(wording).strip(), values)

    def _words(self, wording: Wording) -> dict[str, str]:
        """The word for each label, in this wording."""
        choices = self.template.choices
        fixed = choices if isinstance(choices, dict) else {label: label for label in self.labels.values()}
        return {**fixed, **wording.choices}

    def _values(self, row: Row) -> dict[str, str]:
        """What fills each place, for those that something fills."""
        held = _held(row)
        found = {}
        for place, names in self.template.places.items():
            value = next((held[name] for name in names if name in held), self.prompting.values.get(place))
            if value is not None:
                found[place] = value or (self.template.empty if place == self.template.answer else "")
        return found

    def _check_places(self, row: Row) -> None:
        found = self._values(row)
        for place in self.prompting.values:
            if place not in self.template.places:
                problem = f"the template '{self.prompting.name}' has no place '{place}'"
                raise ConfigurationError(problem, where="template.values", allowed=list(self.template.places), given=place)
        asked = {name for one in self.template.wordings for name in places(one.prompt) | places(self.template.answer_of(one))}
        missing = sorted((asked | {self.template.answer}) - set(OPTIONS) - set(found))
        if missing:
            hint = f"Name the column (`columns: {{YOURS: {missing[0]}}}`), or one text for all (`values: {{{missing[0]}: ...}}`)."
            problem = f"nothing fills the place '{missing[0]}' of the template '{self.prompting.name}'"
            raise ConfigurationError(problem, where=_file_of([row]), allowed=sorted(_held(row)), given=missing[0], hint=hint)

    def _shots(self, row: Row, copy: int) -> list[Row]:
        """Examples with other inputs than the row's; for each row its own draw."""
        wanted = self.prompting.shots
        if not wanted:
            return []
        own, taken = folded(row.input_text()), {}
        draw = random.Random(derive(self.seed, "shots", row.key(), copy))
        for place in _draws(draw, len(self.pool), TRIES * wanted):
            if self._inputs[place] != own:
                taken.setdefault(self._inputs[place], place)
            if len(taken) == wanted:
                return [self.pool[index] for index in taken.values()]
        hint = f"{len(taken)} training rows have another input than this one. Ask for fewer `shots`, or add rows."
        raise DataError(f"{wanted} examples cannot be shown in front of a prompt", where=row.where, hint=hint)


def _draws(draw: random.Random, count: int, tries: int) -> Iterator[int]:
    return itertools.chain((draw.randrange(count) for _ in range(tries if count else 0)), range(count))


def dressed(rows: Sequence[Row], dressing: Dressing | None, *, learned: bool) -> list[Row]:
    """All rows through the dressing; for training in the wordings that are asked for. None leaves them as they are."""
    if dressing is None:
        return list(rows)
    if not learned:
        return [dressing.one(row, measured=True) for row in rows]
    return [dressing.one(row, wording=number) for row, number in dressing.training(rows)]


def is_prompted(row: Row) -> bool:
    """Whether a template made this row, and says in its metadata which wording it is."""
    return {"template", "wording"} <= set(row.metadata)


def of_task(row: Row, task: str) -> Row:
    """The row with the name of the part that it belongs to."""
    return replace(row, metadata={**row.metadata, "task": task})


def _labels(template: Template, prompting: Prompting, rows: Sequence[Row]) -> dict[str, str]:
    """For every label of the rows the label of the template, in the template's order."""
    if template.choices is None:
        return {}
    held = dict.fromkeys(row.target_text() for row in rows)
    named = {label: prompting.labels.get(label, label) for label in held}
    if template.choices == "any":
        return dict(sorted(named.items(), key=lambda item: item[1]))
    known = {name.casefold(): name for name in template.choices} | {
        alias.casefold(): label for alias, label in template.aliases.items()
    }
    strange = sorted(label for label, name in named.items() if name.casefold() not in known)
    if strange:
        pairs = ", ".join(f'"{label}": ...' for label in strange[:3])
        problem = f"the template '{prompting.name}' has no word for {listed([repr(label) for label in strange], 5)}"
        hint = f"Say what each means with `labels: {{{pairs}}}` beside the template's name."
        raise DataError(problem, where=_file_of(rows), allowed=list(template.choices), given=strange[0], hint=hint)
    order = list(template.choices)
    found = {label: known[name.casefold()] for label, name in named.items()}
    return dict(sorted(found.items(), key=lambda item: order.index(item[1])))


def _held(row: Row) -> dict[str, str]:
    """Everything a row holds that is text: its fields, and columns that are kept beside them."""
    values: Mapping[str, Any] = row.metadata | {one.name: getattr(row, one.name) for one in fields(row) if one.name not in ORIGIN}
    return {name: text for name, value in values.items() if (text := _text(value)) is not None}


def _text(value: Any) -> str | None:
    if isinstance(value, tuple):
        return _text(value[0]) if value else ""
    if isinstance(value, bool) or value is None:
        return None
    return str(value) if isinstance(value, str | int | float) else None


def _sentence(words: Sequence[str]) -> str:
    """`a, b or c`."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


def _file_of(rows: Sequence[Row]) -> str:
    return rows[0].where.rsplit(":", 1)[0] if rows else ""
