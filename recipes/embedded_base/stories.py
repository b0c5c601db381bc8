"""Documents: a few scenes in a row that share their people, written from a seed.

Half of the documents are about residents of the town, whose facts stay the same everywhere; the other half are about
strangers, so that only what was said earlier in the document helps. No document looks like a task: there are no
questions with marked answers, no instructions, no fields.
"""

import random
from collections.abc import Iterator

import scenes_life
import scenes_plain
import scenes_tales
import scenes_trade
from stage import Stage
from world import World

_SCENES = scenes_trade.SCENES + scenes_life.SCENES + scenes_plain.SCENES + scenes_tales.SCENES
_WEIGHTS = [weight for _, weight in _SCENES]


def document(world: World, seed: int, index: int) -> str:
    """Document number `index` of the text of `seed`; every document has its own random stream."""
    rng = random.Random(f"{seed}/{index}")
    strange = rng.random() < 0.55
    people = [world.stranger(rng) if strange else rng.choice(world.residents) for _ in range(4)]
    while len({person.name for person in people}) < 4:
        people = [world.stranger(rng) if strange else rng.choice(world.residents) for _ in range(4)]
    shop = world.strange_shop(rng) if strange or rng.random() < 0.2 else rng.choice(world.shops)
    scenes = rng.choices(_SCENES, _WEIGHTS, k=rng.choice((1, 2, 2, 3, 3, 4)))
    paragraphs = []
    for scene in dict.fromkeys(scene for scene, _ in scenes):
        lead = people[0] if rng.random() < 0.6 else rng.choice(people)
        others = [person for person in people if person is not lead]
        paragraphs.append(scene(Stage(rng, [lead, *others], shop)))
    return rng.choice((" ", "\n\n", "\n\n")).join(paragraphs)


def documents(world: World, seed: int, first: int, count: int) -> Iterator[str]:
    """Documents `first` to `first + count` of the text of `seed`."""
    return (document(world, seed, index) for index in range(first, first + count))
