"""`kto` against TRL 1.16: loss, reference point and gradients of its own trainer on the same tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from tunewright.data.forest import Tree
from tunewright.data.rows import JudgedRow, Message
from tunewright.objectives.kto import DESIRABLE, KTO

pytest.importorskip("trl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import KTOConfig, KTOTrainer

from .trl_side import assert_same, engine_with_lora, move, ours, planted, theirs, trainer_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # raised by TRL about transformers


def row(prompt: str, completion: str, label: bool) -> JudgedRow:
    return JudgedRow(messages=(Message(role="user", content=prompt),), completion=completion, label=label, where=f"k:{prompt}")


ROWS = (
    row("what is red?", "a rose", True),
    row("who sings?", "no", False),
    row("where is it?", "over there, behind the house", False),
    row("why?", "because it rains", True),
    row("how many?", "seven", True),
)
SHOWN = {"prompt": "a", "completion": "b", "label": True}  # what a trainer is built with; never learned from
NAMES = ("prompt_ids", "completion_ids", "KL_completion_ids")


def examples(trees: Sequence[Tree]) -> list[dict[str, Any]]:
    """The trees under the names that TRL's collator knows; on rows in their order both pair prompts with the answer before."""
    found = []
    for tree in trees:
        ids = {name: list(one.tokens) for name, one in zip(NAMES, tree.segments, strict=False)}
        found.append({**ids, "label": tree.segments[1].values[1] == DESIRABLE})
    return found


@pytest.mark.parametrize("moved", [0.0, 0.2])
@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_kto_is_that_of_trl(loss_type: Any, moved: float, tmp_path) -> None:
    """Near its base the KL is estimated below zero and cut off; far from it, it is not."""
    engine = engine_with_lora()
    move(engine, moved, seed=1)
    weights: dict[str, Any] = {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    objective = KTO(loss_type=loss_type, **weights)
    trees = planted(engine, objective, ROWS)
    point = objective.point(objective.part_of(engine, trees))
    settings = {**weights, "loss_type": loss_type, "max_length": None, "per_device_train_batch_size": len(ROWS)}
    trainer = trainer_of(KTOTrainer, KTOConfig, engine, SHOWN, tmp_path, asked=settings)
    other = theirs(trainer, [trainer.data_collator(examples(trees))])
    assert_same(ours(engine, objective, objective.referred(trees, point)), other)
    assert trainer._metrics["train"]["kl"][-1] == pytest.approx(point, rel=1e-4)
    assert (point > 0) == (moved > 0 and loss_type == "kto")
