# ruff: noqa: E501  (a template is easier to hear on one line)
"""Write the example data of the quickstart: ``python recipes/embedded_base/quickstart.py``.

`quickstart.jsonl`: a message to a shop becomes one order line,

    Hi, it's Mira from Bell Lane. Could you put by three loaves and a jar of honey? I'll come on Friday. Thanks!
    3 loaf, 1 jar of honey - Mira, Bell Lane

The base has read such messages but never such a line, and it does not write one when asked. What has to be learned is a
skill and not a list: numbers become digits, nouns singular, the order of parts is fixed, and everything said beside the
order is left out (the day too: finding the right weekday again is what the base learned worst, measured). The line begins with a digit and every name in it follows a space, so it tokenises alike after any
prompt.

`reviews.jsonl`: short messages about shops with a label, `complaint`, `praise` or `question`.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

from stage import Basket
from words import article, expand, series, spell
from world import DAYS, SHOPS, STREETS, Good, World, invent_good, make_person

HOME = Path(__file__).resolve().parents[2] / "src/tunewright/examples"

_HELLO = "[[Hello|Hi|Good morning|Good evening|Good day|Hello there|Dear {keeper}][,|!] ||]"
_WHO = "[this is|it's|it is|you are speaking to] {a} [from|of|in] {street}.|{a} here, {street}.|my name is {a} and I live in {street}.|{a} from {street} [writing|speaking|calling].|{a} again, from {street}."
_REQUEST = (
    "[[could|can|would|will] you [please |][keep|put by|set aside|save|pack|reserve|put away] {items}[ for me| for us|]?"
    "|[I|we] [would like|need|want|should like|could do with|still need|have to get] {items}[, please|]."
    "|please [keep|put by|set aside|save|pack|reserve|send me] {items}."
    "|[may I have|do you have|could I get|can I order] {items}?|{items}, please.|I am [writing|calling] to order {items}."
    "|put me down for {items}.|my {relation} asked me to get {items}.|we have run out, so [save|keep] us {items}.]"
)
_WHEN = (
    "[I will|I'll|I can|My {relation} will|We will|I shall] [come|call|be there|stop by|pick it up|fetch everything] on {day}."
    "|[it is|it's|all of it is] for {day}.|[{day} would be best|{day} is fine|{day} suits me].|[I need|we need] it [by|on] {day}."
    "|[would {day} be all right|would {day} suit you|is {day} all right]?|until {day}, then.|have it ready for {day}[, please|]."
)
_THANKS = "[|||Thanks!|Thank you.|Thank you so much!|Many thanks.|Goodbye!|See you then!]"
_ASIDE = (
    "I have been [ill|away] since {other_day}.|{other} says hello.|{other} and I liked the last ones.|It is so {weather} today."
    "|How is your {relation}?|I was there on {other_day}, but you were closed.|Not for {other} this time.|The children are well."
    "|I have {n} [guests|visitors|children] coming."
)
_SIGN = "[Yours, |Best wishes, |Your neighbour |From |]{a}, {street}"
_SHAPES = [
    f"{_HELLO}[{_WHO}] {_REQUEST} [{_WHEN}] {_THANKS}",
    f"{_HELLO}[{_WHO}] {_REQUEST} [{_WHEN}] {_THANKS}",
    f"{_HELLO}{_REQUEST} [{_WHEN}] [{_WHO}] {_THANKS}",
    f"{_HELLO}{_REQUEST} [{_WHEN}] {_THANKS} {_SIGN}",
    f"{_HELLO}[{_ASIDE}] {_REQUEST} [{_WHEN}] {_SIGN}",
    f"{_HELLO}[{_WHO}] [{_ASIDE}] {_REQUEST} [{_WHEN}]",
    f"{_HELLO}[{_WHEN}] {_REQUEST} [{_ASIDE}] {_SIGN}",
    f"{_HELLO}[for|on|by] {{day}} [I need|we need|I would like] {{items}}. [{_WHO}] {_THANKS}",
    f"{_HELLO}[for|on|by] {{day}} [{{other}}|my wife|my husband] and I [need|want] {{items}}. [{_ASIDE}] {_SIGN}",
    f"{_HELLO}[{_WHO}] on {{day}} I [will|shall] [come|send my {{relation}}] for {{items}}. {_THANKS}",
    f"{_HELLO}my {{relation}} comes on {{day}} and will take {{items}}. {_THANKS} {_SIGN}",
]


def _number(rng: random.Random) -> int:
    """How many of one good: mostly few, sometimes up to forty."""
    return rng.choice((1, 2, 3, 4, 5, 6, rng.randint(7, 12), rng.randint(7, 40)))


def _quantity(rng: random.Random, number: int, good: Good) -> str:
    """One item as people write it."""
    if number == 12 and rng.random() < 0.5:
        return f"a dozen {good.many}"
    if number == 2 and rng.random() < 0.1:
        return f"a couple of {good.many}"
    return Basket.line(number, good, rng.choice(("articles", "articles", "words", "digits")))


def order(rng: random.Random, world: World) -> dict[str, str]:
    """One message with its order line."""
    person, other = (make_person(rng, rng.choice((0.0, 0.0, 0.5)), STREETS) for _ in range(2))
    goods = rng.choice(SHOPS)[2] if rng.random() < 0.85 else tuple(invent_good(rng) for _ in range(3))
    wanted = [(_number(rng), good) for good in rng.sample(goods, rng.choice((1, 2, 2, 3)))]
    day, other_day = rng.sample(DAYS, 2)
    slots: dict[str, object] = {"a": person, "street": person.street, "other": other, "day": day, "other_day": other_day}
    slots |= {"items": series([_quantity(rng, number, good) for number, good in wanted]), "relation": person.relation}
    slots |= {
        "keeper": rng.choice(world.shops).keeper,
        "weather": rng.choice(("cold", "hot", "windy")),
        "n": spell(rng.randint(2, 9)),
    }
    message = " ".join(expand(rng, rng.choice(_SHAPES), slots).split())
    line = ", ".join(f"{number} {good.one}" for number, good in wanted)
    return {"prompt": message, "completion": f"{line} - {person}, {person.street}"}


_REVIEWS = {
    "complaint": [
        "[I bought|we got|last {day} I bought] {one} from {keeper}, and it [broke at once|was old and dirty|was far too expensive|did not last {n} days|fell apart on the way home].",
        "the {many} [were|are] [awful|stale|too small|the worst I have ever had|not what I ordered], and [nobody was sorry|the {trade} laughed at me|I had to wait an hour|you were closed again].",
        "I paid for {n} {many} and got only {fewer}. [I want my money back|This is not right|Never again|It was the same on {day}].",
        "[what a rude {trade}|how slow you are|nobody answered me], [and|when] I only [asked for|wanted] {one}. [I will go elsewhere|I am very disappointed|{a} from {street} will not come back].",
        "my {relation} ordered {n} {many} for {day}, but [nothing came|they were broken|half of them were missing|you had forgotten it].",
    ],
    "praise": [
        "[I bought|we got|last {day} I bought] {one} from {keeper}, and it [is lovely|was the best I ever had|made my {relation} so happy|was worth every coin|still looks like new].",
        "the {many} [were|are] [wonderful|excellent|fresh and cheap|better than anywhere else], and [the {trade} was so kind|I did not have to wait|everybody at home loved them].",
        "[thank you for|we are so happy with|many thanks for] the {n} {many}. [We shall come again|You have made my day|I have told all of {street}|{a} liked them too].",
        "[what a friendly {trade}|how quick you were|such a lovely shop], [and|where] I [found|got] {one} [at once|for a good price]. [I will be back on {day}|I am very pleased].",
        "my {relation} ordered {n} {many} for {day}, and [they came a day early|every one of them was perfect|you even brought them to {street}].",
    ],
    "question": [
        "[do you have|have you got|do you still sell] {many}? I [bought|got] {one} from {keeper} last {day} and need {n} more.",
        "[how much are|what do you take for|what is the price of] {n} {many}[, please|]? It is for my {relation}.",
        "are you open on {day}? [I would like to look at|my {relation} needs|we want to see] {one}.",
        "my {relation} ordered {n} {many} for {day}. [When will they come|Are they ready|May I pick them up earlier|Can you bring them to {street}]?",
        "[could you tell me|do you know|may I ask] [whether the {many} are fresh|where {keeper} gets the {many}|when the {trade} will be back|if {one} would suit {a}]?",
    ],
}


def review(rng: random.Random, world: World) -> dict[str, str]:
    """One message about a shop with its label."""
    label = rng.choice(sorted(_REVIEWS))
    shop, person, number = rng.choice(world.shops), world.stranger(rng), rng.randint(3, 20)
    good = rng.choice(shop.goods)
    slots: dict[str, object] = {"one": article(good.one), "many": good.many, "keeper": shop.keeper, "trade": shop.trade}
    slots |= {"n": spell(number), "fewer": spell(rng.randint(1, number - 1)), "day": rng.choice(DAYS), "a": person}
    slots |= {"street": person.street, "relation": person.relation}
    opening = rng.choice(("", "", "", "Hello, ", f"Dear {shop.keeper}, ", f"To the {shop.kind}. ", "Good morning! "))
    text = expand(rng, rng.choice(_REVIEWS[label]), slots)
    if opening.endswith(", ") and not text.startswith("I "):
        text = text[0].lower() + text[1:]
    return {"text": opening + text, "label": label}


def distinct(draw: Callable[[random.Random, World], dict[str, str]], count: int, seed: int) -> list[dict[str, str]]:
    """`count` rows that differ in their first field."""
    rng, world = random.Random(f"examples {seed}"), World()
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        row = draw(rng, world)
        rows.setdefault(next(iter(row.values())), row)
    return list(rows.values())


def write(rows: list[dict[str, str]], path: Path) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Read the options and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HOME)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    write(distinct(order, chosen.rows, chosen.seed), chosen.out / "quickstart.jsonl")
    write(distinct(review, int(chosen.rows * 0.4), chosen.seed), chosen.out / "reviews.jsonl")


if __name__ == "__main__":
    main()
