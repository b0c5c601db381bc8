"""Strict JSON: what `json.loads` lets through silently (NaN, duplicate keys, infinite numbers, lone surrogates) is refused."""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 64  # levels of nesting; real rows have five or six
LONGEST_INTEGER = 40  # digits


class BadJson(ValueError):
    """Text that is not strict JSON. Caught where it is read and turned into a `Problem`; never reaches the user.

    Args:
        kind: the reason as a word that can be counted.
        message: the reason as a sentence.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message


def parse(text: str) -> Any:
    """The value of one JSON text. Raises `BadJson`."""
    try:
        value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson("broken_json", _explained(text, error)) from None
    except RecursionError:
        raise BadJson("too_deep", f"is nested more than {DEEPEST} levels deep") from None
    check(value, text)
    return value


def element(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start` of a longer text, and where it ends. Raises `BadJson`."""
    try:
        value, end = _decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise BadJson("broken_json", f"not valid JSON: {error.msg}, column {error.colno}") from None
    except RecursionError:
        raise BadJson("too_deep", f"is nested more than {DEEPEST} levels deep") from None
    return value, end


def check(value: Any, text: str) -> None:
    """Refuse what parses but cannot be used: too deep, lone surrogates, NUL characters. `text` is what it was parsed from."""
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise BadJson("too_deep", f"is nested more than {DEEPEST} levels deep")
    if "\\u0000" in text and "\0" in str(_strings(value)):
        raise BadJson("nul", "holds a NUL character (\\u0000)")
    if "\\ud" in text or "\\uD" in text:
        try:
            _strings(value).encode("utf-8")
        except UnicodeEncodeError:
            raise BadJson("lone_surrogate", "holds half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None


def _strings(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return "".join(key + _strings(item) for key, item in value.items())
    return "".join(map(_strings, value)) if isinstance(value, list) else ""


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
    return depth - 1


def _explained(text: str, error: json.JSONDecodeError) -> str:
    here = text[error.pos : error.pos + 1]
    before = text[: error.pos].rstrip()[-1:]
    readings = (
        (text.lstrip()[:1] in ("#", "/"), "a comment, which JSON does not have"),
        (here == "'" or text.lstrip().startswith("{'"), "single quotes; JSON needs double quotes (is it a Python dictionary?)"),
        (before == "," and here in ("}", "]"), f"a comma before '{here}'"),
        (error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"), "the text ends too early (cut off?)"),
        (error.msg == "Extra data", "more text after the end of the value"),
    )
    reason = next((said for holds, said in readings if holds), error.msg[0].lower() + error.msg[1:])
    return f"not valid JSON: {reason}, column {error.colno}"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise BadJson("duplicate_key", f"the key '{twice}' is given twice")
    return value


def _no_constant(name: str) -> Any:
    raise BadJson("non_finite_number", f"{name} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > LONGEST_INTEGER:
        raise BadJson("huge_number", f"holds a number of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJson("non_finite_number", f"{text[:20]} is too large for a number")
    return value


_decoder = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_integer, parse_float=_float, strict=True
)
