"""`tune DATA --config run.yaml --method.rank 8`: tokens of the command line to a `Run`, before anything heavy loads.

Flags have the dotted names of the run file; dashes and underscores are the same; `--key value` and `--key=value` are too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.cli.settings import ROOMS, SHORT, Setting, settings
from tunewright.core.configuration import build, override, parse_yaml, read_file
from tunewright.core.errors import ConfigurationError, RequestError, UnknownNameError, nearest
from tunewright.core.registry import Room
from tunewright.finetune import Run

_NOTHING = ("null", "~", "")


@dataclass
class Asked:
    """What stood on the command line.

    Args:
        file: the run file's path, and `data` what it holds; empty without one.
        given: flags of a run, by dotted name, as YAML text.
        own: flags that belong to the verb and not to a run.
    """

    file: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)
    own: dict[str, str] = field(default_factory=dict)

    def run(self, defaults: Mapping[str, str] | None = None) -> Run:
        """The run that is described: the file, with the flags put in.

        Raises:
            ConfigurationError: a value is missing or wrong; it says whether it stood in the file or in a flag.
        """
        # A name comes before the settings below it, so that `--method.rank 8 --method lora` is what it says.
        ordered = sorted({**(defaults or {}), **self.given}.items(), key=lambda item: item[0].count("."))
        data = override(self.data, ordered)
        if not isinstance(data.get("data"), dict) or not {"train", "mixture"} & set(data["data"]):
            hint = "Give a file, a folder or a data set: tunewright tune examples.jsonl (or `data: {train: ...}` in the run file)."
            raise ConfigurationError("no data was given", where=self.file or "data", hint=hint)
        try:
            return build(Run, data)
        except RequestError as error:
            raise self._placed(error) from None

    def _placed(self, error: RequestError) -> RequestError:
        in_flag = next((name for name in self.given if error.where == name or error.where.startswith(f"{name}.")), None)
        place = f"--{error.where}" if in_flag else f"{self.file}: {error.where}" if self.file else error.where
        return type(error)(error.problem, where=place, allowed=error.allowed, given=error.given, hint=error.hint)


def parse(tokens: Sequence[str], own: Mapping[str, bool] | None = None) -> Asked:
    """What the tokens after the verb ask for.

    Args:
        own: flags that the verb has besides those of a run, and whether they take a value.

    Raises:
        ConfigurationError: an unknown or misspelt flag, with the nearest one; a flag given twice or without its value.
    """
    asked = Asked(own={})
    for place, token in enumerate(tokens):
        name, found, value = token.partition("=")
        if name == "--config":
            asked.file = value if found else next(iter(tokens[place + 1 : place + 2]), "")
            asked.data = read_file(Path(asked.file))
    known = settings(_named(tokens, asked))
    waiting = list(tokens)
    while waiting:
        token = waiting.pop(0)
        if not token.startswith("-") or token == "-":
            _put(asked, known["data.train"], token, "DATA")
            continue
        flag, equals, value = token.partition("=")
        given = value if equals else None
        name = _plain(flag)
        if name in {"config", *(own or {})}:
            takes_value = name == "config" or (own or {})[name]
            value = given if given is not None else _value(flag, waiting) if takes_value else "true"
            if name != "config":
                asked.own[name] = value
            continue
        setting = _setting(flag, name, known)
        if given is None and setting.takes == "switch" and (not waiting or waiting[0] not in ("true", "false")):
            given = "true"
        _put(asked, setting, _value(flag, waiting) if given is None else given, flag)
    _name_entries(asked, known)
    return asked


def _plain(flag: str) -> str:
    """`--learning-rate` and `--learning_rate` are one name. Only names of ours are touched: a column may have a dash."""
    head, dot, column = flag.lstrip("-").partition("columns.")
    return head.replace("-", "_") + dot + column


def _value(flag: str, waiting: list[str]) -> str:
    if not waiting or waiting[0].startswith("--"):
        raise ConfigurationError("needs a value", where=flag, hint=f"Write `{flag} VALUE` or `{flag}=VALUE`.")
    return waiting.pop(0)


def _named(tokens: Sequence[str], asked: Asked) -> dict[str, str | None]:
    """The method and the objective that are meant, as far as the flags and the run file say; unknown ones are left to `build`."""
    found: dict[str, str | None] = {}
    for key, room in ROOMS.items():
        value = asked.data.get(key)
        name, in_flags = (value.get("name") if isinstance(value, dict) else value), False
        for place, token in enumerate(tokens):
            if match := re.fullmatch(rf"--{key}(?:\.name)?(?:=(.*))?", token):
                in_flags = True
                name = match[1] if match[1] is not None else next(iter(tokens[place + 1 : place + 2]), "")
        if isinstance(name, str) and name.startswith("{"):
            inner = _parsed(name, f"--{key}")
            name = inner.get("name") if isinstance(inner, dict) else None
        if name is not None:
            # A misspelt name is reported as such, and not as settings that it does not have.
            _known(room, str(name), f"--{key}" if in_flags else f"{asked.file}: {key}")
        default = Run.model_fields[key].default
        found[key] = str(name) if name is not None else room.name_of(default) if default is not None else None
    return found


def _known(room: Room[Any], name: str, where: str) -> None:
    if name not in room.names():
        raise UnknownNameError(f"there is no {room.noun} '{name}'", where=where, allowed=room.names(), given=name)


def _setting(flag: str, name: str, known: Mapping[str, Setting]) -> Setting:
    name = SHORT.get(name, name)
    if name in known:
        return known[name]
    above, _, key = name.rpartition(".")
    if above in known and known[above].takes == "mapping" and key:
        return Setting(name, "text", "", "", texts=True)
    raise _unknown(flag, name, known)


def _unknown(flag: str, name: str, known: Mapping[str, Setting]) -> ConfigurationError:
    """The refusal of a flag: with the nearest one, also when only its last part is right, and those that stand beside it."""
    by_spelling = {full: full for full in known} | {short: short for short in SHORT} | {"config": "config"}
    for full in known:
        by_spelling.setdefault(full.rpartition(".")[2], full)
    guess = nearest(name, by_spelling)
    parent = name.rpartition(".")[0]
    beside = [full for full in known if parent and full.rpartition(".")[0] == parent]
    if not beside:
        beside = [*(full for full in known if "." not in full), *SHORT, "config"]
    allowed = [f"--{full}" for full in beside]
    if guess is None:
        return ConfigurationError("there is no such flag", where=flag, allowed=allowed, hint="See `tunewright tune --help`.")
    meant = f"--{by_spelling[guess]}"
    return ConfigurationError(
        "there is no such flag", where=flag, allowed=[meant, *(name for name in allowed if name != meant)], given=meant
    )


def _put(asked: Asked, setting: Setting, value: str, flag: str) -> None:
    name, text = setting.name, _as_yaml(setting, value, flag)
    if name not in asked.given:
        asked.given[name] = text
    elif setting.takes == "list":
        asked.given[name] = json.dumps([*json.loads(asked.given[name]), *json.loads(text)])
    else:
        hint = "Give one data file; --validation and --test name others." if name == "data.train" else "Give it once."
        raise ConfigurationError(f"is given twice ('{value}' is the second)", where=flag, hint=hint)


def _as_yaml(setting: Setting, value: str, flag: str) -> str:
    """A value as YAML text that means what was typed: where text is wanted, `2024` and `a: b` are words."""
    if setting.texts and setting.takes != "list":
        return value if value in _NOTHING else json.dumps(value, ensure_ascii=False)
    one_word = setting.texts and not value.startswith("[")
    parsed = value if one_word else _parsed(value, flag)
    if setting.takes != "list":
        return value
    items = parsed if isinstance(parsed, list) else [parsed]
    return json.dumps([str(item) for item in items] if setting.texts else items)


def _parsed(value: str, flag: str) -> Any:
    try:
        return parse_yaml(value)
    except ConfigurationError as error:
        raise ConfigurationError(error.problem, where=flag, hint="Put the value into quotes for the shell.") from None


def _name_entries(asked: Asked, known: Mapping[str, Setting]) -> None:
    """Where only settings of an entry were given (`--method.rank 8`), say whose they are."""
    for key, room in ROOMS.items():
        below = [name.partition(".")[2] for name in asked.given if name.startswith(f"{key}.")]
        if not below or key in asked.given or "name" in below or asked.data.get(key) is not None:
            continue
        default = Run.model_fields[key].default
        names = (
            [room.name_of(default)]
            if default is not None
            else [name for name in room.names() if set(below) <= set(room[name].model_fields)]
        )
        if len(names) != 1:
            problem = f"which {key} is meant by --{key}.{below[0]}?"
            raise ConfigurationError(problem, where=f"--{key}", allowed=names or room.names(), hint=f"Add `--{key} NAME`.")
        asked.given[key] = names[0]
