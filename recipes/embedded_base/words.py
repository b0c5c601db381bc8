# ruff: noqa: SIM905  (a list of words reads best as a line of words)
"""English at the level of words: numbers, plurals, lists, and a small grammar of alternatives.

A template is plain text with alternatives in square brackets, which may nest, and named slots in braces:
``"{a} [walked|went] to {shop.the}[| on {day}]."``. An empty alternative leaves the part out.
"""

import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()

_IRREGULAR = {
    "loaf": "loaves",
    "knife": "knives",
    "shelf": "shelves",
    "leaf": "leaves",
    "scarf": "scarves",
    "child": "children",
    "man": "men",
    "woman": "women",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "sheep": "sheep",
    "fish": "fish",
    "trout": "trout",
    "potato": "potatoes",
    "tomato": "tomatoes",
}

Node: TypeAlias = "str | tuple[tuple[Node, ...], ...]"


def spell(number: int) -> str:
    """The number in words, 0 to 999 (``"three hundred and five"``)."""
    if number >= 100:
        rest = f" and {spell(number % 100)}" if number % 100 else ""
        return f"{ONES[number // 100]} hundred{rest}"
    if number < 20:
        return ONES[number]
    tail = f"-{ONES[number % 10]}" if number % 10 else ""
    return TENS[number // 10] + tail


def plural(noun: str) -> str:
    """The plural of a noun or of a measure (``"jar of honey"`` gives ``"jars of honey"``)."""
    head, separator, tail = noun.partition(" of ")
    *front, last = head.split(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "es"
    else:
        last += "s"
    return " ".join([*front, last]) + separator + tail


def article(phrase: str) -> str:
    """The phrase with its indefinite article."""
    vowel = phrase[0].lower() in "aeiou" and not phrase.startswith(("uni", "one "))
    return f"{'an' if vowel else 'a'} {phrase}"


def series(items: Sequence[str], joiner: str = "and") -> str:
    """The items as one English list: ``"a, b and c"``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {joiner} {items[-1]}"


def capital(text: str) -> str:
    """The text with its first letter raised; the rest is left alone."""
    return text[:1].upper() + text[1:]


def _parse(template: str, start: int, nested: bool) -> "tuple[tuple[tuple[Node, ...], ...], int]":
    """Read alternatives from `start` up to the closing bracket (or the end); also where reading stopped."""
    branches: list[tuple[Node, ...]] = []
    parts: list[Node] = []
    at = start
    while at < len(template) and template[at] != "]":
        mark = template[at]
        if mark == "[":
            node, at = _parse(template, at + 1, True)
            parts.append(node)
            at += 1
        elif mark == "|" and nested:
            branches.append(tuple(parts))
            parts = []
            at += 1
        else:
            found = re.compile(r"[^\[\]|]+").match(template, at)
            assert found, f"stray mark at {at} in {template!r}"
            parts.append(found.group())
            at = found.end()
    return (*branches, tuple(parts)), at


@lru_cache(maxsize=4096)
def _parsed(template: str) -> tuple[Node, ...]:
    branches, end = _parse(template, 0, False)
    assert end == len(template), f"unbalanced bracket in {template!r}"
    return branches[0]


def _walk(rng: random.Random, parts: tuple[Node, ...]) -> str:
    return "".join(part if isinstance(part, str) else _walk(rng, rng.choice(part)) for part in parts)


_SENTENCE_START = re.compile(r"(^\"?|[.?!] \"?|\n\"?|, \"|: \"|[.?!]\" \")([a-z])")


def sentence_case(text: str) -> str:
    """Capitals where sentences begin. After a closing quotation mark the author writes them himself,
    because ``"Yes." she`` and ``"Yes?" she asked`` differ."""
    return _SENTENCE_START.sub(lambda found: found.group(1) + found.group(2).upper(), text)


def expand(rng: random.Random, template: str, slots: Mapping[str, object]) -> str:
    """Choose among the alternatives, fill the slots, and set sentence capitals."""
    return sentence_case(_walk(rng, _parsed(template)).format_map(slots).strip())
