# ruff: noqa: E501, SIM905  (a template is easier to hear, and a list of words to read, on one line)
"""Scenes of daily life: portraits, visits, gifts, lost things, pets, letters, plans, weather and talk."""

from collections.abc import Callable

from stage import Stage
from words import ORDINALS, article, capital, series, spell
from world import DAYS, DURABLE, PETS, PLACES, WEATHER, invent_word

_PORTRAIT = [
    "{a.full} lives [in|at number {a.house} in] {a.street}.",
    "{a} is [{age_w}|{a.age}] years old[| and works as {job}].",
    "{a.they} is {job}[| and likes the work|, and {b} is {job_b}].",
    "{a.their} {a.relation} is called {a.relative}.",
    "{a} [likes|loves|enjoys] {a.hobby}[| and {a.food}|, but {a.they} does not like {b.food}].",
    "{a.their} favourite colour is {a.colour}[|, and {b} likes {b.colour} best].",
    "{a} has {pet} called {a.pet.name}[|. {a.pet} is {a.pet.colour}].",
    "[{a} and {b} are friends|{a} is a friend of {b}|{a} knows {b.full} [well|from school]|{b} is {a.their} neighbour].",
    "[Before that, {a.they} lived in {b.street}|{a.they} has lived there for {years} years|{a.they} wants to move to {b.street}|On {day} {a.they} goes to the {place}].",
]
_PORTRAIT_ASK = [
    '"Where does {a} live?" asked {c}. "[In|{a.they_} lives in] {a.street}," said {b}.',
    '"What does {a} do?" asked {c}. "{a.they_} is {job}," [said|answered] {b}.',
    '"How old is {a}?" "{age_cap}," said {b}.',
    '"Who is {a.relative}?" asked {c}. "{a.relative} is {a.their} {a.relation}," said {b}.',
    '"What is the name of {a.their} {a.pet.kind}?" "{a.pet.name}," said {b}.',
    '"Does {a} like {a.hobby}?" "Yes, {a.they} does," said {b}.',
    '"Is {a} {wrong_job}?" asked {c}. "No, {a.they} is {job}," said {b}.',
    "So it is {a} who has a {a.pet.kind}, and [{b} has a {b.pet.kind}|{b} has none].",
    "{a} lives in {a.street} and {b} lives in {b.street}. [They are neighbours|They often meet at the {place}|Both of them like {a.hobby}].",
]


def portrait(stage: Stage) -> str:
    """Facts about one person, some of them asked and told again."""
    rng, a = stage.rng, stage.people[0]
    extra: dict[str, object] = {"job": article(a.job), "job_b": article(stage.people[1].job), "age_w": spell(a.age)}
    extra |= {"age_cap": capital(spell(a.age)), "years": spell(rng.randint(2, 30)), "pet": article(f"{a.pet.colour} {a.pet.kind}")}
    extra |= {"wrong_job": "a sailor" if a.job != "sailor" else "a baker"}
    facts = rng.sample(_PORTRAIT[1:], rng.randint(2, 5))
    return stage.tell_all([_PORTRAIT[0], *facts, *rng.sample(_PORTRAIT_ASK, rng.choice((0, 1, 1, 2)))], extra)


def gift(stage: Stage) -> str:
    """A thing passes from hand to hand; who has it now?"""
    good = stage.rng.choice(DURABLE)
    templates = [
        "[It was {b}'s birthday|{b} was ill|{b} had a new house|{b} had been kind to {a}|On {day} {a} visited {b}][, and| and so] {a} [gave|brought|took|made] {b.them} {one}.",
        '[|"Is this for me?" asked {b}. "Yes, it is for you," said {a}.|"Thank you, {a}," said {b}. "It is [lovely|just what I wanted|beautiful]."|{b} thanked {a.them} [warmly|and smiled|many times].]',
        "[|Later {b} [gave|sold|lent] the {good} to {c}. Now {c} has the {good}, and {b} has none.|{b} kept the {good} for many years.|But {b} did not need the {good} and gave it back to {a}. So {a} still has it.]",
        '[|"Who gave you the {good}?" asked {c}. "{a} gave it to me," said {b}.|{c} wanted {one} too.|{c} asked whose {good} it was. {a} said that it had been {a.theirs}.]',
    ]
    given = good.one if " " in good.one else f"{stage.slots()['colour']} {good.one}"
    return stage.tell_all(templates, {"good": good, "one": article(given)})


