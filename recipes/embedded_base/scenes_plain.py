# ruff: noqa: E501, SIM905  (a template is easier to hear, and a list of words to read, on one line)
"""Scenes of plain talk: kinds of things, new words, lists read out and repeated, counting, sums, comparisons."""

from collections.abc import Callable

from stage import Stage
from words import ORDINALS, article, capital, plural, series, spell
from world import COLOURS, DAYS, SHOPS, Good, invent_noun, invent_street, invent_word

_KINDS = {
    "fruit": "apple pear lemon melon plum cherry peach fig".split(),
    "vegetable": "potato carrot onion cabbage tomato pumpkin leek".split(),
    "animal": "cat dog horse sheep goat hen mouse rabbit goose cow".split(),
    "tool": "hammer saw spade knife rake axe ladder".split(),
    "flower": "rose tulip lily daisy violet".split(),
    "toy": "doll kite ball puppet drum".split(),
    "garment": "coat shirt dress hat scarf jacket sock".split(),
}
_OPPOSITES = (
    "big small,old new,hot cold,long short,good bad,happy sad,rich poor,early late,fast slow,light heavy,"
    "full empty,clean dirty,cheap expensive,strong weak,loud quiet,near far,open closed,wet dry"
).split(",")


def kinds(stage: Stage) -> str:
    """What kind of thing something is, and what is its opposite."""
    rng = stage.rng
    kind, other = rng.sample(sorted(_KINDS), 2)
    thing, second = rng.sample(_KINDS[kind], 2)
    alien = rng.choice(_KINDS[other])
    left, right = rng.choice(_OPPOSITES).split()
    templates = [
        "[{one} is {kind}|{one_cap} is {kind}, and so is {two}|{things} and {seconds} are {kinds}].",
        "[{alien_cap} is not {kind}[| but {other}]|{aliens} are not {kinds}|{a} has {one} and {alien}, but only the {thing} is {kind}].",
        '["Is {one} {other}?" asked {a}. "No, {one} is {kind}," said {b}.|"Is {one} {kind}?" "Yes, it is," said {a}.|{a} likes {kinds}, above all {things}.|]',
        "[The opposite of {left} is {right}|What is not {left} is often {right}|{a}'s {thing} is {left}, but {b}'s {second} is {right}|{a} wanted {left_one} and not {right_one}].",
    ]
    extra: dict[str, object] = {"one": article(thing), "two": article(second), "kind": article(kind), "other": article(other)}
    extra |= {
        "one_cap": capital(article(thing)),
        "alien": article(alien),
        "alien_cap": capital(article(alien)),
        "kinds": plural(kind),
    }
    extra |= {"things": plural(thing), "seconds": plural(second), "aliens": plural(alien), "left": left, "right": right}
    extra |= {"left_one": article(f"{left} {thing}"), "right_one": article(f"{right} one")}
    return stage.tell_all(templates, extra | {"thing": thing, "second": second})


