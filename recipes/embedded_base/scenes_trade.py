# ruff: noqa: E501  (a template is easier to hear, and a list of words to read, on one line)
"""Scenes of buying and selling: shopping, orders by message, prices, stock, praise and complaint."""

from collections.abc import Callable

from stage import Basket, Stage
from words import article, capital, series, spell

_ARRIVE = [
    "[On {day}|Last {day}|Early on {day}|On {day} [morning|afternoon]|One {weather} {day}], {a} [went|walked|hurried|cycled] to {shop}[| on {shop.street}].",
    "{a} [needed {goods.kinds}|wanted to buy {goods.kinds}|was looking for {goods.kinds}], so on {day} {a.they} [went|walked] to {shop}[| in {shop.street}].",
    "It was [a {weather} {day}|{day}][| morning| afternoon], and {a} [stood in|came into|opened the door of] {shop}.",
    "{a.full} [often|always|sometimes|usually] [goes to|shops at] {shop}. On {day} {a.they} [wanted|needed] {goods.kinds}.",
]
_ASK = [
    '"[Good morning|Good afternoon|Hello|Good day]," said {keeper}. "[What would you like|What can I do for you|How can I help you]?" "[I would like|I want|I need|Please give me] {goods.words}[, please|]," said {a}.',
    '"[Do you have|Have you got] any {good.many}?" asked {a}. "[Yes|Yes, of course|Certainly]," said the {shop.trade}. "How many [do you need|would you like|do you want]?" "{n0_cap}[, please|]," {a.they} [said|answered|replied].',
    "{a.they_} asked for {goods.words}[, and {keeper} put [them|everything] in a bag|, and the {shop.trade} [smiled|nodded]|].",
    "{a.they_} [told|said to] the {shop.trade}[| that it was a nice day and] that {a.they} [needed|wanted] {goods.words}.",
]
_BUY = [
    "{a} [bought|took|chose] {goods.words}[ and paid {price_w} coins| and paid {price} coins|].",
    "{a.they_} [bought|got] {goods.one_words}[| for {price_w} coins| for {price} coins altogether].",
    "The {shop.trade} [packed|counted out|wrapped up] {goods.words} for {a}. [That was {price} coins|It cost {price_w} coins|{a.they_} paid {price} coins].",
    '"That is {price_w} coins," said the {shop.trade}, and {a} paid {price} coins.',
]
_RECALL = [
    'At home {c} asked, "What did you buy?" "{words_cap}," said {a}.',
    '"How many {good.many} did you [buy|get|bring]?" [asked {c}|{c} asked]. "{n0_cap}," [said {a}|{a} said|answered {a}].',
    "So {a} [came home|went home|left] with {goods.digits}.",
    '"When [were you|was that|did you go there]?" asked {c}. "[It was on|On] {day}," said {a}.',
    "On the way home {a} met {c}, who asked [what was in the bag|what {a.they} had bought]. {a} [showed {c.them}|had] {goods.words}.",
    "{c} wanted to know where {a} had bought the {good.many}. {a} said that {a.they} had bought them at {shop}.",
    '"Where did you buy the {good.many}?" asked {c}. "At {shop}," said {a}. "And what did you pay?" "{price_cap} coins," said {a}.',
    "The {shop.trade} wrote in {keeper.their} book that {a} had bought {goods.digits}.",
    "[In all|Altogether], that [was|made] {count_w} [things|pieces], or {count} in digits.",
]


def _trade_slots(basket: Basket) -> dict[str, object]:
    number, good = basket.lines[0]
    words = {"goods": basket, "good": good, "n0": number, "n0_cap": capital(spell(number)), "words_cap": capital(basket.words)}
    words |= {"price": basket.price, "price_w": spell(min(basket.price, 999)), "price_cap": capital(spell(min(basket.price, 999)))}
    return words | {"count": basket.count, "count_w": spell(basket.count), "digits": basket.digits, "one": article(good.one)}


def shopping(stage: Stage) -> str:
    """Somebody goes to a shop, asks, buys and is asked about it afterwards."""
    rng = stage.rng
    extra = _trade_slots(stage.basket(quantity=30))
    parts = [rng.choice(_ARRIVE), rng.choice(_ASK), rng.choice(_BUY)]
    return stage.tell_all(parts[: rng.choice((2, 3, 3))] + rng.sample(_RECALL, rng.choice((1, 1, 2))), extra)


