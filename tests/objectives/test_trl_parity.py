"""`sft` and `reward` against TRL 1.16: loss and gradients of its own trainers on the same tokens."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from datasets import Dataset

from tunewright.data.rows import ChatRow, Message, PreferenceRow, PromptRow, TextRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.objectives.reward import Reward
from tunewright.objectives.sft import SFT
from tunewright.testing.tiny import tiny

pytest.importorskip("trl")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from .parity import assert_same_gradients, body_of, own_gradients
from .trl_side import QUIET, assert_same, engine_with_lora, ours, planted, theirs, trainer_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # raised by TRL about transformers

PAIRS = (
    PreferenceRow(messages=(Message(role="user", content="what is red?"),), chosen="a rose", rejected="the sea"),
    PreferenceRow(messages=(Message(role="user", content="who sings?"),), chosen="a bird in the tree", rejected="no"),
    PreferenceRow(messages=(Message(role="user", content="where?"),), chosen="here", rejected="over there, behind the house"),
)
EXAMPLES = (
    PromptRow(prompt="what is red?", completion="a rose"),
    PromptRow(prompt="who sings in the tree?", completion="a bird, and now and then the wind"),
    ChatRow(messages=(Message(role="user", content="where?"), Message(role="assistant", content="here"))),
    TextRow(text="a text is learned from its first word on"),
)


@pytest.mark.parametrize(
    ("family", "objective", "asked"),
    [
        ("llama", SFT(), {"completion_only_loss": True}),
        ("gpt_neox", SFT(), {"completion_only_loss": True}),
        ("llama", SFT(label_smoothing=0.1), {"completion_only_loss": True, "label_smoothing_factor": 0.1}),
        ("llama", SFT(learn="whole"), {"completion_only_loss": False}),
    ],
    ids=["llama", "gpt_neox", "smoothed", "whole"],
)
def test_sft_is_that_of_trl(family: str, objective: SFT, asked: dict[str, Any], tmp_path) -> None:
    """Each learned token of the batch weighs the same; TRL is told where answers stand and decides itself what is learned."""
    engine = engine_with_lora(family)
    trees = planted(engine, objective, EXAMPLES)
    answers = [tree.segments[0] for tree in planted(engine, SFT(), EXAMPLES)]
    rows = [{"input_ids": list(one.tokens), "completion_mask": [int(weight > 0) for weight in one.targets]} for one in answers]
    trainer = trainer_of(SFTTrainer, SFTConfig, engine, rows[0], tmp_path, asked={"max_length": None, **asked})
    prepared = trainer._prepare_dataset(
        Dataset.from_list(rows), trainer.processing_class, trainer.args, trainer.args.packing, None, "train"
    )
    assert_same(ours(engine, objective, trees), theirs(trainer, [trainer.data_collator(list(prepared))]))


@pytest.mark.parametrize("centering", [0.0, 0.2])
@pytest.mark.parametrize("margins", [(), (0.5, 0.0, 2.0)], ids=["plain", "margins"])
def test_reward_is_that_of_trl(centering: float, margins: tuple[float, ...], tmp_path) -> None:
    """All weights: of the body and of the head, which has a bias with us and none with transformers."""
    rows = [replace(row, metadata={"margin": margin}) for row, margin in zip(PAIRS, margins, strict=True)] if margins else PAIRS
    objective, model = Reward(centering=centering), tiny("llama")
    head: Any = objective.make_head(model, (), 3)
    network = LlamaForSequenceClassification(body_of("llama", num_labels=1))
    network.model.load_state_dict(model.body.state_dict())
    network.score.load_state_dict({"weight": head.output.weight.detach()})
    assert not head.output.bias.any()
    engine = Engine(model, dict(head.named_parameters()), probe(model), head=head)
    trees = planted(engine, objective, rows)

    settings = {**QUIET, "output_dir": str(tmp_path), "max_length": None, "center_rewards_coefficient": centering or None}
    shown = Dataset.from_list([{"chosen": "a", "rejected": "b"}] * 8)
    trainer = RewardTrainer(network, args=RewardConfig(**settings), train_dataset=shown, processing_class=model.tokenizer)
    batch = []
    for place, tree in enumerate(trees):
        prompt, chosen, rejected = (list(one.tokens) for one in tree.segments)
        batch.append(
            {"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected} | ({"margin": margins[place]} if margins else {})
        )
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(batch))
    loss.backward()
    assert own_gradients(engine, objective, trees) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert float(torch.as_tensor(network.score.weight.grad).abs().max()) > 1e-3
    assert_same_gradients({"body": (model.body, network.model), "head": (head.output, network.score)}, fewest=20)