def new_word(stage: Stage) -> str:
    """A word nobody knows, its plural, colour and use: all that is asked has just been said."""
    rng = stage.rng
    good, other = Good(invent_noun(rng), rng.randint(1, 30)), Good(invent_noun(rng), 1)
    templates = [
        "[{a} [found|bought|made|saw] {one}|There was {one} on {a}'s table|In {a.street} there is a man who sells {many}].",
        "[{one_cap} is [{size}|{colour}] and costs {price} coins|{many_cap} are {colour} and [{size}|come from the {place}]|Nobody knows what {one} is for|{a} uses {one} to {use}|{one_cap} is a kind of {kind}].",
        "[{b} has {N} {many}|{b} would like to have {N} {many} too|{a} gave {b} {N} {many}][, and {c} has {N2} {others}|].",
        '["How many {many} does {b} have?" asked {c}. "{N_cap}," said {a}.|"What is {one}?" asked {c}. "I do not know," said {b}. "Ask {a}."|"Is this {one}?" asked {b}. "No, this is {other}," said {a}. "{one_cap} is bigger."|{c} had never seen {one} before.|"One {good}, two {many}, three {many}," counted {b}.]',
    ]
    number = rng.randint(2, 30)
    extra: dict[str, object] = {"good": good, "one": article(good.one), "many": good.many, "one_cap": capital(article(good.one))}
    extra |= {
        "many_cap": capital(good.many),
        "price": rng.choice((good.price, spell(good.price))),
        "N": spell(number),
        "N_cap": capital(spell(number)),
    }
    extra |= {"N2": spell(rng.randint(2, 30)), "other": article(other.one), "others": other.many}
    extra |= {"size": rng.choice(("big", "small", "long", "heavy", "round")), "kind": rng.choice(sorted(_KINDS))}
    extra["use"] = rng.choice(("open doors", "clean the floor", "cut bread", "catch fish", "make soup", "sleep on"))
    return stage.tell_all(templates, extra)


def _listed(stage: Stage) -> list[str]:
    rng = stage.rng
    size = rng.randint(3, 6)
    choice = rng.randrange(7)
    if choice == 0:
        return rng.sample(COLOURS, size)
    if choice == 1:
        return rng.sample(DAYS, size)
    if choice == 2:
        return [str(rng.randint(1, 999)) for _ in range(size)]
    if choice == 3:
        return [capital(invent_word(rng, rng.choice((1, 2, 3)))) for _ in range(size)]
    if choice == 4:
        return [invent_street(rng) for _ in range(min(size, 4))]
    if choice == 5:
        return [invent_word(rng, rng.choice((1, 2))) for _ in range(size)]
    goods = [good for _, _, goods in SHOPS for good in goods]
    return [stage.basket().line(rng.randint(1, 30), good, "words") for good in rng.sample(goods, min(size, 4))]


def repeat(stage: Stage) -> str:
    """A list is read out, repeated and asked about; the plainest way to learn to copy."""
    rng = stage.rng
    items = _listed(stage)
    place = rng.randrange(len(items))
    after = rng.randrange(len(items) - 1)
    extra: dict[str, object] = {"list": series(items), "commas": ", ".join(items), "nth": ORDINALS[place], "item": items[place]}
    extra |= {
        "back": ", ".join(reversed(items)),
        "before": items[after],
        "next": items[after + 1],
        "last": items[-1],
        "N": spell(len(items)),
    }
    templates = [
        '[{a} [read|said|wrote|called out] {list}|"{commas}," [said|read] {a}|There were {N} words in the book, {list}|{a} had to [learn|remember] {list}].',
        '[{b} [repeated|wrote down|said after {a.them}], "{commas}."|{b} said {list} too.|"{commas}," repeated {b}.|"Say it again," said {b}. "{commas}," said {a}.]',
        '["What came after {before}?" asked {c}. "{next}," said {b}.|The last was {last}.|The {nth} was {item}.|"What was the {nth}?" asked {c}. "{item}," said {b}.|{c} said it backwards, "{back}."|]',
    ]
    return stage.tell_all(templates, extra)


