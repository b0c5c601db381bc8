"""What a scene is given: who takes part, where and when, and ready-made quantities of goods."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from words import article, expand, series, spell
from world import COLOURS, DAYS, PLACES, WEATHER, Good, Person, Shop


@dataclass(frozen=True)
class Basket:
    """Some goods with quantities; it can be told in words or in digits."""

    lines: tuple[tuple[int, Good], ...]

    def told(self, style: str) -> str:
        """The list in `style`: ``words`` (three loaves), ``articles`` (a loaf) or ``digits`` (3 loaves)."""
        return series([self.line(number, good, style) for number, good in self.lines])

    @staticmethod
    def line(number: int, good: Good, style: str) -> str:
        """One quantity of one good."""
        noun = good.one if number == 1 else good.many
        if style == "digits":
            return f"{number} {noun}"
        return article(noun) if number == 1 and style == "articles" else f"{spell(number)} {noun}"

    @property
    def words(self) -> str:
        """``three loaves and a jar of honey``."""
        return self.told("articles")

    @property
    def one_words(self) -> str:
        """``three loaves and one jar of honey``."""
        return self.told("words")

    @property
    def digits(self) -> str:
        """``3 loaves and 1 jar of honey``."""
        return self.told("digits")

    @property
    def kinds(self) -> str:
        """``loaves and jars of honey``: the goods without their numbers."""
        return series([good.many for _, good in self.lines])

    @property
    def price(self) -> int:
        """What all of it costs together."""
        return sum(number * good.price for number, good in self.lines)

    @property
    def count(self) -> int:
        """How many pieces it holds."""
        return sum(number for number, _ in self.lines)


@dataclass
class Stage:
    """The setting of one scene; `tell` expands a template with everything in it."""

    rng: random.Random
    people: list[Person]
    shop: Shop
    extra: dict[str, object] = field(default_factory=dict)

    def basket(self, most: int = 3, quantity: int = 12) -> Basket:
        """A random basket from the stage's shop."""
        wanted = min(self.rng.choice((1, 1, 2, 2, 2, 3, 3, 4)), most, len(self.shop.goods))
        small = min(quantity, self.rng.choice((3, 6, 12, 30)))
        goods = self.rng.sample(self.shop.goods, wanted)
        return Basket(tuple((self.rng.randint(1, small), good) for good in goods))

    def number(self, low: int, high: int) -> str:
        """A number in words or digits."""
        drawn = self.rng.randint(low, high)
        return spell(drawn) if self.rng.random() < 0.6 else str(drawn)

    def slots(self) -> dict[str, object]:
        """The names every template may use."""
        rng = self.rng
        day, later, third = rng.sample(DAYS, 3)
        colour, hue, tint = rng.sample(COLOURS, 3)
        place, elsewhere, far = rng.sample(PLACES, 3)
        a, b, c = self.people[:3]
        common: dict[str, object] = {"a": a, "b": b, "c": c, "shop": self.shop, "keeper": self.shop.keeper}
        common |= {"day": day, "later": later, "third": third, "colour": colour, "hue": hue, "tint": tint}
        common |= {"place": place, "elsewhere": elsewhere, "far": far, "weather": rng.choice(WEATHER)}
        common |= {"hour": spell(rng.randint(1, 12)), "hour2": spell(rng.randint(1, 12)), "n": self.number(2, 20)}
        common |= {"big": self.number(20, 400)}
        return common | self.extra

    def tell(self, template: str, more: Mapping[str, object] | None = None) -> str:
        """Expand one template."""
        return expand(self.rng, template, self.slots() | dict(more or {}))

    def tell_all(self, templates: list[str], more: Mapping[str, object] | None = None) -> str:
        """Expand several templates into one paragraph; the setting stays the same throughout."""
        slots = self.slots() | dict(more or {})
        return " ".join(text for text in (expand(self.rng, one, slots) for one in templates) if text)
