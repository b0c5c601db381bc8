"""Strict configuration: pydantic models are the single truth for run files, flags and Python alike.

`build(kind, data)` turns plain data into a validated, frozen value or raises a `ConfigurationError` that names the key, where it
stands and the nearest valid one. Run files are YAML or TOML. YAML is read with the 1.2 rules users expect: `1e-4` is a number,
`no` is a word, a key given twice is an error.
"""

from __future__ import annotations

import json
import re
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tunewright.core.errors import ConfigurationError, TunewrightError

T = TypeVar("T", bound=BaseModel)
LARGEST_RUN_FILE = 1_000_000  # bytes; a run file is a page
MOST_VALUES = 100_000  # with every alias written out; a few lines of aliases to aliases stand for billions


class Strict(BaseModel):
    """The base of every configuration value: frozen, no unknown keys, no NaN or infinity, no silent coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False, arbitrary_types_allowed=True)


def build(kind: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Validate `data` as a `kind`.

    Args:
        kind: the configuration class.
        data: plain mappings, sequences and scalars, as a run file holds them.
        where: what stands in front of key paths in messages (a file name, usually).

    Raises:
        ConfigurationError: an unknown, missing or ill-typed key, with its path and the nearest valid name.
    """
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise _translated(kind, error.errors()[0], where) from None


def _translated(kind: type[BaseModel], detail: ErrorDetails, where: str) -> TunewrightError:
    inner = detail.get("ctx", {}).get("error")
    # An entry nested in this one (`method: {...}`) was built by its own room and already speaks the grammar.
    path = ".".join(str(part) for part in detail["loc"])
    place = f"{where}: {path}" if where else path
    if isinstance(inner, TunewrightError):
        below = ".".join(part for part in (path, inner.where) if part)
        nested = f"{where}: {below}" if where else below
        return type(inner)(inner.problem, where=nested, allowed=inner.allowed, given=inner.given, hint=inner.hint)
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        known = sorted(fields_at(kind, detail["loc"][:-1]))
        return ConfigurationError(f"unknown key '{last}'", where=place, allowed=known, given=last)
    if detail["type"] == "missing":
        return ConfigurationError(f"the key '{last}' is required", where=place, hint="Add it.")
    if inner is not None:
        return ConfigurationError(str(inner), where=place)
    given = detail["input"]
    shown = repr(given) if len(repr(given)) < 80 else repr(given)[:77] + "..."
    return ConfigurationError(f"{_reason(detail)}, got {shown} ({type(given).__name__})", where=place)


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "too_short":
        return f"should hold at least {detail.get('ctx', {}).get('min_length', 1)}"
    message = detail["msg"].removeprefix("Input ")
    return message[0].lower() + message[1:] if message else "is not valid"


def fields_at(kind: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """The names of the fields of the configuration that stands at `path` below `kind`."""
    for part in path:
        if not isinstance(part, str) or part not in kind.model_fields:
            continue
        inner = _model_in(kind.model_fields[part].annotation)
        if inner is not None:
            kind = inner
    return list(kind.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, list, tuple):
        for argument in typing.get_args(annotation):
            found = _model_in(argument)
            if found is not None:
                return found
    return None


class _Loader(yaml.SafeLoader):
    """YAML with 1.2 scalars and no duplicate keys."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise ConfigurationError(f"a key is a word, not a {type(key).__name__}", where=f"line {line}")
        if key in seen:
            raise ConfigurationError(f"the key '{key}' is given twice", where=f"line {line}", hint=f"Line {seen[key]} has it too.")
        seen[key] = line
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rpartition(":")[2] not in ("bool", "float", "int", "timestamp", "value")]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9]*|\.[0-9]+|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or `_Loader` would take for something else than text."""


for _first, _rules in _Loader.yaml_implicit_resolvers.items():
    for _tag, _rule in _rules:
        _Dumper.add_implicit_resolver(_tag, _rule, [_first])


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # The one character that PyYAML takes for a line break, folds, and does not escape by itself.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None)


_Dumper.add_representer(str, _text)


def parse_yaml(text: str, where: str = "") -> Any:
    """Plain data from YAML text. Raises `ConfigurationError` with the line where it does not parse."""
    try:
        # _Loader is a SafeLoader: no tag constructs anything but plain data.
        data = yaml.load(text, Loader=_Loader)  # noqa: S506
        if _size(data, {}) > MOST_VALUES:
            raise ConfigurationError("its aliases stand for too many values", hint="Write out what is meant.")
        return data
    except ConfigurationError as error:
        raise ConfigurationError(
            error.problem, where=": ".join(part for part in (where, error.where) if part), hint=error.hint
        ) from None
    except RecursionError:
        raise ConfigurationError("not readable as YAML (nested too deeply)", where=where) from None
    except (ValueError, LookupError, AttributeError) as error:
        # What PyYAML lets through when a tag and its text disagree (`!!int ten`), or a number has thousands of digits.
        raise ConfigurationError(f"not readable as YAML ({error})", where=where) from None
    except yaml.YAMLError as error:
        line = f":{error.problem_mark.line + 1}" if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else ""
        reason = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
        raise ConfigurationError(f"not readable as YAML ({reason})", where=f"{where}{line}") from None


def _size(value: Any, known: dict[int, int]) -> int:
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 0  # a list may hold itself
        known[id(value)] = 1 + sum(_size(inner, known) for inner in (value.values() if isinstance(value, dict) else value))
    return known[id(value)]


def _parse_json(text: str, where: str) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ConfigurationError(f"the key '{key}' is given twice", where=where)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"not readable as JSON ({error.msg})", where=f"{where}:{error.lineno}") from None
    except RecursionError:
        raise ConfigurationError("not readable as JSON (nested too deeply)", where=where) from None
    except ConfigurationError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise ConfigurationError(f"not readable as JSON ({error})", where=where) from None


def read_file(path: Path) -> dict[str, Any]:
    """The plain data of a run file (`.yaml`, `.yml`, `.toml` or `.json`)."""
    if not path.is_file():
        raise ConfigurationError("there is no such run file", where=str(path), hint="Check the path.")
    if path.stat().st_size > LARGEST_RUN_FILE:
        raise ConfigurationError("is too large to be a run file (limit 1 MB)", where=str(path), hint="Is it a data file?")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"is not UTF-8 text (byte {error.start})", where=str(path)) from None
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"not readable as TOML ({error})", where=str(path)) from None
    # JSON is nearly YAML: not with tabs, nor with the pairs of escapes that stand for an emoji.
    data = _parse_json(text, str(path)) if path.suffix == ".json" else parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise ConfigurationError(f"a run file holds a mapping of keys, not a {type(data).__name__}", where=str(path))
    return data


def override(data: Mapping[str, Any], settings: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`data` with dotted settings put in: `("method.rank", "8")` sets `data["method"]["rank"]` to 8.

    A component given by name only (`method: lora`) becomes `{name: lora}` when a setting goes below it.
    """
    result = _copied(data)
    for dotted, text in settings:
        *parents, last = dotted.split(".")
        place: dict[str, Any] = result
        for parent in parents:
            inner = place.get(parent)
            place[parent] = inner = {"name": inner} if isinstance(inner, str) else (inner if isinstance(inner, dict) else {})
            place = inner
        value = parse_yaml(text, f"--{dotted}")
        old = place.get(last)
        # `--method lora` names a component without forgetting what the file says about that same component.
        place[last] = old if isinstance(old, dict) and "name" in old and old["name"] == value else value
    return result


def _copied(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def as_yaml(config: BaseModel) -> str:
    """The whole configuration as a YAML text that `read_file` and `build` turn back into the same value."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
