"""Reward models: the costs by hand, the forest against transformers' own sequence classifier, and what is read out of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from tunewright.core.errors import BaseModelError
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import JudgedRow, LabelRow, Message, PreferenceRow, RankingRow, RatingRow, order_text
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.metrics.pair_accuracy import PairAccuracy
from tunewright.models.heads import Head
from tunewright.objectives.reward import Reward, _reading, answers_of
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


def ranking(prompt: str, *answers: str) -> RankingRow:
    return RankingRow(messages=(Message(role="user", content=prompt),), answers=answers, where=f"r:{prompt}")


RANKINGS = (
    ranking("what is red?", "a rose", "a brick", "the sea"),
    ranking("who sings?", "a bird in the tree", "a dog", "nobody at all", "no"),
    ranking("where is it?", "here", "over there, behind the house"),
    ranking("why?", "because it rains", "so", "what?"),
)
TIED = RatingRow(messages=ROWS[0].messages, answers=("a", "b", "c"), scores=(3.0, 2.0, 2.0), where="t:1")
JUDGED = JudgedRow(messages=ROWS[0].messages, completion="a", label=True, where="t:2")


class TestRankings(TestReward):
    rows = RANKINGS  # type: ignore[assignment]
    useless = (ranking("same?", "yes", "no", "yes "), TIED, JUDGED, LabelRow(text="text", label="label", where="l:1"))  # type: ignore[assignment]
    families = ("llama",)


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


def test_ratings_without_ties_are_rankings_and_ties_say_what_to_do() -> None:
    model = tiny("llama")
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    rated = RatingRow(messages=RANKINGS[0].messages, answers=RANKINGS[0].answers, scores=(5.0, 3.0, 1.0))
    one, other, tied = Reward().plant([RANKINGS[0], rated, TIED], renderer)
    assert not isinstance(one, Refusal)
    assert not isinstance(other, Refusal)
    assert [segment.tokens for segment in one.tree.segments] == [segment.tokens for segment in other.tree.segments]
    assert isinstance(tied, Refusal)
    assert tied.reason == "tie"
    assert "data.pairs" in tied.message


def test_a_ranking_is_answered_by_the_order_of_the_rewards() -> None:
    model = tiny("llama")
    head = Reward().make_head(model, (), 3)
    engine = Engine(model, {}, probe(model), head=head)
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    with engine.evaluating():
        found = Reward().readings(engine, renderer, [*RANKINGS, TIED])
    for one, asked in zip(found, RANKINGS, strict=False):
        rewards = one.details["rewards"]
        order = sorted(range(len(rewards)), key=lambda place: -rewards[place])
        assert one.text == order_text(asked.answers[place] for place in order)
        assert one.loss == pytest.approx(float(Reward().cost(torch.tensor(rewards))), rel=1e-5)
        assert one.confidence == pytest.approx(math.exp(-float(Reward().cost(torch.tensor(rewards)[order]))), rel=1e-5)
        pairs = [1 / (1 + math.exp(b - a)) for place, a in enumerate(rewards) for b in rewards[place + 1 :]]
        assert one.details["pairs"] == pytest.approx(pairs)
    assert (found[-1].text, found[-1].loss) == ("", None)


def test_rewards_far_apart_are_no_overflow() -> None:
    for rewards, text in (([-900.0, 900.0], "b"), ([900.0, -900.0], "a")):
        reading = _reading(row("q", "a", "b"), rewards, 0.0)
        assert (reading.text, reading.confidence) == (text, 1.0)
        ordered = _reading(ranking("q", "a", "b", "c"), [*rewards, 0.0], 0.0)
        assert ordered.confidence == pytest.approx(1.0)


def test_equal_rewards_are_not_taken_for_knowledge() -> None:
    assert _reading(row("q", "a", "b"), [1.0, 1.0], 0.0).text == "b"
    assert _reading(ranking("q", "a", "b", "c"), [1.0, 1.0, 1.0], 0.0).text == order_text("cba")
    assert _reading(ranking("q", "a", "b", "c"), [1.0, 1.0, 1.0], 0.0).confidence == pytest.approx(1 / 6)


def test_a_coin_orders_rankings_too() -> None:
    guess = Reward().guess(RANKINGS)
    rows = [ranking(f"which is {number}?", "this", "that", "none") for number in range(300)]
    share = PairAccuracy().measure([guess.answer(one) for one in rows], [one.target_text() for one in rows])
    assert 0.42 < share < 0.58
    assert guess.answer(rows[0]) == guess.answer(rows[0])
