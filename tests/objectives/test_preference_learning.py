"""On the base that ships: judged answers raise the win rate on prompts that were held out, reward models tell held-out pairs and
rankings of four apart, and their probabilities can be measured.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tunewright.core.configuration import build
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import JudgedRow, Message, PreferenceRow
from tunewright.engine.engine import Engine
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.probe import probe
from tunewright.engine.settings import AdamW
from tunewright.evaluation.opening import load_base
from tunewright.finetune import Run, finetune
from tunewright.methods.lora import LoRA
from tunewright.objectives.kto import KTO
from tunewright.training.loop import Pace, Plan, fit
from tunewright.training.referring import Referring

LIKED = ("The {} is nice, and I like it.", "I think the {} is very good.", "Yes, the {} made me happy.")
DISLIKED = ("The {} was bad and very sad.", "No, the {} is not good at all.", "I did not like the {}.")
STEPS = ("I love the {}, it is wonderful.", "I like the {}.", "I do not like the {}.", "I hate the {}, it is terrible.")


def things() -> list[str]:
    """64 things to have an opinion on."""
    how = ["red", "old", "small", "green", "tall", "cold", "quiet", "happy"]
    what = ["fox", "house", "river", "clock", "garden", "window", "bird", "letter"]
    found = [f"{one} {other}" for one in how for other in what]
    random.Random(0).shuffle(found)
    return found


def asked(thing: str) -> tuple[Message, ...]:
    return (Message(role="user", content=f"What about the {thing}?"),)


def wins(objective: KTO, engine: Engine, renderer: Renderer, rows: Sequence[PreferenceRow]) -> float:
    """In which share of the pairs the model prefers the better answer."""
    with engine.evaluating():
        readings = objective.readings(engine, renderer, rows)
    return sum(reading.details["preference"] > 0 for reading in readings) / len(rows)


def test_judged_answers_raise_the_win_rate_on_prompts_that_were_held_out() -> None:
    answers = [(thing, LIKED[n % 3].format(thing), DISLIKED[n % 3].format(thing)) for n, thing in enumerate(things())]
    judged = [
        JudgedRow(messages=asked(thing), completion=disliked if n % 2 else liked, label=n % 2 == 0)
        for n, (thing, liked, disliked) in enumerate(answers[:40])
    ]
    held_out = [PreferenceRow(messages=asked(thing), chosen=liked, rejected=disliked) for thing, liked, disliked in answers[40:]]
    model = load_base("embedded")
    tuning = LoRA(rank=8).attach(model, 0)
    engine = Engine(model, tuning.parameters(), probe(model))
    tuning.follow(engine.first)
    engine.optimizer = Optimizer(AdamW(), engine.parameters)
    renderer, objective = Renderer(model.tokenizer, model.kind, model.context), KTO(beta=0.3)
    before = wins(objective, engine, renderer, held_out)
    planted = objective.plant(judged, renderer)
    trees = objective.prepare(engine, [item.tree for item in planted if not isinstance(item, Refusal)])
    plan = Plan(trees, batch_size=8, token_budget=1024, seed=0, total=12)
    steps = list(fit(engine, objective.loss, Referring(plan, engine, objective), Pace(2e-3)))
    assert before < 0.5
    assert wins(objective, engine, renderer, held_out) > 0.95
    assert steps[-1].loss < 0.2 < 0.4 < steps[0].loss
    assert steps[0].facts["reference_point"] == pytest.approx(0, abs=1e-3)  # an adapter that is not trained is the base
    assert max(step.facts["reference_point"] for step in steps) > 1


def ranked(folder: Path) -> str:
    """64 prompts with four answers each, from the warmest to the coldest, in any order with their ranks."""
    draw, lines = random.Random(1), []
    for thing in things():
        order = draw.sample(range(4), 4)
        answers = [STEPS[place].format(thing) for place in order]
        lines.append({"prompt": f"What about the {thing}?", "answers": answers, "ranks": [place + 1 for place in order]})
    path = folder / "ranked.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize("pairs", [None, "best_worst"])
def test_a_reward_model_tells_held_out_answers_apart(pairs: str | None, tmp_path: Path) -> None:
    data: dict[str, Any] = {"train": ranked(tmp_path), "test_share": 0.3, "validation_share": 0.1, "near_duplicates": 0}
    training = {
        "max_steps": 20 if pairs is None else 10,
        "batch_size": 8,
        "learning_rate": 4e-3,
        "validate_every": 10,
        "precision": "float32",
    }
    described = {"data": data | {"pairs": pairs}, "objective": "reward", "base": "embedded", "threads": 1, "name": "judge"}
    run = build(Run, described | {"training": training, "folder": str(tmp_path / "runs")})
    folder, report = finetune(run)
    accuracy, calibration, brier, *_ = report.measures
    assert [one.metric for one in report.measures] == ["pair_accuracy", "expected_calibration_error", "brier_score", "loss"]
    assert accuracy.tuned.value >= 0.9
    assert accuracy.base is not None
    assert accuracy.base.value < 0.7
    assert brier.tuned.value < 0.1
    assert 0 <= calibration.tuned.low <= calibration.tuned.value < 0.2
    assert brier.base is calibration.difference is None  # a coin is not sure of anything
    assert accuracy.tuned.count == (19)
    line = json.loads((folder / "predictions" / "test.jsonl").read_text().splitlines()[0])
    assert len(line["details"]["rewards"]) == (4 if pairs is None else 2)
    assert report.verdict.outcome == "better"
