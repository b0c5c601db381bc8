"""Labelling functions without programming: keyword lists and patterns in a YAML file.

labels: [negative, positive]
functions:
  praise: {keywords: [wonderful, "must see"], label: positive}
  too_much: {patterns: ['\\btoo (long|slow)\\b'], label: negative}
model: {balance: {negative: 0.5, positive: 0.5}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from tunewright.core.configuration import Strict, build, read_file
from tunewright.core.errors import ConfigurationError
from tunewright.data.labelling.functions import LabellingFunction
from tunewright.data.labelling.settings import LabelModel
from tunewright.data.rows import LabelRow


def _word(value: Any) -> Any:
    """Labels are words, as in data: the number 1 is the label "1", true is "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


Label = Annotated[str, BeforeValidator(_word), Field(min_length=1)]


class Rule(Strict):
    """One function: it gives its label where any of its keywords or patterns stands in the text, or in either text of a pair.

    Args:
        label: the label it gives.
        keywords: words or phrases, found as whole words only, however they are spaced.
        patterns: regular expressions, found anywhere (Python's `re`).
        case: whether "Good" and "good" are different words.
    """

    label: Label
    keywords: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    case: bool = False

    @model_validator(mode="after")
    def _usable(self) -> Rule:
        if not self.keywords and not self.patterns:
            hint = "For example `keywords: [great, superb]`."
            raise ConfigurationError("a function needs keywords or patterns", where="keywords", hint=hint)
        empty = next((place for place, word in enumerate(self.keywords) if not word.strip()), None)
        if empty is not None:
            raise ConfigurationError("the keyword is empty", where=f"keywords.{empty}")
        for place, pattern in enumerate(self.patterns):
            _require_pattern(pattern, f"patterns.{place}")
        return self

    def expression(self) -> re.Pattern[str]:
        """All keywords and patterns as one regular expression."""
        words = [r"(?<!\w)" + r"\s+".join(map(re.escape, word.split())) + r"(?!\w)" for word in self.keywords]
        return re.compile("|".join(f"(?:{one})" for one in (*words, *self.patterns)), 0 if self.case else re.IGNORECASE)


class RuleFile(Strict):
    """A file of rules.

    Args:
        labels: all labels there are; when given, nothing may give another.
        functions: for each function's name its rule; read one by one, so that a message can name the key.
        model: how votes become probabilities.
    """

    labels: tuple[Label, ...] = ()
    functions: dict[str, Any] = Field(default_factory=dict)
    model: LabelModel | None = None


class Rules(NamedTuple):
    """What a file of rules holds: its functions, the labels it allows (empty: any), and its label model (None: not said)."""

    functions: list[LabellingFunction]
    labels: tuple[str, ...]
    model: LabelModel | None


def yaml_functions(path: Path) -> Rules:
    """The rules of a `.yaml`, `.yml`, `.toml` or `.json` file.

    Raises:
        ConfigurationError: an unknown, missing or ill-typed key, a pattern that is none, a label that `labels` lacks.
    """
    data = read_file(path)
    file = build(RuleFile, data, str(path))
    rules = {str(name): _rule(name, value, path) for name, value in file.functions.items()}
    for name, rule in rules.items():
        if file.labels and rule.label not in file.labels:
            where = f"{path}: functions.{name}.label"
            raise ConfigurationError(
                f"the label '{rule.label}' is not among the labels", where=where, allowed=file.labels, given=rule.label
            )
    return Rules([rule_function(name, rule, str(path)) for name, rule in rules.items()], file.labels, file.model)


def rule_function(name: str, rule: Rule, source: str = "") -> LabellingFunction:
    """A rule as a labelling function."""
    search = rule.expression().search

    def call(row: LabelRow) -> str | None:
        return rule.label if search(row.input_text()) else None

    return LabellingFunction(name, call, source, (rule.label,))


def load_functions(paths: Sequence[Path]) -> Rules:
    """The labelling functions of several files, Python's and rules; the labels that files allow are added up.

    Raises:
        ConfigurationError: a file that is not there or of another kind, two functions of one name, two label models.
    """
    from tunewright.data.labelling.functions import python_functions, require_different_names

    found: list[LabellingFunction] = []
    labels: dict[str, None] = {}
    model: LabelModel | None = None
    for path in paths:
        if not path.is_file():
            raise ConfigurationError("there is no such file of labelling functions", where=str(path), hint="Check the path.")
        if path.suffix not in (".py", ".yaml", ".yml", ".toml", ".json"):
            raise ConfigurationError(
                f"labelling functions stand in Python or YAML, not in '{path.suffix}'", where=str(path), allowed=(".yaml", ".py")
            )
        rules = Rules(python_functions(path), (), None) if path.suffix == ".py" else yaml_functions(path)
        if rules.model is not None and model is not None:
            raise ConfigurationError("another file has a model too", where=f"{path}: model", hint="Keep one of them.")
        found += rules.functions
        labels |= dict.fromkeys(rules.labels)
        model = rules.model or model
    require_different_names(found)
    strange = next(((one, label) for one in found for label in one.labels if labels and label not in labels), None)
    if strange is not None:
        where = f"{strange[0].source}: functions.{strange[0].name}.label"
        problem = f"the label '{strange[1]}' is not among the labels"
        raise ConfigurationError(problem, where=where, allowed=tuple(labels), given=strange[1])
    return Rules(found, tuple(labels), model)


def _rule(name: object, value: object, path: Path) -> Rule:
    where = f"{path}: functions.{name}"
    if not isinstance(value, Mapping):
        hint = "Like `praise: {keywords: [great], label: positive}`."
        raise ConfigurationError(f"should be a mapping of keys, not a {type(value).__name__}", where=where, hint=hint)
    return build(Rule, value, where)


def _require_pattern(pattern: str, where: str) -> None:
    try:
        found = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"'{pattern}' is no regular expression ({error})", where=where) from None
    if found.search("") is not None:
        raise ConfigurationError(f"'{pattern}' is found in every text, even in an empty one", where=where)
