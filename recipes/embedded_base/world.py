# ruff: noqa: SIM905  (a list of words reads best as a line of words)
"""A small consistent town, and strangers made up on the spot.

Residents and shops are drawn once from the seed and never change, so facts told of them agree across documents.
Strangers are drawn anew for each document: whoever reads about them has to look back and cannot remember.
"""

import random
from dataclasses import dataclass

from words import capital, plural

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COLOURS = "red blue green yellow white black brown grey crimson purple pink golden silver".split()
WEATHER = "sunny rainy windy cloudy cold warm foggy snowy stormy hot frosty quiet".split()

WOMEN = (
    "Mira Anna Clara Edith Flora Greta Hanna Ida Julia Karen Lena Maud Nora Olive Paula Rosa Sara Tilda Una Vera "
    "Wanda Alice Bella Cora Dora Ella Fay Gwen Hazel Iris Jane Kate Lucy Mary Nell Opal Pearl Ruth Stella Tess "
    "Agnes Beth Celia Daisy Emma Freda Grace Helen Ivy Joan Laura Mabel Nina Polly Rita Susan Thea Viola Willa Zoe"
).split()
MEN = (
    "Tom Adam Ben Carl David Edgar Frank George Henry Ivan Jack Karl Leo Max Ned Oscar Paul Ralph Sam Theo "
    "Victor Walter Alan Boris Colin Dan Eric Felix Gus Hugo Ian James Ken Lewis Mark Noah Otto Peter Ray Simon "
    "Arthur Bruno Cyril Dennis Ernest Fred Gilbert Harold Isaac John Luke Martin Nathan Oliver Philip Robert Stan "
    "Tim Vincent Will"
).split()
SURNAMES = (
    "Marsh Bell Cooper Draper Fisher Gale Hill Irving Jarvis Kemp Lowe Mason North Oakes Page Quill Reed Stone "
    "Turner Underhill Vance Ward Yates Ashby Birch Croft Dale Ellis Finch Grant Hobbs Keel Lamb Moss Nash Pike "
    "Rowe Swan Thorne Wells"
).split()
STREETS = (
    "Bell Lane,Mill Road,Church Street,River Walk,High Street,Orchard Row,Station Road,Park Lane,Castle Hill,"
    "Bridge Street,Garden Square,Harbour Road,Willow Lane,King Street,Forge Lane,Meadow Way,Abbey Close,"
    "Fox Hill,Market Square,Chapel Lane,Lake Road,Queen Street,Barn Lane,Cherry Row"
).split(",")
STREET_KINDS = "Lane Road Street Walk Row Hill Square Way Close Court Alley Drive".split()
JOBS = (
    "teacher nurse farmer carpenter painter driver doctor writer singer gardener cook builder postman librarian "
    "sailor plumber clerk weaver miller student engineer lawyer photographer shepherd"
).split()
PLACES = "park river library station school harbour church market hill lake forest bridge garden field beach".split()
PETS = "cat dog rabbit parrot pony goat hen mouse hamster turtle duck donkey".split()
HOBBIES = (
    "swimming,reading,cooking,painting,fishing,dancing,singing,gardening,walking in the forest,playing chess,"
    "playing the piano,playing the violin,riding a bicycle,telling stories,collecting stamps,baking cakes,"
    "watching birds,writing letters,knitting,sailing"
).split(",")