def lost(stage: Stage) -> str:
    """Something is lost, looked for and found."""
    rng = stage.rng
    good = rng.choice(DURABLE)
    spots = rng.sample(
        [
            "under the bed",
            "behind the door",
            "on the table",
            "in the garden",
            "next to the window",
            "in a box",
            "near the {far}",
            "in {c}'s house",
            "on the shelf",
            "under a chair",
        ],
        3,
    )
    templates = [
        "{a} [had lost|could not find|was looking for] {a.their} {colour} {good}[| and was sad|. {a.they} had had it for {n} years].",
        f'[{{a.they}} looked {spots[0]}, but it was not there|"Have you seen my {{good}}?" {{a.they}} asked {{b}}. "No, I have not," said {{b}}. "Where did you see it last?" "I think it was {spots[0]}," said {{a}}|First {{a.they}} looked {spots[0]} and then {spots[1]}, but {{a.they}} found nothing].',
        f"[At last|Then|In the evening|After {{n}} hours] {{b}} found the {{good}} {spots[2]}.",
        f'[|"Where was it?" asked {{a}}. "It was {spots[2]}," said {{b}}.|{{a}} was [happy|very glad|so pleased that {{a.they}} laughed].|{{c}} asked where the {{colour}} {{good}} had been. {{b}} said that it had been {spots[2]}.]',
    ]
    slots = stage.slots()
    return stage.tell_all(templates, {"good": good.one} | {name: slots[name] for name in ("colour", "far")})


_VISIT = [
    "[On {day}|On {day} [morning|afternoon|evening]|One {weather} {day}|At {hour} o'clock on {day}] {a} [went|walked|drove|ran] [to the {place}|from the {place} to the {elsewhere}|along {a.street} to the {place}].",
    "[There|Near the {place}|On the way] {a.they} [met|saw] {b}, who was [{b.hobby}|going home|waiting for {c}|talking to {c}|carrying a {colour} bag].",
    '"[Hello, {b}|Good morning, {b}]," said {a}. "Where are you going?" "I am going to the {elsewhere}," [said|answered] {b}. [{b.they_} asked, "Will you come with me?" "[Yes, gladly|I cannot, I have to work|No, thank you]," said {a}.|"And you?" "I am going to the {far}," said {a}.]',
    "They [[talked|sat and talked] [about {c}|about the weather|for {n} hours|until it was dark]|walked [together|on together|side by side] as far as the {far}].",
    "[Then it began to rain, so they went home|Then {a} said goodbye and went home to {a.street}|In the evening they were tired but happy|{b} invited {a} to supper on {later}|It was late when {a} came home].",
    '"[When|On which day] did you [see|meet] {b}?" asked {c}. "It was on {day}," said {a}.',
    "{a} [had never been to|liked|often thought of] the {place}[| because it was quiet there| although it was far away].",
]


def visit(stage: Stage) -> str:
    """Somebody goes somewhere and meets somebody."""
    picked = sorted(stage.rng.sample(range(1, len(_VISIT)), stage.rng.randint(2, 4)))
    return stage.tell_all([_VISIT[0], *(_VISIT[at] for at in picked)])


def pets(stage: Stage) -> str:
    """An animal does something, and is spoken of."""
    rng = stage.rng
    other = rng.choice([kind for kind in PETS if kind != stage.people[0].pet.kind])
    templates = [
        "{a} has a {a.pet.kind}[| called {a.pet.name}]. [{a.pet} is {a.pet.colour} and [small|big|very old|young|clever]|The {a.pet.kind}'s name is {a.pet.name}|It is {a.pet.colour} and answers to the name of {a.pet.name}].",
        "[Every morning|On {day}|One {weather} night] {a.pet} [ran away|slept in the garden|sat on the roof|chased a {other}|ate all the {b.food}|hid under the table|jumped over the fence].",
        '[{a} [called|shouted], "{a.pet.name}! {a.pet.name}, where are you?"|"Where is {a.pet}?" asked {b}. "I do not know," said {a}.|{a} was [not angry|worried|surprised].|"Bad {a.pet.kind}!" said {a}.]',
        "[{b} found {a.pet} near the {place} and brought it [back|home]|In the end {a.pet} came back by itself|{b}'s {other} and {a.pet} became friends|After that, {a} always closed the door|{a.pet} only looked at {a.them} and went to sleep].",
        '[|"Is {a.pet} a {other}?" asked {c}. "No, {a.pet} is a {a.pet.kind}," said {a}.|{c} asked what colour {a.pet} was. {a} said that {a.pet} was {a.pet.colour}.]',
    ]
    return stage.tell_all(templates, {"other": other})


