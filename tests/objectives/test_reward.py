"""Reward models: the costs by hand, the forest against transformers' own sequence classifier, and what is read out of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from tunewright.core.errors import BaseModelError
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import Message, PreferenceRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.models.heads import Head
from tunewright.objectives.reward import Reward, answers_of
from tunewright.testing.objective_contract import ObjectiveContract
from tunewright.testing.tiny import tiny


def row(prompt: str, chosen: str, rejected: str) -> PreferenceRow:
    return PreferenceRow(messages=(Message(role="user", content=prompt),), chosen=chosen, rejected=rejected, where=f"p:{prompt}")


ROWS = (
    row("what is red?", "a rose", "the sea"),
    row("who sings?", "a bird in the tree", "no"),
    row("where is it?", "here", "over there, behind the house"),
    row("why?", "because it rains", "so"),
)


class TestReward(ObjectiveContract):
    objective = Reward()
    rows = ROWS
    useless = (row("same?", "yes", "yes"),)
    families = ("llama", "gpt2", "gemma2")

    def labels(self) -> tuple[str, ...]:
        return ("reward",)


def test_two_answers_cost_what_bradley_and_terry_say() -> None:
    rewards = torch.tensor([1.5, 0.5])
    assert float(Reward().cost(rewards)) == pytest.approx(math.log(1 + math.exp(-1)))
    assert float(Reward().cost(rewards, margin=2)) == pytest.approx(math.log(1 + math.exp(1)))
    assert float(Reward(centering=0.1).cost(rewards)) == pytest.approx(math.log(1 + math.exp(-1)) + 0.1 * 4)


def test_a_ranking_costs_what_plackett_and_luce_say() -> None:
    # p = e^2 / (e^2 + e^1 + e^0) * e^1 / (e^1 + e^0)
    first, second = math.exp(2) / (math.exp(2) + math.e + 1), math.e / (math.e + 1)
    assert float(Reward().cost(torch.tensor([2.0, 1.0, 0.0]))) == pytest.approx(-math.log(first * second), rel=1e-6)


def test_the_forest_computes_what_a_sequence_classifier_does() -> None:
    model = tiny("llama")
    head = Reward().make_head(model, (), 3)
    assert head is not None
    engine = Engine(model, dict(head.named_parameters()), probe(model), head=head.eval())
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    rows = [ROWS[0], replace(ROWS[1], metadata={"margin": 0.5}), ROWS[2]]
    trees = [item.tree for item in Reward().plant(rows, renderer) if not isinstance(item, Refusal)]
    found = answers_of(engine, engine.collate(trees))
    assert [margin for _, margin in found] == [0.0, 0.5, 0.0]
    with torch.no_grad():
        total, count = Reward().loss(engine, engine.collate(trees))
    model.network.set_attn_implementation("eager")
    wanted = []
    for tree in trees:
        root, *children = (segment.tokens for segment in tree.segments)
        hidden = [model.body(input_ids=torch.tensor([[*root, *child]])).last_hidden_state[0, -1] for child in children]
        wanted.append(torch.stack([head.output(one)[0] for one in hidden]))
    for (rewards, _), other in zip(found, wanted, strict=True):
        assert torch.allclose(rewards, other, atol=1e-5)
    plain = [-logsigmoid(one[0] - one[1] - margin) for one, margin in zip(wanted, (0, 0.5, 0), strict=True)]
    assert float(total) == pytest.approx(float(sum(plain).detach()), rel=1e-5)
    assert float(count) == 3


def test_a_row_is_answered_by_the_higher_reward(tmp_path) -> None:
    model = tiny("llama")
    head = Reward().make_head(model, (), 3)
    assert head is not None
    head.save(tmp_path)
    engine = Engine(model, {}, probe(model), head=Head.load(tmp_path))
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    with engine.evaluating():
        found = Reward().readings(engine, renderer, [*ROWS, row("same?", "yes", "yes")])
    for one, asked in zip(found, ROWS, strict=False):
        chosen, rejected = one.details["rewards"]
        assert one.text == (asked.chosen if chosen > rejected else asked.rejected)
        assert one.confidence == pytest.approx(1 / (1 + math.exp(-abs(chosen - rejected))))
        assert one.loss == pytest.approx(math.log(1 + math.exp(rejected - chosen)), rel=1e-4)
    assert (found[-1].text, found[-1].loss) == ("", None)


def test_bases_that_are_no_decoders_are_refused() -> None:
    for kind in ("encoder", "encoder_decoder"):
        with pytest.raises(BaseModelError, match="only a decoder"):
            Reward().decided(kind, ROWS)


def test_what_it_is_compared_with_is_a_coin() -> None:
    guess = Reward().guess(ROWS)
    rows = [row(f"which is {number}?", "this", "that") for number in range(400)]
    right = sum(guess.answer(one) == one.chosen for one in rows)
    assert 160 <= right <= 240
    assert guess.answer(rows[0]) == guess.answer(rows[0])