_GREET = "[Hello|Hi|Good morning|Good evening|Good day|Hello there|Dear {keeper}]"
_MESSAGE = [
    _GREET
    + ", [this is|it is|here is] {a} from {a.street}. [[Could you|Would you|Can you] [keep|put by|set aside|save|prepare|pack] {goods.words} for me[, please|]?|Please [keep|put by|set aside|save|prepare|pack] {goods.words} for me.] I will [come|be there|pick them up|call] on {day}. [Thank you|Thanks]!",
    "[I would like|I want|I need|I should like] to order {goods.words}[, please|]. My name is {a.full} and I live at {a.house} {a.street}. [I can come on {day}.|Is {day} all right?|{day} would be best.]",
    _GREET
    + "! [We need|I need|My {a.relation} needs] {goods.one_words} [by|for|before] {day}. [Please|Kindly] [bring|send] them to {a.street}. [Yours, {a}|This is {a} speaking|{a} {a.last} is the name].",
    "{a} here[| from {a.street}]. [Keep|Save|Put aside] {goods.words} for me [until|till] {day}[, will you?|, please.|.]",
]
_CALL = [
    '{a} [called|rang|telephoned] {shop}. "{message}"',
    '{a} [wrote|sent|left] a [note|message|short letter] for the {shop.trade}. "{message}"',
    'On {third} there was a message from {a} at {shop}. It said, "{message}"',
]
_NOTED = [
    "The {shop.trade} [wrote down|noted] {goods.digits} for {a}[| from {a.street}| of {a.street}], for {day}.",
    "{keeper} read the message [again|twice|slowly]. {a} [of|from] {a.street} [wanted|needed|had ordered] {goods.one_words}, and it had to be ready on {day}.",
    'The {shop.trade} told {c} about it. "It is from {a}," {keeper.they} said. "{a.they_} wants {goods.words} on {day}." "Where does {a.they} live?" asked {c}. "[In|At] {a.street}," said {keeper}.',
    "On {day} {a} came [in|to {shop}] and [got|took|picked up|paid for] {goods.words}.",
    "So {keeper} packed {goods.digits}[| and put {a}'s name on the box| and wrote {a}, {a.street}, on the bag].",
    '"How many {good.many} does {a} want?" asked {c}. "{n0_cap}," said {keeper}. "And when?" "On {day}."',
    '["When will {a} come|For which day is it|When must it be ready|On which day does {a} want it]?" asked {c}. "On {day}," said {keeper}.',
    "[It was for {day}|{day} was the day|{keeper} marked {day} in the book], [and {a} was the name|and {a} of {a.street} had ordered it|and there were {n0} {good.many} to pack].",
]


def order(stage: Stage) -> str:
    """A message orders goods; the shop takes note, packs, and the customer comes."""
    extra = _trade_slots(stage.basket(quantity=30))
    slots = stage.slots() | extra
    stage.extra = {"day": slots["day"], "third": slots["third"]}
    message = stage.tell(stage.rng.choice(_MESSAGE), extra)
    noted = stage.rng.sample(_NOTED, stage.rng.choice((1, 2, 2, 3)))
    text = stage.tell_all([stage.rng.choice(_CALL), *noted], extra | {"message": message})
    stage.extra = {}
    return text


def prices(stage: Stage) -> str:
    """What one costs, what several cost, and what is cheaper."""
    rng = stage.rng
    first, second = rng.sample(stage.shop.goods, 2)
    many = rng.randint(2, 9)
    dear, cheap = (first, second) if first.price > second.price else (second, first)
    if dear.price == cheap.price:
        compare = "{x_cap} and {y} cost the same."
    else:
        compare = rng.choice(
            [
                "{dear_cap} [is more expensive than|costs more than] {cheap}.",
                "{cheap_cap} is cheaper than {dear}.",
                '"Which is cheaper, {x} or {y}?" asked {a}. "{cheap_cap}," said the {shop.trade}.',
                "{a} had only {cheap_p} coins, so {a.they} bought {cheap} and not {dear}.",
            ]
        )
    templates = [
        "At {shop}[| of {keeper}| in {shop.street}], {x} costs {p} coins[| and {y} costs {q} coins].",
        "[{N} {xs} cost {total} coins|For {total} coins you get {N} {xs}|{a} bought {N} {xs} and paid {total} coins].",
        compare,
        '[|"How much is {y}?" asked {b}. "{q_cap} coins," said {keeper}.|{b} asked what {y} cost, and the {shop.trade} said that it cost {q} coins.]',
    ]
    extra: dict[str, object] = {"x": article(first.one), "y": article(second.one), "xs": first.many, "N": spell(many)}
    extra |= {"x_cap": capital(article(first.one)), "dear": article(dear.one), "cheap": article(cheap.one)}
    extra |= {"dear_cap": capital(article(dear.one)), "cheap_cap": capital(article(cheap.one)), "cheap_p": cheap.price}
    extra |= {"p": rng.choice((spell(first.price), first.price)), "q": rng.choice((spell(second.price), second.price))}
    extra |= {"q_cap": capital(spell(second.price)), "total": first.price * many}
    return stage.tell_all(templates, extra)