_LETTER_BODY = [
    "I [hope you are well|am well|have not written for a long time|was glad to get your letter].",
    "[I am staying with {c} in {c.street}|I have a new job as {job}|Last {day} I went to the {place} with {c}|My {a.relation} {a.relative} is here too|It has been {weather} for {n} days].",
    "[I bought {one} for you|I found {one} at {shop}|I need {one}|I have lost my {good}].",
    "[Will you visit me on {later}|Do you remember {c}|When are you coming|How is {b.pet.name}]?",
    "[Please write soon|I will write again on {later}|I shall come home in {n} days|I miss you all].",
]

_LETTER_START = "[On {day} {a} wrote to {b}|On {day} {b} got a letter from {a}|This is what {a} wrote to {b} on {day}|On {day} a letter came for {b}]."
_LETTER_END = (
    "[{b} read the letter [twice|aloud] and [smiled|put it in a drawer|answered the same day]."
    '|"Who wrote to you?" asked {c}. "It was {a}," said {b}.|"When did it come?" asked {c}. "On {day}," said {b}.|{b} told {c} that {a} had written.|]'
)


def letter(stage: Stage) -> str:
    """A letter in the first person, and what is made of it."""
    rng = stage.rng
    slots = stage.slots()
    setting = {name: slots[name] for name in ("day", "later", "place", "weather", "n")}
    good = rng.choice(stage.shop.goods)
    setting |= {"good": good, "one": article(good.one), "job": article(stage.people[0].job)}
    picked = sorted(rng.sample(range(len(_LETTER_BODY)), rng.randint(2, 4)))
    body = stage.tell_all([_LETTER_BODY[at] for at in picked], setting)
    start = stage.tell(_LETTER_START, setting)
    end = stage.tell(_LETTER_END, setting)
    greeting = stage.tell("[Dear|My dear] {b},") + " " if rng.random() < 0.6 else ""
    farewell = rng.choice(("Yours", "Love", "Your friend"))
    return f'{start} "{capital(greeting + body)} {farewell}, {stage.people[0]}." {end}'.strip()


_SAYINGS = [
    ("I am tired", "was tired"),
    ("I am hungry", "was hungry"),
    ("I have no money", "had no money"),
    ("I like {a.food}", "liked {a.food}"),
    ("I live in {a.street}", "lived in {a.street}"),
    ("I will come on {day}", "would come on {day}"),
    ("I have seen {c} at the {place}", "had seen {c} at the {place}"),
    ("I can swim", "could swim"),
    ("I bought {n} {foods}", "had bought {n} {foods}"),
    ("I do not know {c}", "did not know {c}"),
    ("I am going to the {place}", "was going to the {place}"),
    ("I must work on {day}", "had to work on {day}"),
    ("I need {n} {foods}", "needed {n} {foods}"),
    ("My {a.pet.kind} is called {a.pet.name}", "had a {a.pet.kind} called {a.pet.name}"),
]


def reported(stage: Stage) -> str:
    """The same thing said, reported, asked about and denied."""
    said, told = stage.rng.choice(_SAYINGS)
    templates = [
        f'"{said}," [said {{a}}|{{a}} said|{{a}} told {{b}}].',
        f"[{{a}} [said|told {{b}}] that {{a.they}} {told}|{{b}} [heard|understood|wrote to {{c}}] that {{a}} {told}].",
        f'[|"What did {{a}} say?" asked {{c}}. "{{a.they_}} said that {{a.they}} {told}," [said|answered] {{b}}.|{{c}} [asked whether|wanted to know if] {{a}} {told}. "Yes," said {{b}}.|{{c}} did not believe that {{a}} {told}.]',
    ]
    return stage.tell_all(templates, {"foods": stage.people[1].food})