def counting(stage: Stage) -> str:
    """Numbers in words and in digits, counted on, added and taken away."""
    rng = stage.rng
    x, y = rng.randint(1, 40), rng.randint(1, 20)
    big = rng.randint(20, 700)
    good = rng.choice(stage.shop.goods)
    templates = rng.sample(
        [
            "{X} and {Y} [make|are] {sum}.",
            "{Big} is written {big}[|, and {xw} is written {x}].",
            "{a} had {xw} {many} and got {yw} more, so {a.they} had {sum} {many}.",
            "{b} had {sumd} {many} and [gave {c}|lost|sold|ate] {yw} of them. {xcap} were left.",
            "{a} [counted|counted aloud], {run}.",
            '"How many {many} are there?" asked {a}. {b} counted them. "There are {bigw}," {b.they} said. {a} wrote {big} in the book.',
            "[House|Room|Bus|Page] number {big} is number {bigw}.",
            "{bigw_cap} is [more|greater] than {xless}, and {xless} is less than {bigw}.",
            "{a} is {xw20} years old, and {b} is {yw} years older. {b} is {age}.",
        ],
        rng.randint(2, 3),
    )
    start = rng.randint(1, 90)
    extra: dict[str, object] = {
        "X": capital(spell(x)),
        "x": x,
        "xw": spell(x),
        "xcap": capital(spell(x)),
        "Y": spell(y),
        "yw": spell(y),
    }
    extra |= {
        "sum": spell(x + y),
        "sumd": rng.choice((x + y, spell(x + y))),
        "Big": capital(spell(big)),
        "bigw": spell(big),
        "big": big,
    }
    extra |= {"bigw_cap": capital(spell(big)), "xless": spell(rng.randint(1, 19)), "xw20": spell(x + 10), "age": spell(x + 10 + y)}
    extra |= {"run": ", ".join(spell(number) for number in range(start, start + rng.randint(3, 8))), "many": good.many}
    return stage.tell_all(templates, extra)


def compare(stage: Stage) -> str:
    """Who is older, richer or nearer, from the numbers given."""
    rng = stage.rng
    one, two = rng.sample(stage.people[:3], 2)
    if one.age == two.age:
        return stage.tell("{x} and {y} are both {x.age} years old.", {"x": one, "y": two})
    old, young = (one, two) if one.age > two.age else (two, one)
    templates = [
        "{x} is {x.age} years old and {y} is {y.age}.",
        "[So {old} is older than {young}|{young} is younger than {old}|{old} is the older one].",
        '["Who is older, {x} or {y}?" asked {c}. "{old} is," said the {shop.trade}.|{x} lives at number {x.house} and {y} at number {y.house}.|{old} is {diff} years older.|]',
    ]
    return stage.tell_all(templates, {"x": one, "y": two, "old": old, "young": young, "diff": spell(old.age - young.age)})


_HERE = [
    "In the [room|house|shop|garden|kitchen] there [was|stood] {x}[, and next to it|. Next to it there was|. On top of it was] {y}.",
    "{x_cap} was {colour} and {y} was {hue}.",
    "[Behind|Under|In front of|Near] the {xs} [sat|slept|stood|lay] {pet}.",
    "{a} [looked at|took|touched|moved] the {xs} and [went away|said nothing|smiled|called {b}].",
    '"What colour [is|was] the {xs}?" asked {b}. "The {xs} [is|was] {colour}," said {a}.',
    "{b} [thought|said|believed] that the {ys} was [too small|very fine|worth {big} coins|older than the {xs}].",
    "There were {n} [windows|chairs|candles|pictures] in the [room|hall] and {big} [books|bottles|boxes|letters] in the cellar.",
]


def surroundings(stage: Stage) -> str:
    """Things in a room, their colours and places."""
    rng = stage.rng
    x, y = rng.sample("table chair bed clock mirror piano cupboard desk stove lamp bench picture vase chest".split(), 2)
    picked = sorted(rng.sample(range(1, len(_HERE)), rng.randint(2, 4)))
    extra: dict[str, object] = {"x": article(x), "xs": x, "y": article(y), "ys": y, "x_cap": "The " + x}
    text = stage.tell_all([_HERE[0]], extra)
    extra |= {"y": f"the {y}", "pet": article(f"{stage.people[1].pet.colour} {stage.people[1].pet.kind}")}
    return f"{text} {stage.tell_all([_HERE[at] for at in picked], extra)}"


SCENES: list[tuple[Callable[[Stage], str], float]] = [
    (kinds, 1.2),
    (new_word, 1.6),
    (repeat, 2.0),
    (counting, 1.6),
    (compare, 0.8),
    (surroundings, 1.2),
]
