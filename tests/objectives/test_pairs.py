"""Objectives on pairs: what one pair costs by the published formulas, the base's part, and that the forest computes the same as
transformers does answer by answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tunewright.core.errors import ConfigurationError
from tunewright.data.forest import Tree
from tunewright.data.rendering import Refusal, Renderer
from tunewright.data.rows import LabelRow, Message, PreferenceRow
from tunewright.engine.engine import Engine
from tunewright.engine.probe import probe
from tunewright.methods.lora import LoRA
from tunewright.models import Model
from tunewright.objectives import room
from tunewright.objectives._preference import PairObjective, Pairs, pairs_of
from tunewright.objectives.dpo import DPO
from tunewright.objectives.ipo import IPO
from tunewright.objectives.orpo import ORPO
from tunewright.objectives.simpo import SimPO
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
USELESS = (row("same?", "yes ", "yes"), row("empty?", "yes", ""), LabelRow(text="text", label="label", where="l:1"))


class PairContract(ObjectiveContract):
    rows = ROWS
    useless = USELESS


class TestDPO(PairContract):
    objective = DPO(beta=0.5)


class TestHinge(PairContract):
    objective = DPO(beta=0.5, loss_type="hinge", sft_weight=0.2)
    families = ("llama",)


class TestIPO(PairContract):
    objective = IPO(beta=0.5)


class TestORPO(PairContract):
    objective = ORPO(beta=0.5)


class TestSimPO(PairContract):
    objective = SimPO()


def sums(model: Model, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """log p of each token of an answer, by transformers' own forward pass."""
    logits = model.network(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]


@pytest.fixture
def trained() -> tuple[Engine, PairObjective, list[tuple[tuple[int, ...], ...]], list[tuple[Tensor, Tensor]]]:
    """An engine with a LoRA away from its start, trees that carry the base's part, their tokens, and the base's sums."""
    model = tiny("llama")
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    planted = [item for item in DPO().plant(ROWS, renderer) if not isinstance(item, Refusal)]
    tokens = [tuple(segment.tokens for segment in item.tree.segments) for item in planted]
    with torch.no_grad():
        base = [(sums(model, p, c).sum(), sums(model, p, r).sum()) for p, c, r in tokens]
    tuning = LoRA(rank=4).attach(model, 0)
    with torch.no_grad():
        for parameter in tuning.parameters().values():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    engine = Engine(model, tuning.parameters(), probe(model))
    tuning.follow(engine.first)
    engine.trees = DPO().prepare(engine, [item.tree for item in planted])  # type: ignore[attr-defined]
    return engine, DPO(), tokens, base


def test_what_the_forest_computes_is_what_transformers_computes(trained) -> None:
    engine, _, tokens, base = trained
    found = pairs_of(engine, engine.collate(engine.trees))
    model = engine.model
    model.network.set_attn_implementation("eager")
    chosen = [sums(model, p, c) for p, c, _ in tokens]
    rejected = [sums(model, p, r) for p, _, r in tokens]
    assert torch.allclose(found.chosen_P, torch.stack([one.sum() for one in chosen]), atol=1e-4)
    assert torch.allclose(found.rejected_P, torch.stack([one.sum() for one in rejected]), atol=1e-4)
    assert torch.allclose(found.chosen_base_P, torch.stack([c for c, _ in base]), atol=1e-4)
    assert torch.allclose(found.rejected_base_P, torch.stack([r for _, r in base]), atol=1e-4)
    assert found.chosen_count_P.tolist() == [len(c) for _, c, _ in tokens]
    assert found.rejected_count_P.tolist() == [len(r) for _, _, r in tokens]


def test_gradients_are_those_of_the_plain_formula(trained) -> None:
    engine, _, tokens, base = trained
    parameters = list(engine.parameters.values())
    total, count = DPO(beta=0.3).loss(engine, engine.collate(engine.trees))
    found = torch.autograd.grad(total / count, parameters)
    model = engine.model
    model.network.set_attn_implementation("eager")
    losses = []
    for (p, c, r), (base_c, base_r) in zip(tokens, base, strict=True):
        h = 0.3 * ((sums(model, p, c).sum() - base_c) - (sums(model, p, r).sum() - base_r))
        losses.append(-torch.nn.functional.logsigmoid(h))
    wanted = torch.autograd.grad(torch.stack(losses).mean(), parameters)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(other.abs().max()) + 1e-7)


PAIR = Pairs(
    chosen_P=torch.tensor([-4.0]),
    rejected_P=torch.tensor([-9.0]),
    chosen_count_P=torch.tensor([2.0]),
    rejected_count_P=torch.tensor([3.0]),
    chosen_base_P=torch.tensor([-5.0]),
    rejected_base_P=torch.tensor([-8.0]),
)


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def odds(mean: float) -> float:
    return mean - math.log(1 - math.exp(mean))