# shop | keeper | what it sells, with the usual price of one; no plural here that `words.plural` cannot make
_SHOPS = """
bakery|baker|loaf=3,bread roll=1,bun=1,cake=9,pie=6,apple tart=5,biscuit=1,bag of flour=4,ginger cake=8
grocer's shop|grocer|apple=1,pear=1,lemon=1,potato=1,tomato=2,carrot=1,onion=1,cabbage=3,jar of honey=6,bag of rice=4,box of eggs=5
dairy|dairyman|bottle of milk=2,pound of butter=5,pot of cream=4,piece of cheese=6,tub of yoghurt=3,box of eggs=5
book shop|bookseller|novel=12,cookbook=15,atlas=20,dictionary=18,map=7,comic=3,diary=8,picture book=9
tool shop|ironmonger|hammer=14,saw=16,bucket=6,ladder=30,box of nails=4,rope=9,spade=18,lamp=17,kettle=21,tin of paint=12
flower shop|florist|rose=3,tulip=2,lily=3,bunch of daisies=5,bag of seeds=4,fern=7,pot of basil=5,wreath=13
toy shop|toymaker|kite=8,doll=12,ball=5,puzzle=9,drum=15,toy train=22,spinning top=4,box of blocks=11,puppet=10
clothes shop|tailor|coat=45,scarf=9,hat=12,shirt=18,dress=32,belt=8,jacket=38,pair of gloves=10,pair of socks=4
fish shop|fishmonger|trout=7,crab=9,lobster=25,pound of shrimps=8,salmon=14,tin of sardines=3
sweet shop|confectioner|bar of chocolate=3,bag of toffees=2,lollipop=1,box of fudge=6,jar of jam=5,tin of biscuits=7
paper shop|stationer|pencil=1,pen=3,notebook=4,envelope=1,stamp=2,bottle of ink=5,sheet of card=1,ruler=2,box of chalk=3
pottery|potter|bowl=8,plate=6,cup=4,vase=16,teapot=19,jug=11,dish=9,mug=5
tea house|waiter|cup of tea=2,pot of coffee=4,sandwich=5,slice of cake=3,glass of juice=2,bowl of soup=6
market stall|trader|melon=4,basket of plums=5,bag of nuts=3,pumpkin=6,bunch of grapes=4,sack of potatoes=9,candle=2,basket=10
""".strip()

_ONSETS = "b br c cl d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t th tr v w y z bl fr gl pl sl sn sp ch".split()
_VOWELS = "a e i o u ai ea ee o oo ou a e i o".split()
_CODAS = "n l r s m t d k th nd st ck sh lt rn x b p g v nn ll ss".split()


@dataclass(frozen=True)
class Good:
    """A thing that is sold: its name, its shop's kind and what one costs in coins."""

    one: str
    price: int

    @property
    def many(self) -> str:
        """The plural."""
        return plural(self.one)

    def __str__(self) -> str:
        return self.one


@dataclass(frozen=True)
class Pet:
    """An animal that somebody keeps."""

    kind: str
    name: str
    colour: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Person:
    """Somebody of the town or a stranger. Pronouns are attributes, so that templates can write ``{a.they}``."""

    name: str
    last: str
    female: bool
    age: int
    house: int
    street: str
    job: str
    hobby: str
    colour: str
    food: str
    pet: Pet
    relative: str
    relation: str

    def __str__(self) -> str:
        return self.name

    @property
    def full(self) -> str:
        """First and last name."""
        return f"{self.name} {self.last}"

    @property
    def they(self) -> str:
        """She or he."""
        return "she" if self.female else "he"

    @property
    def they_(self) -> str:
        """She or he, at the head of a sentence that follows a quotation."""
        return capital(self.they)

    @property
    def them(self) -> str:
        """Her or him."""
        return "her" if self.female else "him"

    @property
    def their(self) -> str:
        """Her or his."""
        return "her" if self.female else "his"

    @property
    def theirs(self) -> str:
        """Hers or his, standing alone."""
        return "hers" if self.female else "his"

    @property
    def title(self) -> str:
        """Mrs or Mr with the last name."""
        return f"{'Mrs' if self.female else 'Mr'} {self.last}"


@dataclass(frozen=True)
class Shop:
    """A shop of the town."""

    kind: str
    trade: str
    keeper: Person
    street: str
    goods: tuple[Good, ...]
    closed: str

    def __str__(self) -> str:
        return f"the {self.kind}"


def invent_word(rng: random.Random, syllables: int = 2) -> str:
    """A word that nobody has met, in lower case (``"brasket"``)."""
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < 0.5 else "")]
    while len(parts) < syllables:
        parts.append(rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < 0.6 else ""))
    return "".join(parts)


