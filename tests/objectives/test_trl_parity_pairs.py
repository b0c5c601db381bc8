"""`dpo`, `ipo`, `orpo` and `simpo` against TRL 1.16: loss and gradients of its own trainers on the same tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tunewright.data.forest import Tree
from tunewright.data.rows import Message, PreferenceRow
from tunewright.objectives._preference import PairObjective
from tunewright.objectives.dpo import DPO
from tunewright.objectives.ipo import IPO
from tunewright.objectives.orpo import ORPO
from tunewright.objectives.simpo import SimPO

pytest.importorskip("trl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from .trl_side import assert_same, engine_with_lora, ours, planted, theirs, trainer_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # raised by TRL about transformers


def row(prompt: str, chosen: str, rejected: str) -> PreferenceRow:
    return PreferenceRow(messages=(Message(role="user", content=prompt),), chosen=chosen, rejected=rejected, where=f"p:{prompt}")


ROWS = (
    row("what is red?", "a rose", "the sea"),
    row("who sings?", "a bird in the tree", "no"),
    row("where is it?", "here", "over there, behind the house"),
    row("why?", "because it rains", "so"),
)
SHOWN = {"prompt": "a", "chosen": "b", "rejected": "c"}  # what a trainer is built with; never learned from


def pair_ids(tree: Tree) -> dict[str, list[int]]:
    """A tree's tokens under the names that TRL's collator knows."""
    return {f"{name}_ids": list(one.tokens) for name, one in zip(("prompt", "chosen", "rejected"), tree.segments, strict=True)}


def labelled(trees: Sequence[Tree]) -> dict[str, Any]:
    """A batch as `CPOTrainer` and `ORPOTrainer` take it: answers with their prompts, labels at answers only."""
    found: dict[str, Any] = {}
    for place, name in ((1, "chosen"), (2, "rejected")):
        prompts = [list(tree.segments[0].tokens) for tree in trees]
        answers = [list(tree.segments[place].tokens) for tree in trees]
        pairs = list(zip(prompts, answers, strict=True))
        width = max(len(prompt) + len(answer) for prompt, answer in pairs)
        rests = [width - len(prompt) - len(answer) for prompt, answer in pairs]
        each = list(zip(pairs, rests, strict=True))
        found[f"{name}_input_ids"] = torch.tensor([[*prompt, *answer, *[0] * rest] for (prompt, answer), rest in each])
        found[f"{name}_attention_mask"] = torch.tensor([[1] * (width - rest) + [0] * rest for rest in rests])
        found[f"{name}_labels"] = torch.tensor(
            [[*[-100] * len(prompt), *answer, *[-100] * rest] for (prompt, answer), rest in each]
        )
    return found


@pytest.mark.parametrize(
    ("objective", "asked"),
    [
        (DPO(beta=0.3), {"loss_type": "sigmoid"}),
        (DPO(beta=0.1, loss_type="hinge"), {"loss_type": "hinge"}),
        (DPO(beta=0.3, loss_type="robust", label_smoothing=0.2), {"loss_type": "robust", "label_smoothing": 0.2}),
        (IPO(beta=0.2), {"loss_type": "ipo"}),
    ],
    ids=["sigmoid", "hinge", "robust", "ipo"],
)
def test_dpo_and_ipo_are_those_of_trl(objective: PairObjective, asked: dict[str, Any], tmp_path) -> None:
    engine = engine_with_lora()
    trees = planted(engine, objective, ROWS)
    settings = {"beta": objective.beta, "max_length": None, **asked}  # type: ignore[attr-defined]
    trainer = trainer_of(DPOTrainer, DPOConfig, engine, SHOWN, tmp_path, asked=settings)
    assert_same(ours(engine, objective, trees), theirs(trainer, [trainer.data_collator([pair_ids(tree) for tree in trees])]))


def test_the_chosen_answers_own_loss_is_that_of_trl_pair_by_pair(tmp_path) -> None:
    """TRL takes the mean over the tokens of a batch, we over the tokens of each pair: in batches of one pair these are the same."""
    engine = engine_with_lora()
    objective = DPO(beta=0.3, sft_weight=0.5)
    trees = planted(engine, objective, ROWS)
    settings = {"beta": 0.3, "max_length": None, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}
    trainer = trainer_of(DPOTrainer, DPOConfig, engine, SHOWN, tmp_path, asked=settings)
    assert_same(ours(engine, objective, trees), theirs(trainer, [trainer.data_collator([pair_ids(tree)]) for tree in trees]))


def without_base(trees: Sequence[Tree]) -> list[Tree]:
    """The trees with a base that finds every answer certain, which is no reference at all."""
    return [Tree((tree.segments[0], *(replace(one, values=(0.0,)) for one in tree.segments[1:]))) for tree in trees]


def test_label_smoothing_is_that_of_trl(tmp_path) -> None:
    """TRL 1.16 has it for the sigmoid loss in `CPOTrainer`, which has no reference."""
    engine = engine_with_lora()
    objective = DPO(beta=0.3, label_smoothing=0.1)
    trees = without_base(planted(engine, objective, ROWS))
    settings = {"beta": 0.3, "label_smoothing": 0.1, "loss_type": "sigmoid", "cpo_alpha": 0.0}
    trainer = trainer_of(CPOTrainer, CPOConfig, engine, SHOWN, tmp_path, asked=settings)
    assert_same(ours(engine, objective, trees), theirs(trainer, [labelled(trees)]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_is_that_of_trl(smoothing: float, tmp_path) -> None:
    engine = engine_with_lora("qwen3")
    objective = SimPO(beta=1.5, gamma=0.7, label_smoothing=smoothing)
    trees = planted(engine, objective, ROWS)
    settings = {"beta": 1.5, "simpo_gamma": 0.7, "label_smoothing": smoothing, "loss_type": "simpo", "cpo_alpha": 0.0}
    trainer = trainer_of(CPOTrainer, CPOConfig, engine, SHOWN, tmp_path, asked=settings)
    assert_same(ours(engine, objective, trees), theirs(trainer, [labelled(trees)]))


def test_orpo_is_that_of_trl_behind_prompts_of_one_token(tmp_path) -> None:
    """TRL learns the prompt too, and over the tokens of a batch. A prompt of one token has nothing to learn, in batches of one."""
    engine = engine_with_lora()
    objective = ORPO(beta=0.4)
    trees = [
        Tree((replace(tree.segments[0], tokens=tree.segments[0].tokens[:1], targets=()), *tree.segments[1:]))
        for tree in planted(engine, objective, ROWS)
    ]
    trainer = trainer_of(ORPOTrainer, ORPOConfig, engine, SHOWN, tmp_path, asked={"beta": 0.4})
    assert_same(ours(engine, objective, trees), theirs(trainer, [labelled([tree]) for tree in trees]))
