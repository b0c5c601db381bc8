"""What holding weights near the base's is for, on the base that ships: a new task is learned, and old text stays readable."""

import random
from functools import cache
from typing import NamedTuple

import pytest

from tunewright import examples
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import PromptRow, Row, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import Probed
from tunewright.engine.settings import AdamW
from tunewright.evaluation.opening import load_base
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.objectives.sft import SFT
from tunewright.training.aids.anchors import Anchors, held_of
from tunewright.training.aids.fisher import measure
from tunewright.training.loop import Pace, Plan, fit

WORDS = ["red", "blue", "green", "small", "large", "cat", "dog", "bird", "tree", "house", "river"]


class Outcome(NamedTuple):
    """-log p a token after tuning: of the task's held-out rows, and by how much that of held-out general text has risen."""

    task: float
    risen: float


class Desk(NamedTuple):
    """The embedded base with the trees of general text (looked at, held out) and of the task (trained on, held out)."""

    model: Model
    seen: list[Tree]
    unseen: list[Tree]
    task: list[Tree]
    test: list[Tree]


@cache
def desk() -> Desk:
    model = load_base("embedded")
    renderer = Renderer(model.tokenizer, model.kind, model.context)

    def planted(rows: list[Row]) -> list[Tree]:
        return [item.tree for item in SFT().plant(rows, renderer) if not isinstance(item, Refusal)]

    draw = random.Random(0)
    drawn = [draw.sample(WORDS, 3) for _ in range(72)]
    rows = [PromptRow(prompt=f"Turn round: {' '.join(one)}", completion=" ".join(reversed(one))) for one in drawn]
    lines = [line for line in examples.path("town.txt").read_text(encoding="utf-8").splitlines() if line.strip()]
    general = planted([TextRow(text=line[:240]) for line in lines[:36]])
    task = planted(rows)
    return Desk(model, general[0::3], general[1::3], task[:56], task[56:])


@cache
def tuned(l2: float, strength: float) -> Outcome:
    model, seen, unseen, task, test = desk()
    tuning = LoRA(rank=8).attach(model, 0)
    engine = Engine(model, tuning.parameters(), Probed())
    tuning.follow(engine.first)
    held = held_of(model, tuning, engine.parameters)
    fisher = measure(engine, tuning, held, seen) if strength else {}
    Anchors(held, l2, strength, fisher).join(engine.first)
    engine.optimizer = Optimizer(AdamW(), engine.parameters)

    def cost(trees: list[Tree]) -> float:
        with engine.evaluating():
            total, count = engine.language_loss(engine.collate(trees))
        return float(total / count)

    before = cost(unseen)
    for _ in fit(engine, SFT().loss, Plan(task, 8, 2048, 0, 20), Pace(5e-3, "constant")):
        pass
    outcome = Outcome(cost(test), cost(unseen) - before)
    tuning.detach()
    return outcome


@pytest.mark.parametrize(("l2", "strength"), [(0.05, 0.0), (0.0, 1000.0)], ids=["l2_to_base", "ewc"])
def test_less_is_forgotten_and_the_task_is_learned(l2: float, strength: float):
    free, aided = tuned(0.0, 0.0), tuned(l2, strength)
    assert free.risen > 0.05
    assert aided.risen < 0.5 * free.risen
    assert aided.task < 2.5  # of more than 8 before
    assert aided.task < free.task + 0.3
