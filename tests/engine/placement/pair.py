"""What one of two processes does in `test_pair.py`: every scenario once, its findings as JSON into a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tunewright.core.errors import DivergedError
from tunewright.core.surroundings import process
from tunewright.engine.loss import Loss
from tunewright.engine.optimizers import Optimizer
from tunewright.engine.placement import Placement
from tunewright.engine.placement.group import joined
from tunewright.engine.placement.sharded import Sharded
from tunewright.engine.settings import AdamW
from tunewright.methods.full import Full
from tunewright.methods.lora import LoRA
from tunewright.testing.tiny import tiny
from tunewright.testing.toy import toy_engine, toy_loss, toy_trees
from tunewright.training import checkpoints
from tunewright.training.around import Best
from tunewright.training.loop import Pace, Plan, Step, fit, require_finite

STEPS = 8


def bench(family: str, full: bool, group: Placement | None, rows: int = 10) -> tuple[Any, Any, Plan, Placement]:
    """Engine, tuning, plan and placement: divided over the group for full tuning, replicated for LoRA, alone without a group."""
    model = tiny(family)
    tuning = (Full() if full else LoRA(rank=4, dropout=0.2)).attach(model, 0)
    engine = toy_engine(model, tuning)
    placement = group or Placement()
    if full and group is not None:
        placement = Sharded(group.process, model, engine.head)
        engine.parameters.update(placement.divided(engine.parameters, engine.head))
        tuning.moved(engine.parameters)
        engine.optimizer = Optimizer(AdamW(), engine.parameters)
    # The last step of an epoch has a single micro-batch, so that one process has none.
    return engine, tuning, Plan(toy_trees(model, rows), 4, 20, 3, STEPS), placement


def trained(family: str, full: bool, group: Placement | None) -> list[list[float]]:
    """Loss, norm, count and tokens of every step."""
    engine, _, plan, placement = bench(family, full, group, rows=9)
    return [[one.loss, one.gradient_norm, one.trained, one.tokens] for one in fit(engine, toy_loss, plan, PACE, 0, placement)]


PACE = Pace(1e-2, "linear", 1)


def agreement(group: Placement) -> dict[str, Any]:
    """What is said, gathered and summed."""
    rank = group.process.rank
    return {
        "tell": group.tell({"from": rank, "text": "ä" * rank}),
        "gather": group.gather(["x" * (3 * rank), rank]),
        "any": [group.any(False), group.any(rank == 1), group.any(True)],
        "sum": group.sum_numbers([0.1 + rank, 2.0**53]),
        "nan": group.sum_numbers([float("nan") if rank else 1.0])[0] != 0,
    }


def gradients(group: Placement) -> list[Any]:
    """The sums of: a gradient of both, of one process, of none."""
    rank = group.process.rank
    both, single, none = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    both.grad = torch.full((2, 2), 1.0 + rank)
    single.grad = torch.full((2, 2), 7.0) if rank else None
    group.sum_gradients({"both": both, "single": single, "none": none})
    return [None if one.grad is None else one.grad.flatten().tolist() for one in (both, single, none)]


def diverged(full: bool, group: Placement) -> str:
    """A loss that is not finite on the second process only: the words of the error."""
    engine, _, plan, placement = bench("llama", full, group)

    def loss(engine: Any, batch: Any) -> Loss:
        total, count = toy_loss(engine, batch)
        return Loss(total * (float("inf") if group.process.rank else 1.0), count)

    try:
        list(fit(engine, loss, plan, PACE, 0, placement))
    except DivergedError as error:
        engine.check_finite()
        return str(error)
    return "nothing was raised"


def stored(group: Placement, folder: Path) -> dict[str, Any]:
    """Divided weights: a checkpoint, what is saved, the base inside `disabled`, a number that is not finite in one part."""
    engine, tuning, plan, placement = bench("llama", True, group)
    trees = plan.trees[:2]

    def score() -> list[float]:
        with placement.readable():
            return engine.score(trees)[0].tolist()

    base = score()
    best = Best("loss", False)
    steps = fit(engine, toy_loss, plan, PACE, 0, placement)
    for _ in range(3):
        step: Step = next(steps)
    step.validation = {"loss": 1.0}
    best.see(step, engine)
    found: dict[str, Any] = {"divided": {name: list(one.to_local().shape) for name, one in engine.parameters.items()}}
    found["tuned"] = score()
    with tuning.disabled():
        found["disabled"] = score() == base
    found["back"] = score() == found["tuned"]
    checkpoints.save(folder / "checkpoints", step, engine, best, placement)
    with placement.written(engine.model.network):
        if placement.leads:
            (folder / "model").mkdir()
            tuning.save(folder / "model")
    found["after"] = [step.loss for step in steps]
    restored = checkpoints.restore(folder / "checkpoints", engine, best, placement)
    found["again"] = [step.loss for step in fit(engine, toy_loss, plan, PACE, restored.step, placement)]
    with torch.no_grad():
        parameter = next(iter(engine.parameters.values()))
        if group.process.rank:
            parameter.to_local().fill_(float("nan"))
    try:
        require_finite(engine, placement)
    except DivergedError as error:
        found["not finite"] = "not finite" in str(error)
    return found


def main(folder: Path) -> None:
    """Everything, in an order that both processes share."""
    torch.set_num_threads(1)
    with joined() as group:
        found = {
            "agreement": agreement(group),
            "gradients": gradients(group),
            "llama lora": trained("llama", False, group),
            "llama full": trained("llama", True, group),
            "bert full": trained("bert", True, group),
            "t5 full": trained("t5", True, group),
            "diverged lora": diverged(False, group),
            "diverged full": diverged(True, group),
            "stored": stored(group, folder),
        }
    (folder / f"found-{process().rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