@pytest.mark.parametrize(
    ("objective", "cost"),
    [
        # The margin is (-4 + 5) - (-9 + 8) = 2; at beta 0.5, h = 1.
        (DPO(beta=0.5), -log_sigmoid(1)),
        (DPO(beta=0.5, label_smoothing=0.1), -0.9 * log_sigmoid(1) - 0.1 * log_sigmoid(-1)),
        (DPO(beta=0.5, loss_type="robust", label_smoothing=0.1), (-0.9 * log_sigmoid(1) + 0.1 * log_sigmoid(-1)) / 0.8),
        (DPO(beta=0.25, loss_type="hinge"), 0.5),
        (DPO(beta=1, loss_type="hinge"), 0.0),
        (DPO(beta=0.5, sft_weight=3), -log_sigmoid(1) + 3 * 2),
        # Per token: 1/2 - (-1/3) = 5/6, aimed at 1 / (2 * 0.5) = 1.
        (IPO(beta=0.5), (5 / 6 - 1) ** 2),
        # Means: -2 and -3.
        (ORPO(beta=0.2), 2 - 0.2 * log_sigmoid(odds(-2) - odds(-3))),
        (SimPO(beta=2, gamma=0.5), -log_sigmoid(2 * 1 - 0.5)),
        (SimPO(beta=2, gamma=0.5, label_smoothing=0.2), -0.8 * log_sigmoid(1.5) - 0.2 * log_sigmoid(-1.5)),
    ],
)
def test_what_one_pair_costs(objective: PairObjective, cost: float) -> None:
    assert float(objective.costs(PAIR)) == pytest.approx(cost, rel=1e-5)


def test_objectives_without_a_reference_compute_none() -> None:
    model = tiny("llama")
    engine = Engine(model, {}, probe(model))
    renderer = Renderer(model.tokenizer, model.kind, model.context)
    trees = [item.tree for item in ORPO().plant(ROWS, renderer) if not isinstance(item, Refusal)]
    assert ORPO().prepare(engine, trees) == trees
    assert torch.isnan(pairs_of(engine, engine.collate(trees)).chosen_base_P).all()
    assert DPO().prepare(engine, trees) == trees  # no tuning stands here, so there is no base beside it
    readings = DPO().readings(engine, renderer, ROWS)
    assert {reading.loss for reading in readings} == {None}
    assert all("margin" not in reading.details for reading in readings)


def test_a_row_is_answered_by_what_the_model_prefers(trained) -> None:
    engine, objective, _, _ = trained
    renderer = Renderer(engine.model.tokenizer, engine.model.kind, engine.model.context)
    with engine.evaluating():
        found = objective.readings(engine, renderer, (*ROWS, USELESS[0]))
        pairs = pairs_of(engine, engine.collate(engine.trees))
    assert [reading.text for reading in found[:-1]] == [
        row.chosen if chosen > rejected else row.rejected
        for row, chosen, rejected in zip(ROWS, pairs.chosen_P.tolist(), pairs.rejected_P.tolist(), strict=True)
    ]
    assert [reading.loss for reading in found[:-1]] == pytest.approx(objective.costs(pairs).tolist(), rel=1e-5)
    assert found[0].details["margin"] == pytest.approx(float(pairs.margin_P[0]), rel=1e-4)
    assert (found[-1].text, found[-1].loss) == ("", None)


def test_the_base_is_computed_once(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, objective, _, _ = trained
    monkeypatch.setattr(Engine, "score", lambda *_: pytest.fail("the base was asked again"))
    assert objective.prepare(engine, engine.trees) == engine.trees


def test_wrong_settings_are_refused() -> None:
    for settings in ({"name": "dpo", "beta": 0}, {"name": "dpo", "label_smoothing": 0.5}, {"name": "simpo", "gama": 1}):
        with pytest.raises(ConfigurationError):
            room.make(settings)


def test_what_was_not_prepared_is_computed_beside(trained) -> None:
    engine, objective, _, _ = trained
    bare = [Tree(tuple(replace(segment, values=()) for segment in tree.segments)) for tree in engine.trees]
    wanted = objective.loss(engine, engine.collate(engine.trees))
    found = objective.loss(engine, engine.collate(bare))
    assert float(found.total.detach()) == pytest.approx(float(wanted.total.detach()), rel=1e-5)
    with pytest.raises(ValueError, match="prepare"):
        objective.loss(engine, engine.collate(bare).part(0))