_PLANS = [
    "[On {day}|Next {day}|Tomorrow] {a} will {do}[|, and {b} will help {a.them}].",
    "{a} [wants|hopes|plans|has promised] to {do} [on {day}|before {day}|if it is not {weather}].",
    "If it [rains|is {weather}], {a.they} will stay at home and {do2}.",
    "{b} would [rather {do2}|like to {do} too|{do} if {b.they} had time].",
    "Last year {a} [wanted to {do}, but {a.they} was ill|did the same|had no time for it].",
    '"What will you do on {day}?" asked {b}. "I will {do}," said {a}.',
    '"When will you {do}?" "On {day}," said {a}. "[May I come|Can I help]?" "[Of course|Yes, please|No, not this time]."',
    "{a} must not forget to {do}, [so {a.they} wrote it down|because {c} is waiting for it|so {b} will tell {a.them} again].",
]
_DEEDS = "paint the house;visit {c};go to the {place};clean the kitchen;bake a cake;buy {foods};read a book;repair the roof;feed the {a.pet.kind};learn to swim;write to {c};sell the old car;plant a tree;wash the windows;cook for {c};play chess with {c}".split(
    ";"
)


def plans(stage: Stage) -> str:
    """What will, would, must or may be done."""
    one, two = stage.rng.sample(_DEEDS, 2)
    slots = stage.slots() | {"foods": stage.people[0].food}
    return stage.tell_all(
        stage.rng.sample(_PLANS, stage.rng.randint(2, 4)), {"do": one.format_map(slots), "do2": two.format_map(slots)}
    )


def weather(stage: Stage) -> str:
    """The days of a week and what happened on them."""
    rng = stage.rng
    start, length = rng.randrange(7), rng.randint(2, 4)
    days = [DAYS[(start + step) % 7] for step in range(length)]
    kinds = rng.sample(WEATHER, length)
    lines = []
    for day, kind, place in zip(days, kinds, rng.sample(PLACES, length), strict=True):
        went = f"On {day} it was {kind} and WHO went to the {place}."
        stayed = f"{day} was {kind}, and WHO stayed at home."
        worked = f"It was {kind} on {day}[| and WHO worked in the garden]."
        lines.append(rng.choice((went, stayed, worked)).replace("WHO", rng.choice(("{a}", "{b}", "they"))))
    at = rng.randrange(length)
    asked = f'"What was the weather like on {days[at]}?" asked {{c}}. "It was {kinds[at]}," said {{a}}.'
    liked = f"{{a}} liked the {kinds[at]} {days[at]} best."
    after = f"The day after {days[at]} was {DAYS[(DAYS.index(days[at]) + 1) % 7]}."
    return stage.tell_all([*lines, rng.choice((asked, liked, after, ""))])


def row_of_people(stage: Stage) -> str:
    """People in an order: who was first, who came after whom."""
    rng = stage.rng
    size = min(len(stage.people), rng.randint(3, 4))
    people = rng.sample(stage.people, size)
    at = rng.randrange(size)
    event = rng.choice(("race", "queue", "boat race", "cooking contest", "chess game", "long walk", "dance"))
    templates = [
        f"[On {{day}} there was a {event}|There was a {event} at the {{place}}|They all took part in the {event}].",
        " ".join(
            f"{person} [was|came] {ORDINALS[place]}[| with {{n}} points]." if place < 1 else f"{person} was {ORDINALS[place]}."
            for place, person in enumerate(people)
        ),
        f"[{people[0]} was before {people[1]}|{people[1]} came after {people[0]}|Nobody was behind {people[-1]}|{people[-1]} was the last].",
        f'["Who was {ORDINALS[at]}?" asked [somebody|a child|the {{shop.trade}}]. "{people[at]} was," said {people[0] if at else people[1]}.|{series([person.name for person in people])} went home together.|The prize was a {{colour}} {invent_word(rng)}.]',
    ]
    return stage.tell_all(templates)


SCENES: list[tuple[Callable[[Stage], str], float]] = [
    (portrait, 3.0),
    (gift, 1.3),
    (lost, 1.3),
    (visit, 2.0),
    (pets, 1.2),
    (letter, 1.3),
    (reported, 1.8),
    (plans, 1.5),
    (weather, 0.8),
    (row_of_people, 1.0),
]