def stock(stage: Stage) -> str:
    """What a shop sells, who runs it, what is left on the shelf."""
    rng = stage.rng
    goods = rng.sample(stage.shop.goods, min(len(stage.shop.goods), rng.randint(2, 5)))
    before, sold = rng.randint(12, 300), rng.randint(1, 11)
    templates = [
        "[{shop} [in|on] {shop.street} belongs to {keeper.full}|{keeper.full} is the {shop.trade} and [has|owns|runs] {shop} in {shop.street}|There is a {shop.kind} in {shop.street}, and the {shop.trade} is {keeper.full}].",
        "[It sells|You can buy|{keeper} sells] {list}[| there].",
        "[It is closed on {shop.closed}.|{shop} is open every day but {shop.closed}.|On {shop.closed} the shop is closed.|]",
        "[|On {day} there were {before} {good.many} on the shelf. {keeper} sold {sold} of them, and {left} were left.|In the morning there were {before_w} {good.many}, and in the evening there were only {left_w}.]",
        '[|"Do you sell {good.many}?" asked {a}. "Yes, we do," said the {shop.trade}.|"Do you sell elephants?" asked {a}. "No, we do not," [laughed|said] the {shop.trade}.]',
    ]
    extra: dict[str, object] = {"list": series([good.many for good in goods]), "good": goods[0], "before": before}
    extra |= {"before_w": spell(before), "sold": spell(sold), "left": before - sold, "left_w": spell(before - sold)}
    return stage.tell_all(templates, extra)


_PRAISE = [
    "The {good.many} [were|are] [very good|wonderful|fresh and cheap|the best in town|lovely|excellent].",
    "The {shop.trade} was [kind|friendly|patient|helpful|polite] and [helped|smiled at|thanked] {a}.",
    "{a} was [happy|pleased|glad|delighted] and [said so|thanked {keeper}|promised to come again|told all {a.their} friends about it].",
    '"[What a good shop|I like this shop|I have never had better {good.many}|Thank you, this is wonderful]!" said {a}.',
]
_BLAME = [
    "The {good.many} [were|are] [old|broken|too expensive|the worst in town|awful|dirty|much too small].",
    "The {shop.trade} was [rude|unfriendly|slow|impatient|angry] and [did not help|forgot|laughed at|did not listen to] {a}.",
    "{a} was [angry|sad|unhappy|disappointed|cross] and [said so|wanted {a.their} money back|left without a word|never came back].",
    '"[What a bad shop|I do not like this shop|I have never seen worse {good.many}|I want my money back|This is terrible]!" said {a}.',
]


def opinion(stage: Stage) -> str:
    """A visit that went well or badly, with the words for it."""
    rng = stage.rng
    mood = rng.choice((_PRAISE, _BLAME))
    good = rng.choice(stage.shop.goods)
    opening = "[On {day} {a} bought {one} at {shop}|{a} went to {shop} for {good.many}|{a} had ordered {good.many} from {shop}|{b} asked {a} what {a.they} thought of {shop}]."
    close = (
        "[{c} felt the same|{c} did not agree|{b} was surprised to hear it|So {b} went to {shop} too|]."
        if mood is _PRAISE
        else "[{c} felt the same|{c} did not agree|So {b} went to another shop|The {shop.trade} said that {keeper.they} was sorry|{b} was sorry to hear it]."
    )
    text = stage.tell_all([opening, *rng.sample(mood, rng.choice((2, 3))), close], {"good": good, "one": article(good.one)})
    return text.replace(" .", "")


SCENES: list[tuple[Callable[[Stage], str], float]] = [
    (shopping, 3.0),
    (order, 3.0),
    (prices, 1.2),
    (stock, 1.2),
    (opinion, 1.5),
]
