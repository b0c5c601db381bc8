# ruff: noqa: E501, SIM905  (a template is easier to hear, and a list of words to read, on one line)
"""Short tales of five to nine sentences, each a skeleton with many ways to be told."""

from collections.abc import Callable

from stage import Stage
from words import article

_NEIGHBOUR = [
    "[In {month}|Last {month}|On {day}] a new neighbour [moved into|came to live in|took] the [empty|old|white|little] house [in {b.street}|next to {a}|at the end of {b.street}].",
    "[{b.they_} was called {b.full}|The name was {b.full}|{b.full} was the name on the door], [and {b.they} was {job}|{job} from {town}|and nobody knew {b.them} yet].",
    "{a} [baked a cake|picked some flowers|took a basket of {a.food}] and [knocked at the door|went over to say hello|rang the bell].",
    '"[Welcome|Good evening|Hello], my name is {a}," {a.they} said. "[I live at number {a.house}|I live next door|We are neighbours now]." "[How kind of you|Thank you, {a}|Come in, please]," said {b}.',
    "[They drank tea and talked about {town}|{b} told {a.them} about {b.their} {b.relation} {b.relative}|{b} showed {a.them} {b.their} {b.pet.kind}, which was called {b.pet.name}].",
    "[Since then|From that day on|After that] [they have been good friends|they have met every {later}|{a} and {b} often go to the {place} together].",
]
_TRIP = [
    "[In summer|On {day}|During the holidays|Last {month}] {a}, {b} and {c} [went|made a trip|travelled] to {town}[| by train| by bus| by boat].",
    "[They had to get up at {hour} o'clock|The train left at {hour} o'clock|It took {n} hours to get there], [because the way was long|and {c} was still tired|but nobody minded].",
    "[{a} had packed {n} sandwiches and a map|{b} carried the bags|{c} sat by the window and looked at the fields|It was {weather} all the way].",
    "[In {town}|When they arrived] they [saw the old castle|walked through the narrow streets|visited the museum|swam in the lake], [and {b} took {big} pictures|and then they had lunch near the {place}|until their feet hurt].",
    '[|"I [like|love] this place," said {a}. "So do I," said {b}. "I would rather be at home," said {c}.|"How far is it to the {place}?" {c} asked a man. "About {n} miles," said the man.|{c} lost {c.their} ticket, but a kind woman found it under the seat.]',
    "[In the evening|At night|At {hour2} o'clock] they [came home|took the last train home|were back in {a.street}], [tired but happy|and {a} went straight to bed|and {a.pet.name} was waiting at the door].",
]
_STORM = [
    "[One night|On {day}|In {month}] there was a [great|terrible|sudden] storm.",
    "The wind [broke {n} windows|took the roof off the {place}|threw down the big tree in {a.street}][|, and the rain came into the houses| and nobody could sleep].",
    "{a} [was afraid|lit a candle|held {a.pet.name} in {a.their} arms|ran to the window], [because the light had gone out|and {b} told a story|while {b} closed the doors].",
    '"[Are you all right|Is everybody safe|Where is {c}]?" called {b}. "[Yes, we are all here|I think so|{c} is in the cellar]," said {a}.',
    "[In the morning|When it was light|The next day] [the sun shone again|the storm was over|everything was quiet], and [the neighbours came to help|they saw what had happened|{c} brought tools and {n} boards].",
    "[Together|Within {n} days] they [repaired the roof|cleaned the street|put in new windows][|, and nobody wanted any money for it|. {a} thanked them all].",
]
_COOKING = [
    "{a} [wanted to make|decided to cook|was making] [soup|a pie|a big supper|a cake] for {b}[|, who was coming at {hour} o'clock|'s birthday].",
    "{a.they_} [needed|took] {n} [eggs|apples|onions|carrots], [a pound of butter|some flour|a little salt] and [a cup of milk|a lemon|{a.food}].",
    "[First|To begin with] {a.they} [washed|cut|counted] [everything|the vegetables|the apples], and then {a.they} [put it all in a pot|mixed the rest in a bowl|heated the oven].",
    "[But|Unfortunately|Then] [there was no salt|the milk was sour|{a.pet.name} jumped on the table|{a} forgot the time], so [{a.they} asked {c} for help|{a.they} had to begin again|{a.they} ran to {shop}].",
    '"[What is that smell|Is it ready|What are we having]?" asked {b} [at the door|when {b.they} came in]. "[Wait and see|It is a surprise|Sit down, it is ready]," said {a}.',
    "[It tasted wonderful|The meal was a little too salty, but {b} ate everything|Nobody had ever eaten anything like it], and [{b} asked how it was made|there was nothing left|{c} washed the plates].",
]
_ILL = [
    "{a} [was ill|had a cold|had hurt {a.their} foot] and [could not get up|had to stay in bed for {n} days|could not go to work].",
    "{b} [called the doctor|made tea|went for medicine|came to see {a.them} every day][|, although {b.they} had little time].",
    'The doctor [looked at {a.their} tongue|listened to {a.their} heart|came at {hour} o\'clock] and said, "[You must rest|Take this {n} times a day|It is nothing serious]." "[For how long|When may I get up|Must I]?" asked {a}. "[Until {day}|For {n} days|Yes, you must]," said the doctor.',
    "{c} [read to {a.them}|fed {a.pet.name}|brought {a.food}|wrote a funny letter], [which made {a.them} laugh|and that helped more than the medicine|so the time went by].",
    "[On {later}|After {n} days|At last] {a} was [well|healthy|on {a.their} feet] again[| and went for a walk along {a.street}| and thanked {b} and {c}].",
]
_THIEF = [
    "[Somebody|A thief|A stranger] had [stolen|taken] {item} from {a}'s [house|garden|kitchen].",
    '"[Who did it|Who was here last night|Did you see anybody]?" {a} asked {b}. "[I saw a man with a {colour} hat|I heard a noise at {hour} o\'clock|I was asleep]," said {b}.',
    "They [went to the police|asked all the neighbours|looked for traces in the garden]. [There were {n} footprints near the gate|On the ground lay a {hue} button|Nobody knew anything].",
    "[In the end|A week later|On {later}] [it was found|{c} found it] [behind the {place}|in {c}'s cellar|in an old boat]. [It was not a thief at all, it was {a.pet.name}|The thief was never found|{a} had put it there and forgotten it].",
    '[|{a} was [ashamed|glad|angry] and [laughed|said nothing|bought a better lock].|"I am sorry," said {a}. "Never mind," said {b}. "The main thing is that you have it back."]',
]
_SCHOOL = [
    "[At school|In the lesson|On {day}] the teacher, {a.title}, asked the children {question}.",
    '"[I know|May I answer|Please, {a.title}]!" [called|said] {b}, and {b.they} [stood up|raised {b.their} hand]. "{answer}."',
    "{a.title} [was pleased|nodded|smiled] and [wrote it on the board|gave {b.them} a {colour} pencil|asked {c} next].",
    '{c} [had not listened|was looking out of the window|had forgotten {c.their} book|was drawing a {c.pet.kind}]. "[{c}, what did I ask|Where is your book|Are you asleep], {c}?" "[I am sorry|At home|No, I am awake]," said {c}.',
    "[There were {n} children in the class|The lesson lasted until {hour} o'clock|Afterwards they all ran into the yard|In the break they ate their bread], [and everybody laughed|and {b} shared {b.food} with {c}|but {c} had to stay].",
    "[When {b} came home, {b.their} {b.relation} asked what {b.they} had learned|That was the shortest lesson of the week|The next day {c} knew all the answers].",
]
_WORK = [
    "{a} works as {job} [in {town}|near the {place}|in {a.street}]. [{a.they} begins at {hour} o'clock|{a.they} starts early|{a.they} goes there by bus] and [comes home in the evening|is never late|works until it is dark].",
    "[It is hard work|The work is not easy|It is the best work in the world], but [{a.they} likes it|it is well paid|somebody has to do it|{b} helps {a.them}].",
    "[Every|Each] {day} {a.they} [earns {big} coins|has {n} people to help|must write a report], and on {later} {a.they} [is free|rests|goes to the {place} with {c}].",
    "[Once|One day|Last {month}] [the master was ill|there was too much to do|a machine broke], so [{a} had to do everything alone|{a} worked all night|{a} called {b} for help].",
    '"[You have done well|I could not have done it better|Without you we would have been lost]," said {b}. "[It was nothing|Thank you|I only did my work]," said {a}.',
    "[Some day|In {n} years] {a} would like to [be {job2}|have a shop of {a.their} own|live by the sea|stop working].",
]
_LESSONS = [
    ("how many days a week has", "It has seven days"),
    ("where the sun rises", "It rises in the east"),
    ("how many legs a dog has", "A dog has four legs"),
    ("what bees make", "Bees make honey"),
    ("what bread is made of", "It is made of flour and water"),
    ("which month comes after March", "April comes after March"),
    ("what they wanted to become", "I want to be {job}"),
    ("what is white and cold", "The snow is white and cold"),
    ("how many months a year has", "A year has twelve months"),
    ("what we need when it rains", "We need a coat and a hat"),
]
_TALES = [_NEIGHBOUR, _TRIP, _STORM, _COOKING, _ILL, _THIEF, _SCHOOL, _WORK]
_MONTHS = "January February March April May June July August September October November December".split()
_TOWNS = "Marlow Easton Brackley Norwood Harwick Selby Thornbury Kelso Ludford Oldbridge Seaham".split()


def tale(stage: Stage) -> str:
    """One of the tales, with the middle sometimes shortened."""
    rng = stage.rng
    skeleton = rng.choice(_TALES)
    middle = skeleton[1:-1]
    kept = sorted(rng.sample(range(len(middle)), rng.randint(len(middle) - 1, len(middle))))
    good = rng.choice(stage.shop.goods)
    jobs = {
        "job": article(stage.people[1].job if skeleton is _NEIGHBOUR else stage.people[0].job),
        "job2": article(stage.people[2].job),
    }
    question, answer = rng.choice(_LESSONS)
    extra = {
        "question": question,
        "answer": answer.format_map(jobs),
        "month": rng.choice(_MONTHS),
        "town": rng.choice(_TOWNS),
        "item": article(good.one),
        **jobs,
    }
    return stage.tell_all([skeleton[0], *(middle[at] for at in kept), skeleton[-1]], extra)


SCENES: list[tuple[Callable[[Stage], str], float]] = [(tale, 6.0)]