def invent_noun(rng: random.Random) -> str:
    """A made-up noun whose plural is regular."""
    word = invent_word(rng, rng.choice((1, 2, 2)))
    return word + rng.choice("tnlkm") if word[-1] in "aeiouyszxhf" else word


def invent_good(rng: random.Random) -> Good:
    """A made-up thing with a regular plural."""
    word = invent_noun(rng)
    return Good(word if rng.random() < 0.7 else f"{rng.choice(COLOURS)} {word}", rng.randint(1, 30))


def invent_street(rng: random.Random) -> str:
    """A street name, made up."""
    word = rng.choice(SURNAMES) if rng.random() < 0.4 else capital(invent_word(rng))
    return f"{word} {rng.choice(STREET_KINDS)}"


def make_person(rng: random.Random, invented: float, streets: list[str]) -> Person:
    """Draw a person; `invented` is the chance that each of the names is made up instead of common."""

    def pick(names: list[str]) -> str:
        return capital(invent_word(rng, rng.choice((1, 2, 2, 2)))) if rng.random() < invented else rng.choice(names)

    female = rng.random() < 0.5
    street = invent_street(rng) if rng.random() < invented else rng.choice(streets)
    relation, kin_female = rng.choice(
        (
            *(("sister", True), ("brother", False), ("mother", True), ("father", False), ("aunt", True), ("uncle", False)),
            *(("cousin", True), ("cousin", False), ("daughter", True), ("son", False), ("grandmother", True)),
        )
    )
    return Person(
        name=pick(WOMEN if female else MEN),
        last=pick(SURNAMES),
        female=female,
        age=rng.randint(18, 80),
        house=rng.randint(1, 160),
        street=street,
        job=rng.choice(JOBS),
        hobby=rng.choice(HOBBIES),
        colour=rng.choice(COLOURS),
        food=rng.choice(rng.choice(EDIBLE)[2][:6]).many,
        pet=Pet(rng.choice(PETS), pick(WOMEN + MEN), rng.choice(COLOURS[:8])),
        relative=pick(WOMEN if kin_female else MEN),
        relation=relation,
    )


def _read_shops() -> list[tuple[str, str, tuple[Good, ...]]]:
    shops = []
    for line in _SHOPS.splitlines():
        kind, trade, goods = line.split("|")
        pairs = (item.split("=") for item in goods.split(","))
        shops.append((kind, trade, tuple(Good(name, int(price)) for name, price in pairs)))
    return shops


SHOPS = _read_shops()
EDIBLE = [shop for shop in SHOPS if shop[0] in ("bakery", "grocer's shop", "sweet shop", "market stall")]
DURABLE = [good for shop in SHOPS if shop[0].split()[0] in ("book", "tool", "toy", "clothes") for good in shop[2]]


class World:
    """The town of one seed: 90 residents and a shop of every kind."""

    def __init__(self, seed: int = 7) -> None:
        rng = random.Random(f"world {seed}")
        self.residents: list[Person] = []
        while len(self.residents) < 90:
            person = make_person(rng, 0.0, STREETS)
            if all(person.full != other.full for other in self.residents):
                self.residents.append(person)
        keepers = rng.sample(self.residents, len(SHOPS))
        self.shops = [
            Shop(kind, trade, keeper, rng.choice(STREETS), goods, rng.choice(DAYS))
            for (kind, trade, goods), keeper in zip(SHOPS, keepers, strict=True)
        ]

    def stranger(self, rng: random.Random) -> Person:
        """A person of this document alone."""
        return make_person(rng, rng.choice((0.0, 0.3, 1.0)), STREETS)

    def strange_shop(self, rng: random.Random) -> Shop:
        """A shop of this document alone, now and then with a few made-up goods."""
        kind, trade, goods = rng.choice(SHOPS)
        if rng.random() < 0.4:
            goods = (*rng.sample(goods, 4), *(invent_good(rng) for _ in range(rng.randint(1, 4))))
        own = tuple(Good(good.one, max(1, good.price + rng.randint(-2, 6))) for good in goods)
        return Shop(kind, trade, self.stranger(rng), make_person(rng, 0.3, STREETS).street, own, rng.choice(DAYS))
